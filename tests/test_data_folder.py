"""A folder of one's own: what it may look like, and what each mistake in it is answered with."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from parts import module, names, write_list, write_pair
from PIL import Image
from torchvision.transforms import v2

from ratchet.data import FolderDataModule
from ratchet.errors import (
    ConfigError,
    MetadataError,
)

AUGMENTATION = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(15, (0.1, 0.1)), v2.ColorJitter(0.2, 0.2)])


def test_a_folder_without_lists_is_split_by_content(folder: Path) -> None:
    data = module(folder)
    data.prepare()
    assert set(data.samples) == {"train", "val", "test"}
    assert sum(map(len, data.samples.values())) == 40
    assert data.gate_split == "test"
    assert data.classes == ("scratch", "dent")
    assert data.name == "parts"


def test_a_gate_share_makes_a_gate_split_of_its_own(folder: Path) -> None:
    data = module(folder, gate_size=0.2)
    assert data.gate_split == "gate"
    assert len(data.evaluation_dataset("gate")) == len(data.samples["gate"]) > 0


def test_lists_rule_where_there_are_some(folder: Path) -> None:
    write_list(folder, "train", 0, 1, 2)
    write_list(folder, "val", 3)
    write_list(folder, "test", 4, 5)
    write_list(folder, "gate", 6)
    data = module(folder)
    assert names(data, "train") == ["part_00", "part_01", "part_02"]
    assert {split: len(samples) for split, samples in data.samples.items()} == {
        "train": 3,
        "val": 1,
        "test": 2,
        "gate": 1,
    }
    assert data.gate_split == "gate"


def test_a_test_list_alone_leaves_the_other_images_to_train_and_val(folder: Path) -> None:
    write_list(folder, "test", *range(10))
    data = module(folder)
    assert len(data.samples["test"]) == 10
    assert len(data.samples["train"]) + len(data.samples["val"]) == 30


def test_images_that_take_no_part_because_no_list_names_them_are_counted(folder: Path) -> None:
    write_list(folder, "test", *range(10))
    assert module(folder).unlisted == 0
    write_list(folder, "train", *range(10, 30))
    write_list(folder, "val", *range(30, 36))
    assert module(folder).unlisted == 4


def test_a_list_may_have_columns_comments_paths_and_suffixes(folder: Path) -> None:
    (folder / "train.txt").write_text("# comment\n\npart_00 1 2\nimages/part_01.png\npart_02.png\r\npart_03\n")
    write_list(folder, "val", 4)
    write_list(folder, "test", 5)
    assert names(module(folder), "train") == ["part_00", "part_01", "part_02", "part_03"]


def test_a_list_may_have_another_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text("part_07\n")
    data = module(folder, test_split_file=tmp_path / "elsewhere.txt")
    assert names(data, "test") == ["part_07"]


def test_images_may_lie_in_subfolders_and_have_spaces_in_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(("line a/one", "line a/two", "line b/one")):
        write_pair(tmp_path, name, number)
    for split, name in (("train", "line a/one"), ("val", "line a/two"), ("test", "line b/one")):
        (tmp_path / f"{split}.txt").write_text(name + "\n")
    assert names(module(tmp_path), "test") == ["line b/one"]


def test_hidden_files_and_other_files_are_left_out(folder: Path) -> None:
    (folder / "images" / "._part_00.png").write_bytes(b"resource fork")
    (folder / "masks" / ".DS_Store").write_bytes(b"x")
    (folder / "images" / "readme.md").write_text("x")
    assert sum(map(len, module(folder).samples.values())) == 40


def test_metadata_comes_with_the_samples(folder: Path) -> None:
    (folder / "metadata.csv").write_text("name,site,month\npart_03,north,2025-01\n")
    rows = {s.name: s.metadata for samples in module(folder).samples.values() for s in samples}
    assert rows["part_03"] == {"site": "north", "month": "2025-01"}
    assert rows["part_04"] == {}


@pytest.mark.parametrize("name", ["part_03", "part_03.png", "images/part_03.png"])
def test_metadata_names_images_as_the_lists_do(folder: Path, name: str) -> None:
    (folder / "metadata.csv").write_text(f"name,site\n{name},north\nof another set,south\n")
    rows = {s.name: s.metadata for samples in module(folder).samples.values() for s in samples}
    assert rows["part_03"] == {"site": "north"}


@pytest.mark.parametrize(
    "text",
    [
        "site,name\nn,part_00\n",
        "",
        "name,site\npart_00\n",
        "name\npart_00\npart_00\n",
        "name\na\n",
        "name\npart_00\npart_00.png\n",
        'name,site\npart_00,"north\npart_01,south\n',
        'name,site\npart_00,"' + "north\n" * 40_000,
    ],
)
def test_metadata_that_cannot_be_used_is_an_error(folder: Path, text: str) -> None:
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(MetadataError, match=r"metadata\.csv"):
        module(folder).prepare()


def test_a_batch_has_images_class_indices_and_positions(folder: Path) -> None:
    data = module(folder, train_transform=AUGMENTATION)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch["image"].shape[1:] == (3, 32, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["mask"].shape[1:] == (32, 32)
        assert batch["mask"].dtype == batch["index"].dtype == torch.int64
        assert 0 <= int(batch["mask"].min()) <= int(batch["mask"].max()) <= 2


def test_positions_point_into_the_samples(folder: Path) -> None:
    data = module(folder)
    positions = torch.cat([batch["index"] for batch in data.test_dataloader()])
    assert positions.tolist() == list(range(len(data.samples["test"])))


def test_evaluation_is_the_same_every_time_and_never_augmented(folder: Path) -> None:
    plain, augmented = module(folder), module(folder, train_transform=AUGMENTATION)
    for index in range(len(plain.samples["train"])):
        first, second = plain.evaluation_dataset("train")[index], augmented.evaluation_dataset("train")[index]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["mask"], second["mask"])


def train_epoch(data: FolderDataModule, epoch: int) -> list[dict[str, torch.Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def test_workers_and_other_random_numbers_change_nothing_in_training(folder: Path) -> None:
    torch.manual_seed(0)
    alone = train_epoch(module(folder, train_transform=AUGMENTATION), 2)
    torch.manual_seed(1)
    together = train_epoch(module(folder, train_transform=AUGMENTATION, num_workers=2), 2)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(alone, together, strict=True))


def test_each_epoch_has_its_own_order_and_augmentation(folder: Path) -> None:
    data = module(folder, train_transform=AUGMENTATION)
    first, second = train_epoch(data, 0), train_epoch(data, 1)
    assert not torch.equal(first[0]["index"], second[0]["index"])
    images = [
        {int(i): image for b in epoch for i, image in zip(b["index"], b["image"], strict=True)}
        for epoch in (first, second)
    ]
    assert any(not torch.equal(images[0][i], images[1][i]) for i in images[0])


def test_an_augmentation_leaves_the_random_numbers_of_the_caller_alone(folder: Path) -> None:
    loader = module(folder, train_transform=AUGMENTATION).train_dataloader()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loader.dataset[0]
    assert torch.equal(torch.rand(3), expected)


def test_an_augmentation_moves_image_and_mask_together(folder: Path) -> None:
    for sample in ("images", "masks"):
        for number, path in enumerate(sorted((folder / sample).iterdir())):
            array = np.zeros((32, 32), dtype=np.uint8)
            array[number // 4 : 12, 18 : 20 + number % 10] = 1 if sample == "masks" else 255
            Image.fromarray(array).save(path)
    move = v2.RandomAffine(0, (0.2, 0.2))
    for batch in module(folder, train_transform=move, split_seed=2).train_dataloader():
        assert torch.equal(batch["image"][:, 0] > 0, batch["mask"] > 0)


def test_an_augmentation_that_scales_is_refused(folder: Path) -> None:
    loader = module(folder, train_transform=v2.ToDtype(torch.float32, scale=True)).train_dataloader()
    with pytest.raises(ConfigError, match="train_transform"):
        next(iter(loader))


def test_no_batch_of_training_has_a_single_image(folder: Path) -> None:
    data = module(folder, batch_size=4)
    count = len(data.samples["train"])
    sizes = [len(batch["index"]) for batch in module(folder, batch_size=count - 1).train_dataloader()]
    assert sizes == [count - 1]


def test_data_sets_travel_to_other_processes(folder: Path) -> None:
    dataset = module(folder, train_transform=AUGMENTATION).train_dataloader().dataset
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0]["image"], dataset[0]["image"])
