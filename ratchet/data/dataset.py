"""Samples as tensors: the data set that loaders draw from, and the order in which training draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors

from ratchet.data.cache import PixelCache
from ratchet.data.content import PairContent, read_pair
from ratchet.data.preparation import normalise
from ratchet.data.resizing import read_pixels
from ratchet.data.samples import InputFormat, Sample
from ratchet.errors import ConfigError, UnreadableImageError

Transform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[torch.Tensor, torch.Tensor]]
"""An augmentation: takes and returns an image, uint8 (3, H, W), and a mask, uint8 (H, W), of the same size."""


class Draw(NamedTuple):
    """A position to draw and the epoch to draw it in, from which the augmentation follows."""

    epoch: int
    position: int


class SegmentationDataset(Dataset[dict[str, torch.Tensor]]):
    """Samples read, resized, augmented if there is a transform, and normalised.

    An item has `image`, float32 (3, H, W); `mask`, int64 (H, W) of class indices; and `index`, int64, its position in
    `samples`. Reading raises UnreadableImageError, MaskValueError or MaskSizeError, naming the file. An augmentation draws
    its random numbers from torch, seeded by seed, epoch and position: the number of workers and a resumed training change
    nothing. With a `cache`, in which the samples have the rows `rows`, the pixels to augment come from there, the same to
    the bit. What comes from the files must be of the `contents` that it was hashed with, if they are given.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        mask_values: Mapping[int, int],
        input_format: InputFormat,
        transform: Transform | None = None,
        seed: int = 0,
        cache: PixelCache | None = None,
        rows: Sequence[int] = (),
        contents: Sequence[PairContent] = (),
    ) -> None:
        """Keep what is needed to read; nothing is read yet."""
        self.samples = tuple(samples)
        self._mask_values = dict(mask_values)
        self._format = input_format
        self._transform = transform
        _leave_masks_empty(transform)
        self._seed = seed
        self._cache = cache
        self._rows = rows
        self._contents = contents

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.samples)

    def __getitem__(self, draw: int | Draw) -> dict[str, torch.Tensor]:
        """Read one sample; a plain position is drawn as in epoch 0."""
        epoch, index = draw if isinstance(draw, Draw) else (0, draw)
        image, mask = self._read(index)
        if self._transform is not None:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which would reseed the GPU's generators too.
                torch.default_generator.manual_seed(_mix(self._seed, epoch, index))
                image, mask = self._transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
            size = (self._format.height, self._format.width)
            if tuple(image.shape[-2:]) != size or tuple(mask.shape[-2:]) != size:
                raise ConfigError(
                    f"transforms.train_transform makes an image {tuple(image.shape)} and a mask {tuple(mask.shape)}, but what is "
                    f"served is {size[0]} x {size[1]}: give it the size of transforms.input_height and input_width."
                )
            if (found := int(mask.max())) > max(self._mask_values.values()):
                raise ConfigError(
                    f"transforms.train_transform puts {found} into masks, which is the index of no class: what it changes in the "
                    "values of an image must leave masks alone, as torchvision's transforms of colours do."
                )
        return {
            "image": normalise(image.as_subclass(torch.Tensor), mean=self._format.mean, std=self._format.std),
            "mask": mask.as_subclass(torch.Tensor).to(torch.int64),
            "index": torch.tensor(index),
        }

    def _read(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._cache is not None and (pixels := self._cache.read(self._rows[index])) is not None:
            tensor = torch.from_numpy(pixels)
            return tensor[:3], tensor[3]
        sample = self.samples[index]
        size = {"height": self._format.height, "width": self._format.width}
        image, mask = read_pixels(sample.image, sample.mask, self._mask_values, **size)
        if self._contents and read_pair((sample.image, sample.mask)) != self._contents[index]:
            raise UnreadableImageError(f"{sample.image} or its mask changed since this training began: start it again")
        return torch.from_numpy(image), torch.from_numpy(mask)


def _leave_masks_empty(transform: Any) -> None:
    """Let what torchvision's transforms fill with be the image's only; a mask is filled with background."""
    for part in getattr(transform, "transforms", ()):
        _leave_masks_empty(part)
    fill = getattr(transform, "_fill", None)
    if isinstance(fill, dict):
        fill.setdefault(tv_tensors.Mask, 0)


class EpochSampler(Sampler[Draw]):
    """All positions in an order that follows from the seed and the epoch alone.

    Lightning calls `set_epoch`, so that a training that goes on from a checkpoint sees the order it would have seen.
    """

    def __init__(self, length: int, *, seed: int, epoch: int = 0, done: int = 0) -> None:
        """Order `length` positions, first for `epoch`, of which `done` were drawn before training stopped."""
        self._length = length
        self._seed = seed
        self._epoch = epoch
        self._done = done

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch, counted from 0; another one than before is drawn whole."""
        if epoch != self._epoch:
            self._epoch, self._done = epoch, 0

    def __iter__(self) -> Iterator[Draw]:
        """The positions in order."""
        order = torch.randperm(self._length, generator=torch.Generator().manual_seed(_mix(self._seed, self._epoch)))
        return iter([Draw(self._epoch, index) for index in order.tolist()[self._done :]])

    def __len__(self) -> int:
        """The number of positions of a whole epoch."""
        return self._length


def _mix(*numbers: int) -> int:
    """One seed of 32 bits from several numbers; torch's generator for the CPU takes no more."""
    text = ",".join(map(str, numbers))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
