"""What is announced to Prefect: a typed event for each line of a model's history, and for changed data.

An event's id follows from what it tells, so a step that is taken again after a crash announces nothing twice: Prefect's
server drops an id that it has seen.
"""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.client.orchestration import get_client
from prefect.events import Event, Resource, emit_event
from pydantic import BaseModel, ConfigDict

from ratchet import MlflowModelManager
from ratchet.data.watching import DataLook
from ratchet.monitoring.values import Reading
from ratchet.registry import EventKind


class RatchetEvent(BaseModel):
    """Something that happened to a model. `key` tells this occurrence from every other one."""

    model_config = ConfigDict(frozen=True)
    event: ClassVar[str]
    model: str
    key: str

    @property
    def id(self) -> UUID:
        """The same for the same occurrence."""
        return uuid5(NAMESPACE_URL, f"{self.event}/{self.model}/{self.key}")


class VersionEvent(RatchetEvent):
    """A line of the history: `number` is its place there, `who` its author, `reason` what the author said."""

    version: int
    number: int
    who: str
    reason: str
    run_id: str | None


class Registered(VersionEvent):
    """A new version; `fingerprint` is of the training that it came from."""

    event: ClassVar[str] = "ratchet.model.registered"
    fingerprint: str | None


class Gated(VersionEvent):
    """A verdict: `outcome` is promote, reject or inconclusive."""

    event: ClassVar[str] = "ratchet.model.gated"
    outcome: str | None
    verdict_digest: str | None


class Staged(VersionEvent):
    """A version went to staging."""

    event: ClassVar[str] = "ratchet.model.staged"
    verdict_digest: str | None


class Promoted(VersionEvent):
    """A version went into production; `replaced` is the champion before it."""

    event: ClassVar[str] = "ratchet.model.promoted"
    verdict_digest: str | None
    replaced: int | None


class RolledBack(VersionEvent):
    """Production left `version`, which is quarantined, and returned to `target`."""

    event: ClassVar[str] = "ratchet.model.rolled-back"
    target: int | None


class Degraded(RatchetEvent):
    """The champion is proven worse on the newest labelled data than on its gate set by more than the margin."""

    event: ClassVar[str] = "ratchet.model.degraded"
    version: int
    metric: str
    score: float | None
    reference: float | None
    low: float | None
    high: float | None
    margin: float
    images: int
    sentence: str

    @classmethod
    def of(cls, reading: Reading) -> Degraded:
        """The event of a reading; the same data and champion give the same one, however often they are read."""
        told = reading.model_dump(include=set(cls.model_fields) - {"key"})
        return cls(key=f"v{reading.version}/{reading.data}", **told)


class DataChanged(RatchetEvent):
    """The data settled with another content than before; `fingerprint` is the new one's."""

    event: ClassVar[str] = "ratchet.data.changed"
    fingerprint: str
    previous: str
    path: str

    @classmethod
    def of(cls, model: str, found: DataLook, path: str) -> DataChanged:
        """The event of a look that found a change."""
        told = {"fingerprint": str(found.fingerprint), "previous": str(found.previous)}
        return cls(model=model, key=f"{found.fingerprint}/{found.since.isoformat()}", path=path, **told)


_OF_HISTORY: dict[EventKind, type[VersionEvent]] = {
    EventKind.REGISTERED: Registered,
    EventKind.GATED: Gated,
    EventKind.STAGED: Staged,
    EventKind.PROMOTED: Promoted,
    EventKind.ROLLED_BACK: RolledBack,
}

_KINDS: tuple[type[RatchetEvent], ...] = (*_OF_HISTORY.values(), Degraded, DataChanged)
EVENTS = tuple(kind.event for kind in _KINDS)
"""What is announced of a model, with the model as the resource."""


def announce(event: RatchetEvent) -> None:
    """Send an event to Prefect's server; automations may act on it. One that is lost on the way is so in silence."""
    emit_event(event.event, _resource(event), payload=event.model_dump(mode="json"), id=event.id)


def announce_for_certain(event: RatchetEvent) -> None:
    """The same, and the server has taken it when this returns. Raises what its client raises."""
    told = Event(
        event=event.event,
        resource=Resource.model_validate(_resource(event)),
        payload=event.model_dump(mode="json"),
        id=event.id,
    )
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[told.model_dump(mode="json")]).raise_for_status()


def announce_history(model: str, kind: EventKind, version: int) -> None:
    """Announce the newest line of this kind about a version, as the history has it."""
    lines = [
        line
        for line in MlflowModelManager().history(model)
        if line.kind is kind and line.version == version and line.counts
    ]
    if not lines:
        return
    told: dict[str, Any] = {
        name: getattr(lines[-1], name) for name in _OF_HISTORY[kind].model_fields if name not in _OWN
    }
    announce(_OF_HISTORY[kind](model=model, key=lines[-1].id, **told))


_OWN = {"model", "key"}


def _resource(event: RatchetEvent) -> dict[str, str]:
    named = {"prefect.resource.id": f"ratchet.model.{event.model}", "prefect.resource.name": event.model}
    return named | _labels(event)


def _labels(event: RatchetEvent) -> dict[str, str]:
    """Labels that an automation can match: the version, and a verdict's outcome."""
    plain = {name: getattr(event, name, None) for name in ("version", "outcome")}
    return {f"ratchet.{name}": str(value) for name, value in plain.items() if value is not None}
