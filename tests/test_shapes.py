"""The generated scenes are the same everywhere, grow without changing, and can be spoilt on request."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ratchet.data import ShapesDataModule
from ratchet.data.shapes import generate, read_manifest
from ratchet.errors import ConfigError, DatasetNotFoundError

SMALL: dict[str, Any] = {"images_per_month": 12, "size": 32}
OPTIONS: dict[str, Any] = {"input_height": 32, "input_width": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}


def digests(path: Path) -> dict[str, str]:
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    }


def arrays(path: Path, kind: str, month: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted((path / kind).glob(f"{month}-*.png"))])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    made = [generate(tmp_path / name, months=2, **SMALL) for name in ("a", "b")]
    assert made == [("2025-01", "2025-02")] * 2
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(digests(tmp_path / "a")) == 2 * 24 + 2


def test_another_seed_gives_other_scenes(tmp_path: Path) -> None:
    generate(tmp_path / "a", months=1, **SMALL)
    generate(tmp_path / "b", months=1, **SMALL, seed=1)
    first, second = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert all(first[name] != second[name] for name in first if name.startswith("images/"))


def test_no_two_scenes_are_the_same(tmp_path: Path) -> None:
    generate(tmp_path, months=3, **SMALL)
    images = [digest for name, digest in digests(tmp_path).items() if name.startswith("images/")]
    assert len(set(images)) == len(images) == 36


@pytest.mark.parametrize("spoilt", [{}, {"drift": 1.0}, {"label_noise": 1.0}])
def test_growing_by_a_month_leaves_the_others_as_they_are(tmp_path: Path, spoilt: dict[str, float]) -> None:
    generate(tmp_path, months=2, **SMALL)
    before = digests(tmp_path)
    assert generate(tmp_path, months=3, **SMALL, **spoilt) == ("2025-03",)
    after = digests(tmp_path)
    tables = {"manifest.json", "metadata.csv"}
    assert {name: after[name] for name in before if name not in tables} == {
        name: digest for name, digest in before.items() if name not in tables
    }
    assert sum(name.startswith("masks/2025-03") for name in after) == 12


def test_growing_gives_what_generating_at_once_gives(tmp_path: Path) -> None:
    for months in (1, 2, 3):
        generate(tmp_path / "grown", months=months, **SMALL)
    generate(tmp_path / "at-once", months=3, **SMALL)
    assert digests(tmp_path / "grown") == digests(tmp_path / "at-once")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    generate(tmp_path, months=2, **SMALL)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert generate(tmp_path, months=2, **SMALL) == ()
    assert generate(tmp_path, months=1, **SMALL, drift=1.0) == ()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == times


def test_a_month_may_be_larger_than_those_before(tmp_path: Path) -> None:
    generate(tmp_path, months=1, **SMALL)
    generate(tmp_path, months=2, images_per_month=30, size=32)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [month.images for month in manifest.months] == [12, 30]


def test_the_thirteenth_month_is_in_the_next_year(tmp_path: Path) -> None:
    assert generate(tmp_path, months=13, images_per_month=1, size=32)[-1] == "2026-01"


def test_label_noise_changes_masks_of_the_newest_month_and_no_image(tmp_path: Path) -> None:
    generate(tmp_path / "clean", months=2, **SMALL)
    generate(tmp_path / "noisy", months=2, **SMALL, label_noise=1.0)
    clean, noisy = digests(tmp_path / "clean"), digests(tmp_path / "noisy")
    changed = {name for name in clean if clean[name] != noisy[name]} - {"manifest.json"}
    assert {name.rsplit("-", 1)[0] for name in changed} == {"masks/2025-02"}
    assert len(changed) == 12


def test_a_share_of_label_noise_spoils_about_that_share(tmp_path: Path) -> None:
    generate(tmp_path / "clean", months=1, images_per_month=100, size=32)
    generate(tmp_path / "noisy", months=1, images_per_month=100, size=32, label_noise=0.3)
    clean, noisy = digests(tmp_path / "clean"), digests(tmp_path / "noisy")
    assert 15 <= sum(clean[name] != noisy[name] for name in clean) <= 45


def test_drift_changes_the_look_of_the_newest_month_only(tmp_path: Path) -> None:
    generate(tmp_path / "calm", months=2, **SMALL)
    generate(tmp_path / "drifted", months=2, **SMALL, drift=1.0)
    means = {
        (name, month): arrays(tmp_path / name, "images", month).mean()
        for name in ("calm", "drifted")
        for month in ("2025-01", "2025-02")
    }
    assert means["calm", "2025-01"] == means["drifted", "2025-01"]
    assert means["drifted", "2025-02"] < means["calm", "2025-02"] - 20


def test_both_classes_are_common_and_the_ground_is_most(tmp_path: Path) -> None:
    generate(tmp_path, months=1, images_per_month=60, size=64)
    masks = arrays(tmp_path, "masks", "2025-01")
    shares = [float((masks == index).mean()) for index in range(3)]
    assert sum(shares) == pytest.approx(1)
    assert 0.7 < shares[0] < 0.9
    assert min(shares[1:]) > 0.05


def test_objects_do_not_stand_out_by_brightness(tmp_path: Path) -> None:
    generate(tmp_path, months=1, images_per_month=60, size=64)
    gray = arrays(tmp_path, "images", "2025-01").mean(axis=3)
    objects = arrays(tmp_path, "masks", "2025-01") > 0
    ious = []
    for threshold in range(60, 200, 5):
        for guess in (gray > threshold, gray < threshold):
            ious.append((guess & objects).sum() / (guess | objects).sum())
    assert max(ious) < 0.35


def test_folders_of_other_parameters_are_refused(tmp_path: Path) -> None:
    generate(tmp_path, months=1, **SMALL)
    for other in ({"size": 48, "images_per_month": 12}, {**SMALL, "seed": 1}):
        with pytest.raises(DatasetNotFoundError, match="choose another data_path"):
            generate(tmp_path, months=2, **other)
        with pytest.raises(DatasetNotFoundError, match="choose another data_path"):
            generate(tmp_path, months=1, **other)


def test_a_folder_of_other_files_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "train" / "images").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=r"not generated here.* add datamodule=base/segmentation"):
        generate(tmp_path, months=1, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_what_a_run_that_was_killed_has_begun_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    generate(tmp_path, months=1, **SMALL)
    whole = digests(tmp_path)
    begun = json.loads((tmp_path / "manifest.json").read_text()) | {"months": []}
    (tmp_path / "manifest.json").write_text(json.dumps(begun))
    assert generate(tmp_path, months=1, **SMALL) == ("2025-01",)
    assert digests(tmp_path) == whole


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"months": [{"label": 1}]}))
    with pytest.raises(DatasetNotFoundError, match=r"manifest\.json"):
        generate(tmp_path, months=1, **SMALL)


@pytest.mark.parametrize(
    "wrong", [{"months": 0}, {"images_per_month": 0}, {"size": 16}, {"drift": 1.5}, {"label_noise": float("nan")}]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        generate(tmp_path / "new", **{"months": 1, **SMALL, **wrong})
    assert not (tmp_path / "new").exists()


def test_two_at_once_make_one_data_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: generate(tmp_path / "two", months=2, **SMALL), range(2)))
    assert sorted(made) == [(), ("2025-01", "2025-02")]
    generate(tmp_path / "one", months=2, **SMALL)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_what_a_killed_run_left_is_not_part_of_the_data(tmp_path: Path) -> None:
    data = {"data_path": tmp_path, **OPTIONS, **SMALL, "months": 3}
    before = ShapesDataModule(**data).fingerprint
    (tmp_path / "images" / "2025-04-0000.png").write_bytes(b"half an im")
    assert ShapesDataModule(**data).fingerprint == before


def test_generating_needs_no_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from ratchet.data.shapes import generate
generate(Path({str(tmp_path)!r}), months=1, images_per_month=1)
print("torch" in sys.modules)
"""
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_the_data_module_generates_and_splits(tmp_path: Path) -> None:
    data = ShapesDataModule(data_path=tmp_path / "shapes", months=3, **OPTIONS, **SMALL)
    data.prepare()
    assert data.classes == ("disc", "polygon")
    assert sum(map(len, data.samples.values())) == 36
    assert {sample.metadata["month"] for samples in data.samples.values() for sample in samples} == {
        "2025-01",
        "2025-02",
        "2025-03",
    }
    assert all(sample.metadata["site"] for samples in data.samples.values() for sample in samples)


def test_a_folder_that_has_grown_is_used_whole_and_keeps_its_splits(tmp_path: Path) -> None:
    settings = {"data_path": tmp_path, "months": 3, **OPTIONS, **SMALL}
    before = ShapesDataModule(**settings)
    before.prepare()
    generate(tmp_path, months=4, **SMALL)
    after = ShapesDataModule(**settings)
    assert sum(map(len, after.samples.values())) == 48
    assert after.fingerprint != before.fingerprint
    for split, samples in before.samples.items():
        assert {sample.name for sample in samples} <= {sample.name for sample in after.samples[split]}


@pytest.mark.slow
def test_the_default_data_set_has_a_gate_set_large_enough_to_decide(tmp_path: Path) -> None:
    data = ShapesDataModule(data_path=tmp_path, val_size=0.15, test_size=0.25, **{**OPTIONS, "size": 64})
    assert len(data.samples[data.gate_split]) >= 120
    assert 300 <= len(data.samples["train"]) <= 400


def test_the_folder_may_be_given_as_text(tmp_path: Path) -> None:
    assert len(generate(str(tmp_path / "shapes"), months=1, images_per_month=2)) == 1
    assert len(list((tmp_path / "shapes" / "images").iterdir())) == 2
