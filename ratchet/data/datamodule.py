"""What every data module does: list, check, split, fingerprint, and load batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ratchet.data.cache import OnImage, PixelCache, PixelSource, open_cache
from ratchet.data.classes import build_class_map
from ratchet.data.content import PairContent
from ratchet.data.digests import DigestIndex
from ratchet.data.listing import Listing, read_metadata
from ratchet.data.prepared import PreparedData, gate_split, prepare_data
from ratchet.data.samples import SPLITS, InputFormat, Sample
from ratchet.data.splitting import SplitSizes
from ratchet.errors import ConfigError, EmptySplitError
from ratchet.home import home

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from ratchet.data.dataset import SegmentationDataset, Transform

_METADATA = "metadata.csv"


class SegmentationDataModule(ABC):
    """Images and masks in splits. A subclass says where the files are (`list_samples`), and may make them (`fetch`).

    Splits come from lists (`train_split_file`, …; by default `train.txt`, … if the folder holds them, one name a line),
    otherwise from the content of the images and `split_seed`; `seed` is of the training's order and augmentation alone, so
    that another seed leaves every image in its split. `val_size`, `test_size` and `gate_size` are the shares for
    which there is no list; with `gate_size: 0` and no list, the gate judges on the test split. With `group_by`, a column of
    `metadata.csv`, images of the same value are in the same split, and the shares are of the values. `train_transform`
    augments image and mask (uint8, already of the input's size) in training; everything else sees what serving sees.

    With `cache`, images and masks are decoded and resized once, into a file below `cache_path` (by default `cache` in
    Ratchet's home) that every training on the same content and input size maps; all such files together take at most
    `cache_gb` (10^9 bytes). `num_workers` None: none on a CPU, whose cores the training needs, and up to 8 beside a GPU.
    A `batch_size` of `auto` must be set before loaders are asked for.

    Neither torch nor Lightning is imported before a loader is asked for: planning and fingerprinting need neither.
    """

    name: str
    default_lists: ClassVar[Mapping[str, str]] = {split: f"{split}.txt" for split in SPLITS}

    def __init__(
        self,
        *,
        data_path: str | Path,
        idx_to_class: Mapping[int, str],
        input_height: int,
        input_width: int,
        mean: Sequence[float],
        std: Sequence[float],
        train_transform: Transform | None = None,
        batch_size: int | Literal["auto"] = 16,
        num_workers: int | None = None,
        seed: int = 42,
        split_seed: int = 42,
        mask_values: Mapping[int, int] | None = None,
        val_size: float = 0.2,
        test_size: float = 0.2,
        gate_size: float = 0.0,
        group_by: str | None = None,
        train_split_file: str | Path | None = None,
        val_split_file: str | Path | None = None,
        test_split_file: str | Path | None = None,
        gate_split_file: str | Path | None = None,
        name: str | None = None,
        cache: bool = False,
        cache_path: str | Path | None = None,
        cache_gb: float = 20.0,
    ) -> None:
        """Keep the settings; no file is touched before `prepare`.

        Raises:
            ConfigError: settings that contradict themselves.
        """
        self.data_path = Path(data_path).expanduser()
        self.name = name or self.data_path.name
        self._class_map = build_class_map(idx_to_class, mask_values)
        self._input_format = InputFormat(input_height, input_width, tuple(map(float, mean)), tuple(map(float, std)))
        self._train_transform = train_transform
        if (batch_size != "auto" and batch_size < 1) or (num_workers or 0) < 0:
            raise ConfigError("datamodule.batch_size must be at least 1, datamodule.num_workers at least 0")
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._sizes = SplitSizes(val=val_size, test=test_size, gate=gate_size, seed=split_seed)
        self.group_by = group_by
        self._seed = seed
        files = (train_split_file, val_split_file, test_split_file, gate_split_file)
        self._split_files = {split: file for split, file in zip(SPLITS, files, strict=True) if file is not None}
        self.only: Collection[str] | None = None
        """Names of the images that may take part; others have not come yet. None: all. To be set before `prepare`."""
        self._prepared: PreparedData | None = None
        self._caching = cache
        self._cache_folder = Path(cache_path).expanduser() if cache_path is not None else home() / "cache"
        self._index = DigestIndex(self._cache_folder / "digests.db") if cache else None
        self._cache_gb = cache_gb
        self._pixels: PixelCache | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; the first has index 1, since 0 is the background."""
        return self._class_map.classes

    @property
    def batch_size(self) -> int:
        """Images of a batch; loaders made from now on take it.

        Raises:
            ConfigError: it is `auto`, and nobody has set it yet.
        """
        if self._batch_size == "auto":
            raise ConfigError("datamodule.batch_size=auto is found by a training; name a number where there is none")
        return self._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._batch_size = size

    @property
    def samples(self) -> Mapping[str, tuple[Sample, ...]]:
        """The samples by split, sorted by name; `gate` is there only if it is a split of its own."""
        return self._prepare_once().samples

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all that training and judging see of the data: `content.fingerprint`."""
        return self._prepare_once().fingerprint

    @property
    def gate_split(self) -> str:
        """The split that the gate judges on: `gate`, or `test` where there is none."""
        return gate_split(self.samples)

    @property
    def gate_samples(self) -> tuple[Sample, ...]:
        """What the gate judges on, sorted by name: of images with the same bytes the first one."""
        return self._prepare_once().gate_samples

    @property
    def gate_fingerprint(self) -> str:
        """The content of the gate set alone, as a fingerprint."""
        return self._prepare_once().gate_fingerprint

    @property
    def unlisted(self) -> int:
        """How many images take no part because no list names them; 0 without a list for `train`."""
        return self._prepare_once().unlisted

    def image_digests(self, split: str) -> dict[str, str]:
        """SHA-256, in hexadecimal, of the bytes of each image file of a split, by the sample's name."""
        return {sample.name: self.contents[sample.name].image for sample in self.samples.get(split, ())}

    @property
    def contents(self) -> Mapping[str, PairContent]:
        """SHA-256 of the bytes of each sample's image and mask, by its name."""
        return self._prepare_once().contents

    @property
    def mask_values(self) -> Mapping[int, int]:
        """The class index of each value that a mask file may hold."""
        return self._class_map.mask_values

    @abstractmethod
    def list_samples(self) -> Listing:
        """The files that are there now."""

    def fetch(self) -> None:
        """Make or download what is missing. Nothing by default."""

    def list_folder(self) -> Path:
        """The folder that split lists are looked for in."""
        return self.data_path

    def prepare(self) -> None:
        """Fetch what is missing; list, check, split and fingerprint what is there. Done once; later calls do nothing.

        Headers and sizes are checked here; a file that is broken behind its header, and a mask value that stands for
        no class, raise when they are first read.

        Raises:
            DataError: in one of its kinds, naming the file.
        """
        self._prepare_once()

    def fill_cache(self, on_image: OnImage | None = None) -> None:
        """Decode every image into the cache, unless that is done or there is none. Loaders do it where nobody did.

        Raises:
            DataError: an image or mask cannot be read.
        """
        if not self._caching:
            return
        source = self._pixel_source()
        self._pixels = open_cache(self._cache_folder, source, limit_gb=self._cache_gb, on_image=on_image)
        self._caching = self._pixels is not None  # where there is no room now, it is not asked again

    def train_dataloader(self, *, epoch: int = 0, batches_done: int = 0) -> DataLoader[dict[str, torch.Tensor]]:
        """Augmented batches in an order that follows from seed and epoch; to begin with, the rest of `epoch`'s."""
        from ratchet.data.dataset import EpochSampler  # noqa: PLC0415

        dataset = self._dataset("train", self._train_transform)
        done = batches_done * self.batch_size
        sampler = EpochSampler(len(dataset), seed=self._seed, epoch=epoch, done=done)
        # A last batch of one image would stop networks that normalise over a batch of 1x1 features.
        lonely = len(dataset) > self.batch_size > 1 and len(dataset) % self.batch_size == 1
        return self._loader(dataset, sampler=sampler, drop_last=lonely)

    def val_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Batches of `val` in order."""
        return self._loader(self.evaluation_dataset("val"))

    def test_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Batches of `test` in order."""
        return self._loader(self.evaluation_dataset("test"))

    def evaluation_dataset(self, split: str) -> SegmentationDataset:
        """The samples of any split without augmentation, the same every time.

        Raises:
            EmptySplitError: there is no such split.
        """
        return self._dataset(split, None)

    def _dataset(self, split: str, transform: Transform | None) -> SegmentationDataset:
        from ratchet.data.dataset import SegmentationDataset  # noqa: PLC0415

        if split not in self.samples:
            raise EmptySplitError(f"{self.name} has no split {split!r}; it has {', '.join(self.samples)}")
        if self._pixels is None:
            self.fill_cache()
        rows = self._pixel_source().rows if self._pixels is not None else {}
        return SegmentationDataset(
            self.samples[split],
            mask_values=self.mask_values,
            input_format=self._input_format,
            transform=transform,
            seed=self._seed,
            cache=self._pixels,
            rows=[rows[self.contents[sample.name]] for sample in self.samples[split]] if rows else (),
            contents=[self.contents[sample.name] for sample in self.samples[split]],
        )

    def _pixel_source(self) -> PixelSource:
        return PixelSource(
            files={self.contents[s.name]: (s.image, s.mask) for split in self.samples.values() for s in split},
            mask_values=self.mask_values,
            height=self._input_format.height,
            width=self._input_format.width,
        )

    def _loader(self, dataset: SegmentationDataset, **options: Any) -> DataLoader[dict[str, torch.Tensor]]:
        from ratchet.data.workers import PatientLoader, processes  # noqa: PLC0415

        pixels = self.batch_size * self._input_format.height * self._input_format.width
        return PatientLoader(
            dataset, batch_size=self.batch_size, **processes(self._num_workers, batch_pixels=pixels), **options
        )

    def _prepare_once(self) -> PreparedData:
        if self._prepared is None:
            self.fetch()
            self._prepared = prepare_data(
                self.list_samples(),
                self._find_lists(),
                self.data_path / _METADATA,
                sizes=self._sizes,
                only=self.only,
                group_by=self.group_by,
                meaning={"classes": self.classes, "mask_values": sorted(self.mask_values.items())},
                index=self._index,
            )
        return self._prepared

    def read_metadata(self) -> dict[str, dict[str, str]]:
        """The rows of `metadata.csv` by image; nothing is hashed. Raises `MetadataError`."""
        self.fetch()
        return read_metadata(self.data_path / _METADATA, self.list_samples().images)

    def _find_lists(self) -> dict[str, Path]:
        folder = self.list_folder()
        named = {split: folder / Path(file).expanduser() for split, file in self._split_files.items()}
        found = {split: folder / file for split, file in self.default_lists.items() if (folder / file).is_file()}
        return {**found, **named}
