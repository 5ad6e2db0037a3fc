"""Finds the anchor: of all versions that ever were in production, the one that scores best on today's gate set."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import CountsMismatchError, GateError, ModelFilesError
from ratchet.evaluation.counts import ImageCounts, score
from ratchet.gate import Policy
from ratchet.gate.contrasts import check_comparable
from ratchet.scratch import scratch

if TYPE_CHECKING:
    from ratchet.judgement.scorer import Scorer
    from ratchet.registry import MlflowModelManager, ModelVersion

MODELS_AT_ONCE = 4  # in memory: a new gate set may call for every champion there ever was


@dataclass(frozen=True)
class FoundAnchor:
    """The version and its counts, or None and in `notes` the reason; `notes` also name versions that were left out."""

    version: ModelVersion | None = None
    counts: ImageCounts | None = None
    notes: tuple[str, ...] = ()


def require_to_compare(policy: Policy, manager: MlflowModelManager, model: str) -> None:
    """Raise `GateError` where production is empty though it was not always, and the policy compares with a champion alone."""
    if policy.anchor is not None or model not in manager.models() or manager.champion(model) is not None:
        return
    if former := manager.champions(model):
        raise GateError(
            f"production of {model} is empty, though v{former[-1].version} was in it, and this policy compares with the champion "
            f"alone: put one back (ratchet promote {model} {former[-1].version}), or compare with the best of them "
            "(gate.anchor.margin=0.02)."
        )


def find_anchor(
    policy: Policy,
    reference: ModelVersion,
    counts: Mapping[int, ImageCounts],
    *,
    scorer: Scorer,
    manager: MlflowModelManager,
    gate: Collection[str],
    seen: Callable[[ModelVersion, Path], frozenset[str] | None],
) -> FoundAnchor:
    """Score every former champion that is still there and not in quarantine; the best by the policy's metric is it.

    `counts` are those of today by version number, of the `reference` at least, which wins a tie: the champion, or the
    challenger while there is none. A version cannot be compared, and is left out, that has other classes, whose output is
    not finite on an image, or, where the policy looks for leaks, that has `seen` one of the `gate` images (by content): they
    may not have been gate images then. Raises `GateError` if one cannot be read: nobody knows whether it was the best.
    """
    versions = {version.version: version for version in manager.champions(reference.model)}
    known = {number: found for number in versions if (found := counts.get(number) or _known(versions[number], scorer))}
    try:
        known |= _score([versions[number] for number in versions if number not in known], scorer, manager)
        versions = {
            number: manager.version(reference.model, number) for number in versions
        }  # with what fetching them found
    except ModelFilesError as error:
        raise GateError(
            f"a version that was in production once cannot be scored, so nobody knows whether it was the best: {error}. Mend "
            "that and judge again; or delete that version, or, while there is a champion, judge without an anchor "
            "(gate.anchor=null)."
        ) from error
    notes: list[str] = []
    scores: dict[int, float] = {}
    for number, found in known.items():
        try:
            check_comparable(counts[reference.version], found, role=f"v{number}")
            if found.nonfinite is not None and found.nonfinite.any():
                notes.append(f"v{number} is not compared with as an anchor: its output is not finite on a gate image")
                continue
            scores[number] = score(policy.metric, found, average=policy.average)
        except CountsMismatchError as error:
            notes.append(f"v{number} is not compared with as an anchor: {error}")
    places = {number: (value, number == reference.version) for number, value in scores.items() if math.isfinite(value)}
    for number in sorted(places, key=lambda number: places[number], reverse=True):
        # The files are fetched once more, of the best alone: that of the reference was looked at by the rule itself.
        if policy.leak and number != reference.version and _has_seen(versions[number], gate, manager, seen):
            notes.append(f"v{number} is not compared with as an anchor: it was trained or selected on gate images")
            continue
        return FoundAnchor(versions[number], known[number], tuple(notes))
    return FoundAnchor(notes=tuple(notes))


def _has_seen(
    version: ModelVersion,
    gate: Collection[str],
    manager: MlflowModelManager,
    seen: Callable[[ModelVersion, Path], frozenset[str] | None],
) -> bool:
    """Where its files say so: one that cannot be read any more stays as strict an anchor as its counts make it."""
    try:
        with scratch("anchor") as folder:
            known = seen(version, manager.download_model(version.model, version.version, folder / "model"))
    except ModelFilesError:
        return False
    return known is not None and not known.isdisjoint(gate)


def _known(version: ModelVersion, scorer: Scorer) -> ImageCounts | None:
    """One that was registered outside Ratchet, and never fetched, has no hashes that counts could be found by."""
    return None if version.digests is None else scorer.known(version)


def _score(versions: Sequence[ModelVersion], scorer: Scorer, manager: MlflowModelManager) -> dict[int, ImageCounts]:
    from ratchet.evaluation.served import ServedModel  # noqa: PLC0415 - imports torch, which planning does not need

    counts: dict[int, ImageCounts] = {}
    for start in range(0, len(versions), MODELS_AT_ONCE):
        some = {str(version.version): version for version in versions[start : start + MODELS_AT_ONCE]}
        with scratch("anchor") as folder:
            models = {
                name: ServedModel(manager.download_model(version.model, version.version, folder / name))
                for name, version in some.items()
            }
            some = {name: manager.version(version.model, version.version) for name, version in some.items()}
        counts |= {int(name): found for name, found in scorer.score(models, keep=some).items()}
    return counts
