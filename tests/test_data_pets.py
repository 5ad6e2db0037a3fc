"""The real pets, where they are: set RATCHET_OXFORD_PET to their folder."""

import os
from pathlib import Path

import pytest

from ratchet.data import OxfordPetDataModule

pytestmark = pytest.mark.pets

BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / "shared" / "data" / "oxford_pet"


@pytest.fixture(scope="module")
def pets() -> OxfordPetDataModule:
    path = Path(os.environ.get("RATCHET_OXFORD_PET", BESIDE_THE_REPOSITORY))
    if not (path / "annotations" / "trainval.txt").is_file():
        pytest.skip(f"no pets in {path}; set RATCHET_OXFORD_PET")
    size = {"input_height": 64, "input_width": 64}
    data = OxfordPetDataModule(data_path=path, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **size)
    data.prepare()
    return data


def listed(pets: OxfordPetDataModule, file: str) -> int:
    return len((pets.data_path / "annotations" / file).read_text().splitlines())


def test_the_official_lists_make_the_splits(pets: OxfordPetDataModule) -> None:
    counts = {split: len(samples) for split, samples in pets.samples.items()}
    assert counts["train"] + counts["val"] == listed(pets, "trainval.txt")
    assert counts["test"] == listed(pets, "test.txt")
    assert counts["val"] / counts["train"] == pytest.approx(0.25, abs=0.06)
    assert pets.gate_split == "test"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_image_and_trimap_can_be_read_and_two_fifths_are_pet(pets: OxfordPetDataModule, split: str) -> None:
    dataset = pets.evaluation_dataset(split)
    shares = [dataset[index]["mask"].float().mean().item() for index in range(len(dataset))]
    assert sum(shares) / len(shares) == pytest.approx(0.4, abs=0.04)
