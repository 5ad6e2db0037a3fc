"""The generated data set: months of synthetic scenes on disk, deterministic from a seed, that can grow."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from ratchet.data.scenes import DISC, POLYGON, SiteLook, draw_look, draw_scene, drift_look
from ratchet.errors import ConfigError, DatasetNotFoundError

GENERATOR_VERSION = 1
CLASSES = {DISC: "disc", POLYGON: "polygon"}

_MANIFEST = "manifest.json"
_FIRST_YEAR = 2025
_SITES = ("harbour", "quarry", "mill", "foundry")
_SMALLEST = 32  # pixels; below, objects are blots


@dataclass(frozen=True)
class Month:
    """One month of data: how many images it has, and what was done to it."""

    label: str
    images: int
    drift: float
    label_noise: float

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its images."""
        return tuple(f"{self.label}-{index:04d}" for index in range(self.images))


@dataclass(frozen=True)
class Manifest:
    """What a folder of shapes holds; written last, so that it names only what is whole."""

    version: int
    seed: int
    size: int
    months: tuple[Month, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images."""
        return tuple(name for month in self.months for name in month.names)


def generate(
    path: str | Path,
    *,
    months: int = 6,
    images_per_month: int = 100,
    size: int = 64,
    seed: int = 0,
    drift: float = 0.0,
    label_noise: float = 0.0,
) -> tuple[str, ...]:
    """Make the months that `path` lacks, up to `months`; the labels of those made, such as `2025-06`.

    What is there stays as it is, byte for byte. `drift` (0 to 1) changes the look of the newest month's sites,
    `label_noise` is the share of the newest month's masks that are wrong (moved, or with the classes swapped); both,
    and `images_per_month`, matter only for months made now. `size` is the side of an image in pixels.

    Raises:
        ConfigError: numbers out of their range.
        DatasetNotFoundError: `path` holds shapes of another seed, size or version of the generator, or other files.
    """
    _check(months, images_per_month, size, drift, label_noise)
    path = Path(path)
    empty = not path.is_dir() or all(entry.name.startswith(".") for entry in path.iterdir())
    present = read_manifest(path)  # looked for last: it is written before anything else
    if present is None and not empty:
        raise DatasetNotFoundError(
            f"{path} holds files that were not generated here. To train on a folder of your own add "
            "datamodule=base/segmentation; to generate, name an empty folder"
        )
    if present is not None and len(present.months) >= months:
        _check_same(path, present, seed, size)
        return ()
    path.mkdir(parents=True, exist_ok=True)
    with FileLock(path / ".generate.lock"):
        present = read_manifest(path) or _begin(path, seed, size)
        _check_same(path, present, seed, size)
        made = []
        for number in range(len(present.months), months):
            newest = number == months - 1
            month = Month(_label(number), images_per_month, drift * newest, label_noise * newest)
            _write_month(path, month, number, seed, size)
            present = Manifest(GENERATOR_VERSION, seed, size, (*present.months, month))
            _write_metadata(path, present)
            _write_manifest(path, present)
            made.append(month.label)
    return tuple(made)


def read_manifest(path: Path) -> Manifest | None:
    """What the folder holds, or None where nothing was generated yet.

    Raises:
        DatasetNotFoundError: the manifest cannot be read.
    """
    file = path / _MANIFEST
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        months = tuple(Month(**month) for month in stored.pop("months"))
        return Manifest(months=months, **stored)
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetNotFoundError(
            f"{file} is not a manifest of generated shapes ({error}). To train on a folder of your own add "
            "datamodule=base/segmentation; to generate, name an empty folder"
        ) from error


def _check(months: int, images_per_month: int, size: int, drift: float, label_noise: float) -> None:
    if months < 1 or images_per_month < 1 or size < _SMALLEST:
        raise ConfigError(f"shapes need months and images_per_month of at least 1, and size of at least {_SMALLEST}")
    if not 0 <= drift <= 1 or not 0 <= label_noise <= 1:
        raise ConfigError(f"drift is {drift} and label_noise {label_noise}: both from 0 to 1")


def _check_same(path: Path, present: Manifest, seed: int, size: int) -> None:
    found, wanted = (present.version, present.seed, present.size), (GENERATOR_VERSION, seed, size)
    if found != wanted:
        raise DatasetNotFoundError(
            f"{path} holds shapes of (version, seed, size) {found}, wanted {wanted}: "
            "choose another data_path, or remove the folder"
        )


def _begin(path: Path, seed: int, size: int) -> Manifest:
    manifest = Manifest(GENERATOR_VERSION, seed, size, ())
    _write_manifest(path, manifest)  # before anything else, so that a run that is killed next can be taken up
    return manifest


def _write_month(path: Path, month: Month, number: int, seed: int, size: int) -> None:
    for folder in ("images", "masks"):
        (path / folder).mkdir(exist_ok=True)
    for index, name in enumerate(month.names):
        # One stream for the scene and one for what is done to its label: noise changes masks, never images.
        rng = np.random.default_rng((seed, 1, number, index))
        image, mask = draw_scene(rng, _look(_site(index), seed, month.drift), size)
        mask = _mislabel(mask, np.random.default_rng((seed, 2, number, index)), month.label_noise)
        Image.fromarray(image).save(path / "images" / f"{name}.png")
        Image.fromarray(mask).save(path / "masks" / f"{name}.png")


def _look(site: str, seed: int, drift: float) -> SiteLook:
    number = _SITES.index(site)
    look = draw_look(np.random.default_rng((seed, 0, number)))
    return drift_look(look, draw_look(np.random.default_rng((seed, 0, number, 1))), drift) if drift else look


def _mislabel(mask: NDArray[np.uint8], rng: np.random.Generator, share: float) -> NDArray[np.uint8]:
    if rng.random() >= share:
        return mask
    if rng.random() < 0.5:  # noqa: PLR2004 - either mistake is as likely
        return np.array([0, POLYGON, DISC], dtype=np.uint8)[mask]
    return np.roll(mask, shift=(mask.shape[0] // 4, mask.shape[1] // 4), axis=(0, 1))


def _write_metadata(path: Path, manifest: Manifest) -> None:
    with _replacing(path / "metadata.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "site", "month"))
        for month in manifest.months:
            writer.writerows((name, _site(index), month.label) for index, name in enumerate(month.names))


def _write_manifest(path: Path, manifest: Manifest) -> None:
    with _replacing(path / _MANIFEST) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `target` in one step."""
    temporary = target.with_name(f".{target.name}.partial")
    yield temporary
    temporary.replace(target)


def _site(index: int) -> str:
    return _SITES[index % len(_SITES)]


def _label(number: int) -> str:
    return f"{_FIRST_YEAR + number // 12}-{number % 12 + 1:02d}"
