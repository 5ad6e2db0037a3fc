"""A small folder of one's own: forty pictures of parts, with scratches and dents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ratchet.data import FolderDataModule

OPTIONS: dict[str, Any] = {
    "idx_to_class": {1: "scratch", 2: "dent"},
    "input_height": 32,
    "input_width": 32,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "batch_size": 4,
    "seed": 1,
    "split_seed": 1,
}


def write_pair(root: Path, name: str, number: int, size: tuple[int, int] = (40, 48)) -> None:
    rng = np.random.default_rng(number)
    for folder, array in (
        ("images", rng.integers(0, 256, size=(*size, 3), dtype=np.uint8)),
        ("masks", rng.integers(0, 3, size=size, dtype=np.uint8)),
    ):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def module(folder: Path, **options: Any) -> FolderDataModule:
    return FolderDataModule(data_path=folder, **{**OPTIONS, **options})


def names(data: FolderDataModule, split: str) -> list[str]:
    return [sample.name for sample in data.samples[split]]


def write_list(folder: Path, split: str, *numbers: int) -> None:
    (folder / f"{split}.txt").write_text("".join(f"part_{number:02d}\n" for number in numbers))


def write_parts(root: Path) -> Path:
    for number in range(40):
        write_pair(root, f"part_{number:02d}", number)
    return root
