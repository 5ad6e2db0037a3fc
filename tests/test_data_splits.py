"""An image keeps its split, and no image is in two."""

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parts import module, names, write_list, write_pair

from ratchet.data.content import PairContent, position
from ratchet.data.splitting import SplitSizes, assign_splits, check_folders_are_no_splits, choose_names
from ratchet.errors import ConfigError, DatasetNotFoundError, EmptySplitError, MetadataError, SplitOverlapError


def contents(count: int, start: int = 0) -> dict[str, PairContent]:
    digests = {f"i{n:05d}": hashlib.sha256(str(n).encode()).hexdigest() for n in range(start, start + count)}
    return {name: PairContent(image=digest, mask=digest) for name, digest in digests.items()}


def split(found: dict[str, PairContent], sizes: SplitSizes, **lists: tuple[str, ...]) -> dict[str, str]:
    return assign_splits(choose_names(found, lists), lists, {name: pair.image for name, pair in found.items()}, sizes)


SIZES = SplitSizes(val=0.15, test=0.25, gate=0.1, seed=3)


def test_shares_come_out_as_asked() -> None:
    splits = list(split(contents(10_000), SIZES).values())
    shares = {name: splits.count(name) / len(splits) for name in ("train", "val", "test", "gate")}
    assert shares == pytest.approx({"train": 0.5, "val": 0.15, "test": 0.25, "gate": 0.1}, abs=0.015)


def test_an_image_keeps_its_split_while_the_data_set_grows() -> None:
    before, after = split(contents(300), SIZES), split(contents(900), SIZES)
    assert {name: after[name] for name in before} == before


def test_an_image_keeps_its_split_while_others_are_removed_or_renamed() -> None:
    found = contents(300)
    renamed = {f"new/{name}": content for name, content in found.items() if int(name[1:]) % 3}
    after, before = split(renamed, SIZES), split(found, SIZES)
    assert all(before[name.removeprefix("new/")] == where for name, where in after.items())


def test_another_seed_splits_otherwise() -> None:
    other = SplitSizes(val=0.15, test=0.25, gate=0.1, seed=4)
    assert split(contents(300), SIZES) != split(contents(300), other)


def test_a_larger_val_takes_nothing_from_test_and_gate() -> None:
    larger = SplitSizes(val=0.3, test=0.25, gate=0.1, seed=3)
    before, after = split(contents(500), SIZES), split(contents(500), larger)
    assert all(after[name] == where for name, where in before.items() if where != "train")


def test_identical_images_fall_into_one_split() -> None:
    found = contents(300)
    copies = {f"copy-{name}": content for name, content in found.items()}
    splits = split({**found, **copies}, SIZES)
    assert all(splits[name] == splits[f"copy-{name}"] for name in found)


def test_val_is_a_share_of_the_train_list_where_it_has_no_list() -> None:
    found = contents(1000)
    names = tuple(found)
    splits = split(found, SplitSizes(val=0.2, test=0.5, gate=0.0, seed=3), train=names[:600], test=names[600:])
    assert {splits[name] for name in names[600:]} == {"test"}
    listed = [splits[name] for name in names[:600]]
    assert set(listed) == {"train", "val"}
    assert listed.count("val") / 600 == pytest.approx(0.2, abs=0.05)


def test_lists_for_every_split_leave_nothing_to_chance() -> None:
    found = contents(40)
    names = tuple(found)
    lists = {"train": names[:10], "val": names[10:20], "test": names[20:30], "gate": names[30:]}
    splits = split(found, SIZES, **lists)
    assert splits == {name: where for where, members in lists.items() for name in members}


@pytest.mark.parametrize("missing", ["train", "val", "test", "gate"])
def test_an_empty_split_is_named_with_what_to_do(missing: str) -> None:
    found = contents(40)
    names = tuple(found)
    lists = {"train": names[:10], "val": names[10:20], "test": names[20:30], "gate": names[30:], missing: ()}
    with pytest.raises(EmptySplitError, match=f"{missing}.*add names"):
        split(found, SIZES, **lists)


def test_a_share_of_nothing_is_an_empty_split() -> None:
    with pytest.raises(EmptySplitError, match=r"'val' is empty.*raise datamodule\.val_size"):
        split(contents(40), SplitSizes(val=0.0, test=0.3, gate=0.0, seed=0))


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.0), (-0.1, 0.2, 0.0), (0.2, 1.0, 0.0), (float("nan"), 0.2, 0.0)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="_size"):
        SplitSizes(val=shares[0], test=shares[1], gate=shares[2], seed=0)


@pytest.fixture
def of_patients(folder: Path) -> Path:
    """Twenty patients with two images each."""
    rows = [f"part_{number:02d},{number // 2}\n" for number in range(40)]
    (folder / "metadata.csv").write_text("name,patient\n" + "".join(rows))
    return folder


def test_images_of_a_group_come_into_one_split(of_patients: Path) -> None:
    def patients(**options: Any) -> dict[str, set[str]]:
        return {
            split: {s.metadata["patient"] for s in found}
            for split, found in module(of_patients, **options).samples.items()
        }

    alone = patients()
    assert alone["train"] & alone["test"]  # each image for itself
    grouped = patients(group_by="patient", split_seed=2)
    assert sum(map(len, grouped.values())) == 20
    assert set.union(*grouped.values()) == set(map(str, range(20)))


def test_lists_that_part_a_group_and_images_without_one_are_refused(of_patients: Path) -> None:
    write_list(of_patients, "test", *range(4, 13))  # the last is one of two
    with pytest.raises(SplitOverlapError, match=r"part_1[23] .* are of the same group, '6'"):
        module(of_patients, group_by="patient", val_size=0.4).prepare()
    with pytest.raises(MetadataError, match=r"40 images have no 'site' in .*the first is 'part_00'"):
        module(of_patients, group_by="site").prepare()


def test_folders_that_are_called_as_splits_are_refused_with_the_command_that_writes_the_lists(tmp_path: Path) -> None:
    for number, name in enumerate(("train/a b", "train/c", "val/d", "valid/e", "test/f")):
        write_pair(tmp_path, name, number)
    (tmp_path / "images" / "train" / ".hidden").touch()
    with pytest.raises(DatasetNotFoundError, match="folders are no splits") as told:
        module(tmp_path).prepare()
    (commands,) = re.findall(r"Write the lists \((.*)\), or rename", str(told.value))
    subprocess.run(["sh", "-c", commands], check=True)
    data = module(tmp_path)
    assert [names(data, split) for split in ("train", "val", "test")] == [
        ["train/a b", "train/c"],
        ["val/d", "valid/e"],
        ["test/f"],
    ]


@pytest.mark.parametrize("found", [["train/a", "train/b"], ["train/a", "lot_7/b"], ["train/a", "test"]])
def test_folders_of_other_names_are_only_folders(found: list[str]) -> None:
    check_folders_are_no_splits(found, Path("parts"))


@given(st.text(), st.integers())
def test_every_content_has_a_place_in_the_unit_interval(digest: str, seed: int) -> None:
    assert 0 <= position(digest, seed) < 1
