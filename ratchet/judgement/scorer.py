"""Scores versions on images: all that is new in one pass over them, what is known already not again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np

from ratchet.evaluation.counts import ImageCounts, join_images, select_images
from ratchet.evaluation.scoring import score_models
from ratchet.judgement.cache import CountsCache
from ratchet.judgement.records import model_ref

if TYPE_CHECKING:
    from ratchet.data import Sample
    from ratchet.data.content import PairContent
    from ratchet.evaluation.served import ServedModel
    from ratchet.judgement.judging import OnImage
    from ratchet.registry import ModelVersion


@dataclass(frozen=True)
class Scorer:
    """Images, each of another content, with the digests of their files by name; the metric that the counts are for."""

    samples: Sequence[Sample]
    contents: Mapping[str, PairContent]
    mask_values: Mapping[int, int]
    metric: str
    cache: CountsCache

    def known(self, version: ModelVersion) -> ImageCounts | None:
        """Counts of the same files on all of the same images, if earlier ones were kept and the metric is in them."""
        kept = self._kept(version)
        return None if kept is None or self._missing(kept) else self._named([kept])

    def images_before(self, version: ModelVersion) -> int:
        """On how many of the images the counts of the same files are known."""
        return len(self.samples) - len(self._missing(self._kept(version)))

    def score(
        self, models: Mapping[str, ServedModel], *, keep: Mapping[str, ModelVersion], on_image: OnImage = None
    ) -> dict[str, ImageCounts]:
        """Count these models; those that `keep` names only on images where they are not known, and for later too.

        Models that lack the same images are counted in one pass over these.
        """
        counts = {name: self._kept(keep[name]) if name in keep else None for name in models}
        passes: dict[tuple[int, ...], list[str]] = {}
        for name, kept in counts.items():
            passes.setdefault(self._missing(kept), []).append(name)
        total, done = sum(map(len, passes)), 0
        scored: dict[str, ImageCounts] = {}
        for missing, names in passes.items():
            new: Mapping[str, ImageCounts] = {}
            if missing or any(counts[name] is None for name in names):
                new = self._count(missing, {name: models[name] for name in names}, _from(done, total, on_image))
            done += len(missing)
            for name in names:
                scored[name] = self._named([found for found in (counts[name], new.get(name)) if found is not None])
                if name in keep and missing:
                    digest = model_ref(keep[name]).digest
                    self.cache.keep(new[name], model=digest, mask_values=self.mask_values, contours=self._contours)
        return scored

    def _count(
        self, positions: Sequence[int], models: Mapping[str, ServedModel], on_image: OnImage
    ) -> dict[str, ImageCounts]:
        """Count on some of the images, named by their keys. Raises `UnreadableImageError` for one that was changed meanwhile."""
        samples, keys = [self.samples[at] for at in positions], [self._keys[at] for at in positions]
        counts = score_models(
            models, samples, self.mask_values, metric=self.metric, contents=self.contents, on_image=on_image
        )
        return {name: replace(found, names=tuple(keys)) for name, found in counts.items()}

    def _kept(self, version: ModelVersion) -> ImageCounts | None:
        digest = model_ref(version).digest
        return self.cache.find(model=digest, mask_values=self.mask_values, contours=self._contours)

    @property
    def _contours(self) -> bool:
        return self.metric == "boundary_iou"

    def _missing(self, kept: ImageCounts | None) -> tuple[int, ...]:
        """The positions of the images that are not among those that were kept."""
        there = set() if kept is None else set(kept.names)
        return tuple(position for position, key in enumerate(self._keys) if key not in there)

    def _named(self, parts: Sequence[ImageCounts]) -> ImageCounts:
        """The counts of the images, in their order and by their names, out of those of keys."""
        counts = reduce(join_images, parts)
        positions = {key: position for position, key in enumerate(counts.names)}
        chosen = select_images(counts, np.array([positions[key] for key in self._keys], dtype=np.int64))
        return replace(chosen, names=tuple(sample.name for sample in self.samples))

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        """What counts are kept by: the digests of image and mask."""
        contents = (self.contents[sample.name] for sample in self.samples)
        return tuple(f"{content.image} {content.mask}" for content in contents)


def _from(done: int, total: int, on_image: OnImage) -> OnImage:
    """Tell a pass as what follows on `done` images, of the `total` of all passes."""
    return None if on_image is None else lambda scored, _: on_image(done + scored, total)
