"""Every configuration of data and transforms composes, builds its object, and works on real samples."""

import re
from pathlib import Path

import pytest
import torch

from ratchet.config import compose, instantiate
from ratchet.data import FolderDataModule, OxfordPetDataModule, ShapesDataModule
from ratchet.errors import ConfigError
from ratchet.trees import CONFIGS

TRANSFORMS = sorted(path.stem for path in (CONFIGS / "transforms").glob("*.yaml"))
SMALL_SHAPES = ["datamodule.months=2", "datamodule.images_per_month=12", "datamodule.size=32"]


def test_the_folder_configuration_builds_a_data_module(tmp_path: Path) -> None:
    overrides = [
        "datamodule=base/segmentation",
        f"datamodule.data_path={tmp_path}/parts",
        "datamodule.idx_to_class={1: scratch, 2: dent}",
        "datamodule.mask_values={0: 0, 128: 1, 255: 2}",
        "datamodule.gate_size=0.1",
    ]
    data = instantiate(compose(overrides).datamodule)
    assert isinstance(data, FolderDataModule)
    assert data.classes == ("scratch", "dent")
    assert data.name == "parts"
    assert data.mask_values == {0: 0, 128: 1, 255: 2}


def test_the_experiment_file_of_the_docs_composes_from_a_tree_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    path = tmp_path / "experiment" / "parts" / "scratches.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(docs.partition("```yaml\n")[2].partition("```")[0])
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    config = compose(["experiment=parts/scratches"])
    assert (config.core.name, config.transforms.input_width) == ("scratches", 512)
    data = instantiate(config.datamodule)
    assert isinstance(data, FolderDataModule)
    assert data.classes == ("scratch", "dent")


def test_the_files_of_the_docs_for_a_tree_of_ones_own_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    files = dict(re.findall(r"```yaml\n# (\w+/\w+)\.yaml\n(.*?)```", docs, re.S))
    assert files.keys() == {
        "datamodule/parts",
        "loss/tversky",
        "backbone/mynet",
        "transforms/bright",
        "callbacks/watched",
    }
    for name, text in files.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "losses;mynets.unet;augmentations;callbacks")
    config = compose([name.replace("/", "=") for name in files])
    assert (config.datamodule["mask_values"], config.datamodule["val_size"]) == ({0: 0, 255: 1}, 0.2)
    assert (config.loss["alpha"], config.backbone.model["_target_"]) == (0.7, "mynets.unet.UNet")
    assert config.backbone.model["num_classes"] >= 1
    assert config.transforms.train_transform == {"_target_": "augmentations.Brighter"}
    assert config.callbacks.keys() >= {"model_checkpoint", "watch"}


@pytest.mark.parametrize("key", ["data_path", "idx_to_class"])
def test_the_folder_configuration_asks_for_what_it_cannot_know(key: str) -> None:
    given = {"data_path": "parts", "idx_to_class": "{1: scratch}"}
    overrides = [f"datamodule.{name}={value}" for name, value in given.items() if name != key]
    with pytest.raises(ConfigError, match=key):
        compose(["datamodule=base/segmentation", *overrides])


def test_the_pet_configuration_builds_a_data_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_OXFORD_PET", str(tmp_path))
    data = instantiate(compose(["datamodule=generic/oxford_pet/segmentation/base"]).datamodule)
    assert isinstance(data, OxfordPetDataModule)
    assert data.data_path == tmp_path
    assert data.classes == ("pet",)
    assert data.mask_values == {1: 1, 2: 0, 3: 1}


@pytest.mark.parametrize("transforms", TRANSFORMS)
def test_each_transforms_configuration_gives_batches_of_the_input_size(tmp_path: Path, transforms: str) -> None:
    overrides = [
        "datamodule=generic/shapes/segmentation/base",
        f"transforms={transforms}",
        "transforms.input_height=64",
        "transforms.input_width=96",
        f"datamodule.data_path={tmp_path}",
        *SMALL_SHAPES,
    ]
    data = instantiate(compose(overrides).datamodule)
    assert isinstance(data, ShapesDataModule)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape[1:] == (3, 64, 96)
    assert batch["mask"].shape[1:] == (64, 96)
    assert batch["mask"].dtype == torch.int64


def test_without_augmentation_training_sees_what_evaluation_sees(tmp_path: Path) -> None:
    overrides = ["transforms=none", "transforms.input_height=32", "transforms.input_width=32"]
    data = instantiate(compose([*overrides, f"datamodule.data_path={tmp_path}", *SMALL_SHAPES]).datamodule)
    batch, plain = next(iter(data.train_dataloader())), data.evaluation_dataset("train")
    for image, index in zip(batch["image"], batch["index"], strict=True):
        assert torch.equal(image, plain[int(index)]["image"])
