"""The sweep that both arms of sweep.py train."""

from __future__ import annotations

from pathlib import Path

SIZE, BATCH, TRAIN, VAL, TEST = 128, 16, 108, 12, 40
NETWORKS = [(arch, encoder) for arch in ("unet", "unetplusplus") for encoder in ("resnet18", "resnet50")]


def overrides(folder: Path, epochs: int, seed: int) -> list[str]:
    """The sweep, as a user types it."""
    return [
        "experiment=generic/oxford_pet/segmentation/smp",
        "backbone.model.arch=unet,unetplusplus",
        "backbone.model.encoder_name=resnet18,resnet50",
        "backbone.model.encoder_weights=null",
        f"trainer.max_epochs={epochs}",
        f"transforms.input_height={SIZE}",
        f"transforms.input_width={SIZE}",
        f"datamodule.batch_size={BATCH}",
        f"core.seed={seed}",
        "datamodule.seed=42",
        *(f"datamodule.{split}_split_file={folder / split}.txt" for split in ("train", "val", "test")),
        f"+callbacks.phases={{_target_: sweep_phases.Phases, folder: {folder / 'phases'}}}",
    ]
