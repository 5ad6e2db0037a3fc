"""Which versions may go, and why the others stay: a pure decision on what the registry shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ratchet.registry.events import Event, EventKind
from ratchet.registry.fold import State
from ratchet.registry.questions import open_question
from ratchet.registry.values import AUTHOR_TAG, ModelVersion, Stage
from ratchet.run_names import CHECKPOINTS_PATH, MODEL_PATH

_ANCHORS = 20  # verdicts whose anchor stays
_NOT_PROMOTED = ("reject", "inconclusive")
HEAVY = (MODEL_PATH, CHECKPOINTS_PATH)  # what weighs in a trial's run; its metrics, parameters and report stay


@dataclass(frozen=True)
class PrunePlan:
    """The versions that go, oldest first, and the reason why each of the others stays.

    `runs` are those whose heavy artifacts go along, and those of trials beside them in their sweeps: nothing that stays needs
    them.
    """

    goes: tuple[int, ...]
    stays: Mapping[int, str] = field(default_factory=dict)
    runs: tuple[str, ...] = ()


def plan(
    versions: Sequence[ModelVersion],
    state: State,
    events: Sequence[Event],
    *,
    keep: int,
    rollbacks: int,
) -> PrunePlan:
    """Decide which versions of one model go: archived, rejected and inconclusive ones beyond the newest `keep`.

    Whatever their age, these stay: the champion, staging, the last `rollbacks` versions that a rollback can reach,
    the anchors of the last verdicts that had one, pinned versions, those in quarantine (a release needs them), those that
    others registered (their run has the only files), and those that wait for a verdict or for a person's answer.
    """
    stays: dict[int, str] = {}
    spare, newest = list[ModelVersion](), 0
    reachable = state.rollback_targets[:rollbacks]
    # A model that was deleted and made anew gives its numbers again: what came before was another version.
    made = {event.version: event.number for event in events if event.kind is EventKind.REGISTERED and event.counts}
    own = [event for event in events if event.number >= made.get(event.version, 0)]
    questions = {event.version for event in own if event.kind is EventKind.ASKED}
    asked = {number for number in questions & {version.version for version in versions} if open_question(own, number)}
    verdicts = {event.version: event.outcome for event in own if event.kind is EventKind.GATED and event.counts}
    # Of several verdicts: one by hand, by another policy or on other images has another.
    anchors = [event.anchor for event in events if event.anchor is not None and event.counts][-_ANCHORS:]
    for version in sorted(versions, key=lambda version: version.version, reverse=True):
        outcome = verdicts.get(version.version)
        why = _protection(version, reachable, outcome, anchors=anchors, asked=asked)
        if why is not None:
            stays[version.version] = why
        elif newest < keep:
            newest += 1
            stays[version.version] = "among the newest"
        else:
            spare.append(version)
    kept_runs = {version.run_id for version in versions if version.version in stays}
    runs = {version.run_id for version in spare if version.run_id is not None} - kept_runs
    goes = tuple(sorted(version.version for version in spare))
    return PrunePlan(goes, stays, tuple(sorted(filter(None, runs))))


def _protection(
    version: ModelVersion,
    reachable: Collection[int],
    outcome: str | None,
    *,
    anchors: Collection[int],
    asked: Collection[int],
) -> str | None:
    """Why a version must stay whatever its age, or None."""
    active = {Stage.PRODUCTION: "in production", Stage.STAGING: "in staging"}
    reasons = (
        (version.stage in active, active.get(version.stage, "")),
        (version.version in reachable, "a rollback may return to it"),
        (version.version in anchors, "an anchor of the gate"),
        (version.pinned, "pinned"),
        (version.quarantined, "in quarantine until it is released"),
        (version.version in asked, "a person is being asked about it"),
        (AUTHOR_TAG not in version.tags, "registered outside Ratchet: delete it by hand"),
        (version.stage is Stage.NONE and outcome not in _NOT_PROMOTED, "not rejected by any verdict"),
    )
    return next((why for holds, why in reasons if holds), None)
