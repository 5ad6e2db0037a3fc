"""Which differences a policy asks about: the whole gate set, the anchor, and each slice, as pairs ready to resample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import CountsMismatchError
from ratchet.evaluation.counts import ImageCounts, summands
from ratchet.gate.bootstrap import Pair
from ratchet.gate.digests import Metadata
from ratchet.gate.policy import Policy

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Contrast:
    """One difference: the slice's name, the two models' summands, and how many images it rests on."""

    name: str
    pair: Pair
    images: int


def check_comparable(challenger: ImageCounts, other: ImageCounts, *, role: str) -> None:
    """Raises CountsMismatchError unless both are counts of the same images, classes, masks and metric version."""
    if challenger.metric_version != other.metric_version:
        raise CountsMismatchError(
            f"The {role} was counted by metric version {other.metric_version}, the challenger by "
            f"{challenger.metric_version}: score both again."
        )
    if challenger.classes != other.classes:
        raise CountsMismatchError(
            f"The classes differ: the challenger has {list(challenger.classes)}, the {role} {list(other.classes)}. "
            "A model with other classes is another model: register it under another name."
        )
    if challenger.names != other.names:
        odd = sorted(set(challenger.names) ^ set(other.names))
        what = f"{odd[0]!r} is in one only ({len(odd)} such)" if odd else "their order differs"
        raise CountsMismatchError(f"The challenger and the {role} were scored on different images: {what}.")
    unlike = np.flatnonzero((_truth(challenger) != _truth(other)).any(axis=1))
    if unlike.size:
        raise CountsMismatchError(
            f"The masks differ: {challenger.names[unlike[0]]!r} has other true pixels for the {role} ("
            f"{unlike.size} such images). Score both models again, on today's masks and at the masks' own size."
        )


def dependence_note(policy: Policy, split_by: str | None) -> str | None:
    """What to say where data are split by a column because their images depend on each other, and the policy leaves it out."""
    if split_by is None or policy.group_by is not None:
        return None
    return (
        f"the data are split by {split_by}, but images of one {split_by} are resampled as if they were independent, so that the "
        f"bounds are too narrow: set gate.group_by={split_by}"
    )


def _truth(counts: ImageCounts) -> NDArray[np.int64]:
    """Pixels of each class in the truth, (N, C)."""
    return counts.tp + counts.fn


@dataclass(frozen=True)
class Differences:
    """All that a policy compares: the whole gate set, the anchor if it is asked and there, the slices, and the gaps."""

    overall: Contrast
    anchor: Contrast | None
    slices: tuple[Contrast, ...]
    missing: Mapping[str, str]

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Everything that is to be resampled, in the order overall, anchor, slices."""
        return (self.overall, *(() if self.anchor is None else (self.anchor,)), *self.slices)


def find_differences(
    policy: Policy,
    challenger: ImageCounts,
    champion: ImageCounts,
    *,
    anchor: ImageCounts | None = None,
    metadata: Metadata | None = None,
) -> Differences:
    """Lay out every comparison that the policy asks for; what has no data is `missing`, with the reason."""
    parts, missing = slices(policy, challenger, champion, metadata or {})
    best = None if policy.anchor is None or anchor is None else overall(policy, challenger, anchor)
    return Differences(overall(policy, challenger, champion), best, tuple(parts), missing)


def overall(policy: Policy, challenger: ImageCounts, other: ImageCounts) -> Contrast:
    """The whole gate set."""
    return Contrast("all", _pair(policy, challenger, other, policy.average), len(challenger.names))


def _pair(policy: Policy, challenger: ImageCounts, other: ImageCounts, average: str) -> Pair:
    mine, theirs = (summands(policy.metric, counts, average=average) for counts in (challenger, other))
    return Pair(mine, theirs)


def slices(
    policy: Policy, challenger: ImageCounts, champion: ImageCounts, metadata: Metadata
) -> tuple[list[Contrast], dict[str, str]]:
    """The slices that non-inferiority asks about, and those that have no data (name → why)."""
    rule = policy.non_inferiority
    found: list[Contrast] = []
    missing: dict[str, str] = {}
    if rule is None:
        return found, missing
    truth = _truth(challenger)
    if rule.classes:
        pair = _pair(policy, challenger, champion, "macro")
        for k, name in enumerate(challenger.classes):
            images = int((truth[:, k] > 0).sum())
            found.append(Contrast(f"class: {name}", pair.classes(slice(k, k + 1)), images))
    parts = list(_sizes(challenger.names, truth)) if rule.sizes else []
    for column in dict.fromkeys(rule.columns):
        if reason := missing_values(column, challenger.names, metadata):
            missing[column] = reason
        else:
            parts += _values(column, challenger.names, metadata[column])
    pair = _pair(policy, challenger, champion, policy.average)
    for name, keep in parts:
        if policy.metric != "pixel_accuracy" and not truth[keep].any():
            missing[name] = "no class is in any of its images, so there is nothing to find in them"
            continue
        found.append(Contrast(name, _present(pair, keep, truth), int(keep.sum())))
    return found, missing


def _present(pair: Pair, keep: NDArray[np.bool_], truth: NDArray[np.int64]) -> Pair:
    """The pair on these images, without the classes that none of them holds: they cannot be judged there."""
    part = pair.only(keep)
    here = truth[keep].sum(axis=0) > 0
    return part.classes(here) if part.challenger.tp.shape[1] == len(here) and here.any() else part


def _sizes(names: tuple[str, ...], truth: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Thirds of the images by the foreground area of their masks, ties by name; empty masks are in none."""
    area = truth.sum(axis=1)
    order = [i for i in sorted(range(len(names)), key=lambda i: (int(area[i]), names[i])) if area[i] > 0]
    for label, part in zip(SIZES, np.array_split(np.array(order, dtype=np.intp), len(SIZES)), strict=True):
        keep = np.zeros(len(names), dtype=bool)
        keep[part] = True
        yield f"size: {label}", keep


def _values(column: str, names: tuple[str, ...], values: Mapping[str, str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for value in sorted({values[name] for name in names}):
        yield f"{column}: {value}", np.array([values[name] == value for name in names])


def needed_metadata(policy: Policy, names: tuple[str, ...], metadata: Metadata) -> dict[str, dict[str, str]]:
    """The part of the metadata that the policy reads: its columns, and in them these images."""
    return {
        column: {name: metadata[column][name] for name in names if metadata[column].get(name)}
        for column in sorted(wanted_columns(policy) & metadata.keys())
    }


def wanted_columns(policy: Policy) -> frozenset[str]:
    """The columns of the metadata that the policy reads."""
    sliced = policy.non_inferiority.columns if policy.non_inferiority else ()
    return frozenset(filter(None, [policy.group_by, *sliced]))


def missing_values(column: str, names: tuple[str, ...], metadata: Metadata) -> str | None:
    """Why this column cannot slice or group the images; None when it can."""
    if column not in metadata:
        return f"the gate set's metadata has no column {column!r}"
    absent = [name for name in names if not metadata[column].get(name)]
    return f"{len(absent)} images have no {column!r}, the first is {absent[0]!r}" if absent else None


def find_groups(
    policy: Policy, names: tuple[str, ...], metadata: Metadata
) -> tuple[NDArray[np.intp] | None, str | None]:
    """The group of each image (N,) by `policy.group_by`, or None; and why they cannot be had, where it asks for them."""
    column = policy.group_by
    if column is None:
        return None, None
    if reason := missing_values(column, names, metadata):
        return None, reason
    return group_numbers(column, names, metadata), None


def group_numbers(column: str, names: tuple[str, ...], metadata: Metadata) -> NDArray[np.intp]:
    """The group of each image (N,), numbered from 0 in order of first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(metadata[column][name], len(seen)) for name in names], dtype=np.intp)
