"""What every data module does: list, check, split, fingerprint, and load batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ratchet.data.classes import build_class_map
from ratchet.data.content import check_contents_disjoint, fingerprint, read_contents
from ratchet.data.listing import Listing, check_disjoint, check_pairs, read_metadata, read_split_list
from ratchet.data.samples import SPLITS, InputFormat, Sample
from ratchet.data.splitting import SplitSizes, assign_splits, choose_names
from ratchet.errors import ConfigError, EmptySplitError

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from ratchet.data.dataset import SegmentationDataset, Transform


@dataclass(frozen=True)
class _Prepared:
    samples: Mapping[str, tuple[Sample, ...]]
    fingerprint: str
    gate_fingerprint: str
    image_digests: Mapping[str, str]


class SegmentationDataModule:
    """Images and masks in splits. A subclass says where the files are (`list_samples`), and may make them (`fetch`).

    Splits come from lists (`train_split_file`, …; by default `train.txt`, … if the folder holds them, one name a line),
    otherwise from the content of the images and `seed`. `val_size`, `test_size` and `gate_size` are the shares for
    which there is no list; with `gate_size: 0` and no list, the gate judges on the test split. `train_transform`
    augments image and mask (uint8, already of the input's size) in training; everything else sees what serving sees.

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
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 42,
        mask_values: Mapping[int, int] | None = None,
        val_size: float = 0.2,
        test_size: float = 0.2,
        gate_size: float = 0.0,
        train_split_file: str | Path | None = None,
        val_split_file: str | Path | None = None,
        test_split_file: str | Path | None = None,
        gate_split_file: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        """Keep the settings; no file is touched before `prepare`.

        Raises:
            ConfigError: settings that contradict themselves.
        """
        self.data_path = Path(data_path).expanduser()
        self.name = name or self.data_path.name
        self._class_map = build_class_map(idx_to_class, mask_values)
        self._input_format = _input_format(input_height, input_width, mean, std)
        self._train_transform = train_transform
        if batch_size < 1 or num_workers < 0:
            raise ConfigError("datamodule.batch_size must be at least 1, datamodule.num_workers at least 0")
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._sizes = SplitSizes(val=val_size, test=test_size, gate=gate_size, seed=seed)
        files = (train_split_file, val_split_file, test_split_file, gate_split_file)
        self._split_files = {split: file for split, file in zip(SPLITS, files, strict=True) if file is not None}
        self._prepared: _Prepared | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; the first has index 1, since 0 is the background."""
        return self._class_map.classes

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
        return _gate_split(self.samples)

    @property
    def gate_fingerprint(self) -> str:
        """The same fingerprint of the gate set alone."""
        return self._prepare_once().gate_fingerprint

    def image_digests(self, split: str) -> dict[str, str]:
        """SHA-256, in hexadecimal, of the bytes of each image file of a split, by the sample's name."""
        digests = self._prepare_once().image_digests
        return {sample.name: digests[sample.name] for sample in self.samples.get(split, ())}

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

    def train_dataloader(self, *, epoch: int = 0) -> DataLoader[dict[str, torch.Tensor]]:
        """Augmented batches in an order that follows from seed and epoch; `epoch` is the one to begin with."""
        from ratchet.data.dataset import EpochSampler  # noqa: PLC0415

        dataset = self._dataset("train", self._train_transform)
        sampler = EpochSampler(len(dataset), seed=self._sizes.seed, epoch=epoch)
        # A last batch of one image would stop networks that normalise over a batch of 1x1 features.
        lonely = len(dataset) > self._batch_size > 1 and len(dataset) % self._batch_size == 1
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
        return SegmentationDataset(
            self.samples[split],
            mask_values=self.mask_values,
            input_format=self._input_format,
            transform=transform,
            seed=self._sizes.seed,
        )

    def _loader(self, dataset: SegmentationDataset, **options: Any) -> DataLoader[dict[str, torch.Tensor]]:
        import torch  # noqa: PLC0415
        from torch.utils.data import DataLoader  # noqa: PLC0415

        return DataLoader(
            dataset,
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def _prepare_once(self) -> _Prepared:
        if self._prepared is None:
            self.fetch()
            self._prepared = self._read_all()
        return self._prepared

    def _read_all(self) -> _Prepared:
        listing = self.list_samples()
        lists = {split: read_split_list(path, listing.images) for split, path in self._find_lists().items()}
        check_disjoint(lists)
        names = choose_names(listing.images, lists)
        check_pairs(listing, names, complete="train" not in lists)
        pairs = {name: (listing.images[name], listing.masks[name]) for name in names}
        contents = read_contents(pairs)
        splits = assign_splits(names, lists, contents, self._sizes)
        check_contents_disjoint(splits, contents, pairs)
        metadata = read_metadata(self.data_path / "metadata.csv")
        samples = [Sample(name, *pairs[name], splits[name], metadata.get(name, {})) for name in sorted(names)]
        meaning = {"classes": self.classes, "mask_values": sorted(self.mask_values.items())}
        by_split = {split: tuple(s for s in samples if s.split == split) for split in SPLITS}
        present = {split: members for split, members in by_split.items() if members}
        return _Prepared(
            samples=present,
            fingerprint=fingerprint(samples, contents, meaning),
            gate_fingerprint=fingerprint(present[_gate_split(present)], contents, meaning),
            image_digests={name: content.image for name, content in contents.items()},
        )

    def _find_lists(self) -> dict[str, Path]:
        folder = self.list_folder()
        named = {split: folder / Path(file).expanduser() for split, file in self._split_files.items()}
        found = {split: folder / file for split, file in self.default_lists.items() if (folder / file).is_file()}
        return {**found, **named}


def _gate_split(samples: Mapping[str, tuple[Sample, ...]]) -> str:
    return "gate" if "gate" in samples else "test"


def _input_format(height: int, width: int, mean: Sequence[float], std: Sequence[float]) -> InputFormat:
    if height < 1 or width < 1:
        raise ConfigError(f"transforms.input_height and input_width are {height} and {width}: both at least 1")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):  # noqa: PLR2004 - red, green, blue
        raise ConfigError("transforms.mean and transforms.std need three values each, and std above 0")
    return InputFormat(height, width, tuple(map(float, mean)), tuple(map(float, std)))
