"""What a history says of questions to people: which one is open, and what was answered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ratchet.errors import RegistryError
from ratchet.registry.events import Event, EventKind

ANSWERS = frozenset({EventKind.APPROVED, EventKind.REFUSED})


def open_question(history: Iterable[Event], version: int, *, now: datetime | None = None) -> Event | None:
    """The last question about a version, if nobody has answered it and its time is not over."""
    events = [event for event in history if event.version == version]
    asked = next((event for event in reversed(events) if event.kind is EventKind.ASKED), None)
    if asked is None or answer_to(asked, events) is not None or deadline(asked) < (now or datetime.now(UTC)):
        return None
    return asked


def answer_to(asked: Event, history: Iterable[Event]) -> Event | None:
    """The answer that the asking flow run was given."""
    mine = (asked.version, asked.flow_run)
    return next((e for e in history if e.kind in ANSWERS and (e.version, e.flow_run) == mine), None)


def question_of(history: Iterable[Event], version: int, flow_run: str | None) -> Event | None:
    """The question about a version that a flow run asked, answered or not."""
    asked = (event for event in history if event.kind is EventKind.ASKED and event.version == version)
    return next((event for event in asked if flow_run is not None and event.flow_run == flow_run), None)


def deadline(asked: Event) -> datetime:
    """When a question that nobody answered counts as refused. A time of another program that tells none is over."""
    try:
        until = datetime.fromisoformat(str(asked.until))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return until if until.tzinfo is not None else until.replace(tzinfo=UTC)


def in_utc(until: str | None) -> str:
    """A deadline as the history has it. Raises `RegistryError` for what is no time, or has no zone."""
    try:
        moment = datetime.fromisoformat(str(until))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RegistryError(f"until={until!r}: say when the question ends, with a time zone: 2026-12-01T12:00:00+00:00")
    return moment.astimezone(UTC).isoformat()
