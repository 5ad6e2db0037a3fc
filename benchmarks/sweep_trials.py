"""The sweep that sweep.py and resume.py train."""

from __future__ import annotations

import os
from pathlib import Path

SIZE, BATCH, TRAIN, VAL, TEST = 128, 16, 108, 12, 40
NETWORKS = [(arch, encoder) for arch in ("unet", "unetplusplus") for encoder in ("resnet18", "resnet50")]


def networks(folder: Path, epochs: int, seed: int) -> list[str]:
    """The sweep, as a user types it; `folder` has the lists of its images."""
    return [
        "experiment=generic/oxford_pet/segmentation/smp",
        "backbone.model.arch=unet,unetplusplus",
        "backbone.model.encoder_name=resnet18,resnet50",
        "backbone.model.encoder_weights=null",
        f"trainer.max_epochs={epochs}",
        "trainer.accelerator=cpu",
        f"transforms.input_height={SIZE}",
        f"transforms.input_width={SIZE}",
        f"datamodule.batch_size={BATCH}",
        f"core.seed={seed}",
        "datamodule.seed=42",
        *(f"datamodule.{split}_split_file={folder / split}.txt" for split in ("train", "val", "test")),
    ]


def overrides(folder: Path, epochs: int, seed: int) -> list[str]:
    """The same, with what tells the time of its phases."""
    phases = f"+callbacks.phases={{_target_: sweep_phases.Phases, folder: {folder / 'phases'}}}"
    return [*networks(folder, epochs, seed), phases]


def write_lists(folder: Path) -> None:
    """Write the lists of images: every breed in each split, the same images every time."""
    annotations = Path(os.environ["RATCHET_OXFORD_PET"]) / "annotations"
    trainval, test = (
        [line.split()[0] for line in (annotations / f"{file}.txt").read_text().splitlines()]
        for file in ("trainval", "test")
    )
    step = len(trainval) / (TRAIN + VAL)
    chosen = [trainval[int(index * step)] for index in range(TRAIN + VAL)]
    val = chosen[:: len(chosen) // VAL][:VAL]
    step = len(test) / TEST
    lists = {
        "train": [name for name in chosen if name not in val],
        "val": val,
        "test": [test[int(index * step)] for index in range(TEST)],
    }
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
