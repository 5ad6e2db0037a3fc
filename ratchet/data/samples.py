"""What a sample is, and the names of the splits: plain values, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.errors import ConfigError

SPLITS = ("train", "val", "test", "gate")
"""Every split there can be. `gate` is optional: without it, the gate judges on `test`."""


@dataclass(frozen=True)
class Sample:
    """One image with its mask.

    `name` is unique in the data set: the path of the image below the images folder, without suffix. `split` is one of
    `SPLITS`; `metadata` is the sample's row of `metadata.csv` without the name, empty where there is none.
    """

    name: str
    image: Path
    mask: Path
    split: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def metadata_columns(samples: Iterable[Sample]) -> dict[str, dict[str, str]]:
    """Turn the samples' rows of metadata.csv into columns: column → image name → value."""
    columns: dict[str, dict[str, str]] = {}
    for sample in samples:
        for column, value in sample.metadata.items():
            columns.setdefault(column, {})[sample.name] = value
    return columns


@dataclass(frozen=True)
class InputFormat:
    """The input of a network: height and width in pixels, and mean and standard deviation of RGB in [0, 1].

    Raises `ConfigError`.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what can be no input."""
        if self.height < 1 or self.width < 1:
            raise ConfigError(
                f"transforms.input_height and input_width are {self.height} and {self.width}: both at least 1"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):  # noqa: PLR2004 - RGB
            raise ConfigError("transforms.mean and transforms.std need three values each, and std above 0")


def unlisted_note(images: int) -> str:
    """What whoever brought so many images that no split list names should know; nothing where there are none."""
    if not images:
        return ""
    them, take = ("1 image is", "takes") if images == 1 else (f"{images} images are", "take")
    return f"{them} in no list, and {take} no part"
