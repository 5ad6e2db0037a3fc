"""The fingerprint of a data set says when there is something new to train on, and only then."""

import os
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from parts import module, names, write_list, write_pair

from ratchet.data.content import read_contents


def test_the_fingerprint_depends_on_content_and_not_on_path_or_time(folder: Path, tmp_path: Path) -> None:
    before = module(folder).fingerprint
    moved = shutil.copytree(folder, tmp_path / "moved" / "parts")
    os.utime(moved / "masks" / "part_00.png", (time.time() + 99, time.time() + 99))
    assert module(moved).fingerprint == module(folder).fingerprint == before
    assert len(before) == 64


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_one_byte_of_any_file_changes_the_fingerprint(folder: Path, kind: str) -> None:
    write_list(folder, "train", *range(20))
    write_list(folder, "val", *range(20, 30))
    write_list(folder, "test", *range(30, 40))
    before = module(folder).fingerprint
    path = folder / kind / "part_17.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in the checksum of the last chunk: no pixel changes
    path.write_bytes(data)
    assert module(folder).fingerprint != before


@pytest.mark.parametrize(
    "options",
    [
        {"split_seed": 2},
        {"val_size": 0.3},
        {"mask_values": {0: 0, 1: 2, 2: 1}},
        {"idx_to_class": {1: "dent", 2: "scratch"}},
    ],
)
def test_what_the_data_means_changes_the_fingerprint(folder: Path, options: dict[str, Any]) -> None:
    assert module(folder, **options).fingerprint != module(folder).fingerprint


def test_how_the_data_is_loaded_does_not_change_the_fingerprint(folder: Path) -> None:
    other = module(folder, batch_size=2, num_workers=3, input_height=64, name="other")
    assert other.fingerprint == module(folder).fingerprint


def test_a_growing_folder_keeps_its_splits_and_changes_its_fingerprint(folder: Path) -> None:
    before = module(folder)
    before.prepare()
    for number in range(40, 60):
        write_pair(folder, f"part_{number:02d}", number)
    after = module(folder)
    for split in before.samples:
        assert set(names(before, split)) <= set(names(after, split))
    assert after.fingerprint != before.fingerprint


def test_preparing_twice_reads_once(folder: Path) -> None:
    data = module(folder)
    data.prepare()
    shutil.rmtree(folder)
    data.prepare()
    assert sum(map(len, data.samples.values())) == 40


def test_another_training_seed_leaves_every_image_in_its_split(folder: Path) -> None:
    one, other = module(folder, seed=1), module(folder, seed=2)
    assert one.samples == other.samples
    assert one.fingerprint == other.fingerprint


def test_of_many_pairs_few_are_queued_at_once(folder: Path) -> None:
    pairs = {}
    for number in range(3000):
        pairs[str(number)] = (folder / "images" / f"link_{number}.png", folder / "masks" / f"link_{number}.png")
        for link in pairs[str(number)]:
            link.hardlink_to(link.with_name("part_00.png"))
    tracemalloc.start()
    contents = read_contents(pairs)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(contents) == 3000
    assert peak - kept < 3_000_000  # 4.5 MB if all are
