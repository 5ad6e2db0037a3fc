"""Every mistake in a folder of images is answered with its error, which names the file."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from parts import module, write_list
from PIL import Image

from ratchet.config import compose
from ratchet.errors import (
    ConfigError,
    DatasetNotFoundError,
    DuplicateNameError,
    EmptySplitError,
    MaskSizeError,
    MaskValueError,
    MetadataError,
    MissingImageError,
    MissingMaskError,
    SplitOverlapError,
    UnreadableImageError,
)
from ratchet.training.fingerprint import trial_fingerprint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        module(tmp_path / "nowhere").prepare()


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetNotFoundError, match="holds no image"):
        module(tmp_path).prepare()


def test_an_image_without_mask_is_named(folder: Path) -> None:
    (folder / "masks" / "part_05.png").unlink()
    with pytest.raises(MissingMaskError, match=r"images/part_05\.png has no mask .*\(1 such image\)"):
        module(folder).prepare()


def test_a_mask_without_image_is_named(folder: Path) -> None:
    (folder / "images" / "part_05.png").unlink()
    with pytest.raises(MissingMaskError, match=r"masks/part_05\.png has no image"):
        module(folder).prepare()


def test_a_mask_of_another_name_is_named_beside_the_image_that_lacks_it(folder: Path) -> None:
    (folder / "masks" / "part_05.png").rename(folder / "masks" / "part_05_mask.png")
    with pytest.raises(MissingMaskError, match=r"no mask of the name 'part_05'.*Is it .*/part_05_mask\.png\? Rename"):
        module(folder).prepare()


def test_what_no_list_names_may_be_incomplete(folder: Path) -> None:
    write_list(folder, "train", 0, 1)
    write_list(folder, "val", 2)
    write_list(folder, "test", 3)
    (folder / "images" / "part_05.png").unlink()
    (folder / "masks" / "part_06.png").unlink()
    module(folder).prepare()


def test_a_listed_image_that_is_not_there_is_named_with_its_line(folder: Path) -> None:
    write_list(folder, "train", 0, 77)
    with pytest.raises(MissingImageError, match=r"train\.txt, line 2: there is no image 'part_77'"):
        module(folder).prepare()


def test_a_whole_path_in_a_list_is_told_what_a_line_holds(folder: Path) -> None:
    (folder / "train.txt").write_text(f"{folder}/images/part_00.png\n")
    with pytest.raises(MissingImageError, match=r"part_00\.png' below images/, and its path there is"):
        module(folder).prepare()


def test_a_list_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"holdout\.txt does not exist"):
        module(folder, test_split_file="holdout.txt").prepare()


def test_two_images_of_one_name_are_named(folder: Path) -> None:
    Image.new("RGB", (48, 40)).save(folder / "images" / "part_05.jpg")
    with pytest.raises(DuplicateNameError, match=r"part_05\.jpg.*part_05\.png"):
        module(folder).prepare()


def test_a_mask_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    Image.new("L", (40, 48)).save(folder / "masks" / "part_05.png")
    with pytest.raises(MaskSizeError, match=r"masks/part_05\.png has 40x48 pixels.*48x40"):
        module(folder).prepare()


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_is_no_image_is_named(folder: Path, kind: str) -> None:
    (folder / kind / "part_05.png").write_bytes(b"not a picture")
    with pytest.raises(UnreadableImageError, match=rf"{kind}/part_05\.png"):
        module(folder).prepare()


def test_a_truncated_image_is_named_when_it_is_read(folder: Path) -> None:
    path = folder / "images" / "part_05.png"
    path.write_bytes(path.read_bytes()[:2000])
    data = module(folder)
    data.prepare()
    with pytest.raises(UnreadableImageError, match=r"images/part_05\.png"):
        for split in data.samples:
            list(data.evaluation_dataset(split))


def test_an_error_in_a_worker_keeps_its_type_and_its_file(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        Image.new("L", (48, 40), 9).save(path)
    with pytest.raises(MaskValueError, match=r"masks/part_\d\d\.png: mask values 9"):
        next(iter(module(folder, num_workers=1).val_dataloader()))


@pytest.mark.parametrize("split", ["train", "val", "test", "gate"])
def test_an_empty_list_is_an_empty_split(folder: Path, split: str) -> None:
    for position, each in enumerate(("train", "val", "test", "gate")):
        write_list(folder, each, *([] if each == split else [position]))
    with pytest.raises(EmptySplitError, match=split):
        module(folder).prepare()


def test_a_split_that_is_not_there_cannot_be_evaluated(folder: Path) -> None:
    with pytest.raises(EmptySplitError, match="no split 'gate'; it has train, val, test"):
        module(folder).evaluation_dataset("gate")


def test_the_same_name_in_two_lists_is_an_overlap(folder: Path) -> None:
    write_list(folder, "train", 0, 1)
    write_list(folder, "test", 1, 2)
    with pytest.raises(SplitOverlapError, match="'part_01' is in the lists of both train and test"):
        module(folder).prepare()


def test_the_same_image_under_two_names_in_two_lists_is_an_overlap(folder: Path) -> None:
    shutil.copy(folder / "images" / "part_00.png", folder / "images" / "part_31.png")
    write_list(folder, "train", *range(20))
    write_list(folder, "val", *range(20, 30))
    write_list(folder, "test", *range(30, 40))
    with pytest.raises(SplitOverlapError, match=r"part_00\.png \(train\) and .*part_31\.png \(test\)"):
        module(folder).prepare()


def test_the_same_image_twice_in_one_split_is_allowed(folder: Path) -> None:
    shutil.copy(folder / "images" / "part_00.png", folder / "images" / "part_31.png")
    data = module(folder)
    places = {s.name: s.split for samples in data.samples.values() for s in samples}
    assert places["part_00"] == places["part_31"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idx_to_class": {}}, "idx_to_class"),
        ({"idx_to_class": {1: "a", 3: "b"}}, "without gaps"),
        ({"idx_to_class": {1: "a", 2: "a"}}, "same name"),
        ({"idx_to_class": {255: "scratch"}}, r"datamodule\.mask_values says what they stand for"),
        ({"idx_to_class": "2:dent"}, r"in quotes: 'datamodule\.idx_to_class=\{1: scratch, 2: dent\}'"),
        ({"mask_values": "255:1"}, r"in quotes: 'datamodule\.mask_values=\{0: 0, 255: 1\}'"),
        ({"mask_values": {255: "scratch"}}, "a class index for each value"),
        ({"mask_values": {0: 0, 255: 3}}, "class index 3"),
        ({"val_size": 0.6, "test_size": 0.4}, "nothing is left"),
        ({"batch_size": 0}, "batch_size"),
        ({"input_height": 0}, "input_height"),
        ({"mean": (0.5,)}, "mean"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        module(folder, **options)


def test_a_name_for_the_background_is_left_out(folder: Path) -> None:
    assert module(folder, idx_to_class={0: "background", 1: "a", 2: "b"}).classes == ("a", "b")
    classes = "+datamodule.idx_to_class.0=background"
    pets = "experiment=generic/oxford_pet/segmentation/smp"
    named = compose([pets, classes])
    assert named.backbone.model["num_classes"] == 1
    one = compose([pets, "datamodule.mask_values.3=0"])  # one row of a table, whose keys are numbers
    assert one.datamodule["mask_values"] == {1: 1, 2: 0, 3: 0}
    assert trial_fingerprint(named, "data") != trial_fingerprint(one, "data")


def test_folders_behind_links_belong_to_the_data_and_loops_are_refused(folder: Path, tmp_path: Path) -> None:
    plain = module(folder)
    plain.prepare()
    for kind in ("images", "masks"):
        (folder / kind).rename(tmp_path / kind)
        (folder / kind).mkdir()
        (folder / kind / "2024").symlink_to(tmp_path / kind)
    linked = module(folder)
    linked.prepare()
    names = [{sample.name for samples in data.samples.values() for sample in samples} for data in (plain, linked)]
    assert names[1] == {f"2024/{name}" for name in names[0]}
    (folder / "images" / "again").symlink_to(folder)
    with pytest.raises(DatasetNotFoundError, match="again is a link to a folder that it lies in"):
        module(folder).prepare()


def test_a_folder_behind_a_link_that_leads_nowhere_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / ".#lock").symlink_to("me@host.17")  # as editors leave it
    module(folder).prepare()
    for kind in ("images", "masks"):
        (folder / kind / "2024").symlink_to(tmp_path / "not mounted" / kind)
    with pytest.raises(DatasetNotFoundError, match=r"2024 is a link to .*not mounted/images, which is not there"):
        module(folder).prepare()


def test_text_that_is_not_utf_8_is_told_with_its_file(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes("name,ort\n00,Köln\n".encode("cp1252"))
    with pytest.raises(MetadataError, match=r"metadata\.csv is not UTF-8"):
        module(folder).prepare()
    (folder / "metadata.csv").unlink()
    (folder / "train.txt").write_bytes("Köln\n".encode("latin-1"))
    with pytest.raises(DatasetNotFoundError, match=r"train\.txt is not UTF-8"):
        module(folder, train_split_file=folder / "train.txt").prepare()
    shutil.copy(next((folder / "images").iterdir()), os.fsencode(folder / "images") + b"/Pr\xfcf.jpg")
    with pytest.raises(UnreadableImageError, match="the name is not UTF-8"):
        module(folder).prepare()
