"""What a history says of questions to people: which one is open, and what was answered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

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
    """When a question that nobody answered counts as refused."""
    return datetime.fromisoformat(str(asked.until))
