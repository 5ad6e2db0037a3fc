"""Which images a reading is taken on: what is new to the champion, and what it was promoted on."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.data import Sample


@dataclass(frozen=True)
class ChosenImages:
    """The `fresh` samples, the newest file first, and the `reference`; `as_promoted`: those that it was promoted on."""

    fresh: tuple[Sample, ...]
    reference: tuple[Sample, ...]
    as_promoted: bool


def choose_images(
    data: Any, *, seen: Set[str], judged: Mapping[str, str | None] | None, least: int = 1
) -> ChosenImages:
    """Choose from today's splits by what the champion has `seen` (digests) and was `judged` on.

    `judged` has a digest for each name, or none where an older Ratchet recorded the names alone; None: not known.

    The gate set grows with the data, and what came to it later is as new as the rest: were it part of the reference, that
    would get worse together with production. The judged images are the reference whatever split they are in by now, and
    whatever they are called; where fewer than `least` of them are still there (and not all), all of today's gate set is.
    Where only names are known and files were renamed, a name may be that of an image that it was trained on: none of these
    is a reference.
    """
    digests = {name: digest for split in data.samples for name, digest in data.image_digests(split).items()}
    judged = judged or {}
    contents = {digest for digest in judged.values() if digest is not None}
    then: dict[str, Sample] = {}
    for sample in (sample for split in data.samples for sample in data.samples[split]):
        then_too = digests[sample.name] in contents if contents else sample.name in judged
        if then_too and digests[sample.name] not in seen:
            then.setdefault(digests[sample.name], sample)
    as_promoted = len(then) >= max(1, min(least, len(judged)))
    today = (sample for sample in data.gate_samples if digests[sample.name] not in seen)
    reference = tuple(then.values() if as_promoted else today)
    known = {digests[sample.name] for sample in reference} | seen
    new: dict[str, Sample] = {}  # copies of an image are no more images
    for split in ("train", "val", data.gate_split):
        for sample in data.samples.get(split, ()):
            if digests[sample.name] not in known:
                new.setdefault(digests[sample.name], sample)
    fresh = sorted(new.values(), key=lambda sample: (-sample.image.stat().st_mtime, sample.name))
    return ChosenImages(tuple(fresh), reference, as_promoted)
