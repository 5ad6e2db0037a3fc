"""One line of a model's history, and how it is written down."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ratchet.errors import RegistryError
from ratchet.registry.values import Stage

FORMAT = 1
LONGEST_TEXT = 5_000  # characters of a reason; MLflow's tag column takes 100,000, and JSON may need six for one

_UNWRITTEN = datetime.min.replace(tzinfo=UTC)


class EventKind(StrEnum):
    """What happened."""

    REGISTERED = "registered"
    GATED = "gated"
    STAGED = "staged"
    PROMOTED = "promoted"
    ARCHIVED = "archived"
    WITHDRAWN = "withdrawn"  # from staging or the archive to no stage
    ROLLED_BACK = "rolled back"
    RELEASED = "released"
    DELETED = "deleted"
    CHANGED_OUTSIDE = "changed outside"
    NOTED = "noted"
    ASKED = "asked"  # a person, whether it may go to production
    APPROVED = "approved"
    REFUSED = "refused"


class Void(StrEnum):
    """Why an event does not count."""

    WRITTEN_TWICE = "written twice"
    NOTHING_TO_DO = "already so"
    CHAMPION_MOVED = "the champion had moved"
    QUARANTINED = "the version is quarantined"
    PROTECTED = "the version is protected"
    NO_SUCH_VERSION = "no such version"
    OVERTAKEN = "overtaken by another event"


@dataclass(frozen=True)
class Event:
    """One event. What its author wrote comes first, what the place in the log and the fold say of it comes last.

    `version` is the version that it is about: for *rolled back* the one that was left, `target` being the one that
    production returned to. `expected` is the champion that the author counted on, if `expects` (None: no champion).
    `follows` names the event that an observation was made after: it counts only directly behind it. `moves` are the
    changes that an observation found, in order. `created` (milliseconds since 1970) tells a version from a later one
    that got the same number, after its model was deleted and made anew.
    `gate_set` is the fingerprint of the images that a verdict was made on.
    `anchor` is the version, best of all that ever were in production, that a verdict compared with too.
    `until` is the time (ISO 8601, UTC) at which an *asked* that nobody answered counts as refused.
    """

    id: str
    kind: EventKind
    version: int
    who: str
    reason: str = ""
    target: int | None = None
    expects: bool = False
    expected: int | None = None
    follows: int | None = None
    moves: tuple[tuple[int, Stage], ...] = ()
    outside: bool = False
    forced: bool = False
    outcome: str | None = None
    verdict_digest: str | None = None
    gate_set: str | None = None
    anchor: int | None = None
    fingerprint: str | None = None
    run_id: str | None = None
    flow_run: str | None = None
    to_stage: Stage | None = None
    created: int | None = None
    until: str | None = None

    number: int = 0
    time: datetime = _UNWRITTEN
    void: Void | None = None
    from_stage: Stage | None = None
    replaced: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it changed anything: an event that came too late is kept, but void."""
        return self.void is None


_PLACED = {"number", "time", "void", "from_stage", "replaced"}
_WRITTEN = {item.name for item in fields(Event)} - _PLACED


def encode(event: Event) -> str:
    """The author's part as JSON. Raises `RegistryError` for a reason that no back end could keep."""
    if len(event.reason) > LONGEST_TEXT:
        raise RegistryError(
            f"the reason has {len(event.reason):,} characters, at most {LONGEST_TEXT:,} can be kept: shorten it"
        )
    written: dict[str, Any] = {"format": FORMAT}
    for item in fields(Event):
        value = getattr(event, item.name)
        if item.name not in _PLACED and value != item.default:
            written[item.name] = value
    return json.dumps(written, sort_keys=True)


def decode(text: str, number: int, time: datetime) -> Event:
    """The event that `encode` wrote, at its place in the log. Raises `RegistryError` for what no Ratchet wrote."""
    try:
        written = json.loads(text)
        if written.pop("format") != FORMAT or written.keys() - _WRITTEN or written["kind"] not in set(EventKind):
            raise RegistryError(f"event {number} was written by a newer Ratchet: update this one")
        written["kind"] = EventKind(written["kind"])
        if "to_stage" in written:
            written["to_stage"] = Stage(written["to_stage"])
        written["moves"] = tuple((int(version), Stage(stage)) for version, stage in written.get("moves", ()))
        return replace(Event(**written), number=number, time=time)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"event {number} of the history cannot be read ({error}): {text[:200]!r}") from error
