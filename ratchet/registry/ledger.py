"""Keeps one back end and the histories on it in agreement: reads, appends, takes over, projects and mends.

The protocol, and why it is safe, is written down in docs/registry.md; the comments here name its steps.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import time as clock
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ratchet.errors import ModelNotFoundError, NotAllowedError, RegistryError, ServerUnreachableError
from ratchet.registry.difference import ALIASES, Look, difference_of, undisturbed
from ratchet.registry.events import LONGEST_TEXT, Event, EventKind
from ratchet.registry.fold import Folded, State
from ratchet.registry.rendering import render
from ratchet.registry.store import Found, Notes, Observed, Store
from ratchet.registry.values import AUTHOR_TAG, Stage
from ratchet.run_names import FINGERPRINT_TAG

_logger = logging.getLogger(__name__)

_NAMESPACE = uuid.UUID("5f0f5f1c-3c35-4c2e-9a51-7a7c3b1d2f60")
_DEAD_AFTER = timedelta(minutes=10)  # a writer that began so long ago was killed: a projection takes a second
_ATTEMPTS = 5
_UNTIL_SHOWN = (0.0, 0.1, 0.3, 1.0, 3.0)  # seconds between looks: a server may read from a replica that is behind
_ROUNDS = 100  # of looking again while others write; each ends with the log having moved on


# What a ledger of this process has read last, by place and model, for another to begin with: a long history takes seconds.
_READ: dict[tuple[str, str], Folded] = {}


def event_id(*parts: object) -> str:
    """The same id for the same parts, so that an event written again can be known."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))))


def author() -> str:
    """Who writes: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose uid has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


class Ledger:
    """The histories on one `Store`."""

    def __init__(self, store: Store, who: str | None = None) -> None:
        """`who` is written into every event; None means user@host."""
        self.store = store
        self.who = who or author()
        self._cache: dict[str, Folded] = {}

    def read(self, model: str) -> tuple[State, tuple[Event, ...]]:
        """The log as it is now, folded. Only what is new since the last reading is fetched, and folded."""
        place = self.store.place, model
        known = self._cache.get(model) or _READ.get(place, Folded())
        last = known.events[-1] if known.events else None
        fresh = self.store.log(model, 0 if last is None else last.number)
        if last is not None:
            if fresh and (fresh[0].number, fresh[0].id) == (last.number, last.id):
                fresh = fresh[1:]
            else:  # the log was removed and begun anew
                known, fresh = Folded(), self.store.log(model, 0)
        self._cache[model] = _READ[place] = now = known.with_more(fresh) if fresh else known
        return now.state, now.events

    def event(self, kind: EventKind, version: int, **fields: object) -> Event:
        """A new event by this author; its id is random unless given."""
        fields.setdefault("id", str(uuid.uuid4()))
        return Event(kind=kind, version=version, who=self.who, **fields)  # type: ignore[arg-type]

    def foresee(self, model: str, event: Event) -> tuple[State, Event]:
        """What would become of an event that is written right behind what was read last."""
        known = self._cache.get(model, Folded())
        following = known.with_more([replace(event, number=known.events[-1].number + 1 if known.events else 1)])
        return following.state, following.events[-1]

    def append(self, model: str, event: Event) -> tuple[State, Event]:
        """Write an event once, whatever the connection does, and return what became of it.

        A write that raised may have happened, so the log is searched for the event's id before it is tried again.
        """
        for attempt in range(_ATTEMPTS):
            try:
                if attempt and self._find(model, event) is not None:
                    break
                self.store.append(model, event)
                break
            except ServerUnreachableError as error:
                if attempt == _ATTEMPTS - 1:
                    raise ServerUnreachableError(
                        f"whether the event {event.kind} of v{event.version} is in the history of {model!r} is not known. "
                        f"See `ratchet history {model}` before you repeat it: {error}"
                    ) from error
                clock.sleep(0.2 * 2**attempt)
        with written_down(model, event):
            for seconds in _UNTIL_SHOWN:
                clock.sleep(seconds)
                found = self._find(model, event)
                if found is not None:
                    return found
        raise RegistryError(
            f"the event {event.kind} of v{event.version} was written, but the history of {model!r} does not show it. See "
            f"`ratchet history {model}` before you repeat it"
        )

    def _find(self, model: str, event: Event) -> tuple[State, Event] | None:
        """The event as the log has it, and what it amounts to with it."""
        state, events = self.read(model)
        return next(((state, written) for written in events if written.id == event.id), None)

    def look(self, model: str) -> Look | None:
        """Read everything once. The order log, notes, projection is what lets `settle` tell a change made by hand
        from a projection under way (docs/registry.md)."""
        state, events = self.read(model)
        notes = self.store.notes(model)
        observed = self.store.observe(model)
        return None if observed is None else Look(events, state, notes, observed)

    def settle(self, model: str) -> Look:
        """Bring log and projection together: take over what changed outside, mend what was left half-done.

        Where the server lets this user only read, what was seen is the answer: the log is the truth. Raises
        `ModelNotFoundError` if there is no such model.
        """
        for _ in range(_ROUNDS):
            look = self.look(model)
            if look is None:
                raise ModelNotFoundError(f"no registered model {model!r} at {self.store.place}: {self._known_models()}")
            try:
                if self._mend(model, look):
                    return look
            except NotAllowedError as error:
                _logger.warning("%s is not as its history says, and this user may not mend it: %s", model, error)
                return look
        raise RegistryError(f"{model!r} was changed by others {_ROUNDS} times while it was read: try again")

    def _mend(self, model: str, look: Look) -> bool:
        """Take a step towards agreement; True if there was none to take."""
        if self._take_over_versions(model, look):
            return False
        difference = difference_of(look)
        if difference is None:
            self._bury(model, look.notes)
            if min(look.notes.projected, look.notes.stages) < look.state.moved_at:
                self.store.mark_projected(model, look.state.head)
            return True
        if difference.by_hand and undisturbed(look.notes, look.state):
            _, written = self.append(model, self._changed_outside(look.state, difference.moves))
            if not written.counts:
                return False  # somebody wrote meanwhile: whether this is still a change by hand, another look tells
        self.project(model)
        return False

    def _changed_outside(self, state: State, moves: tuple[tuple[int, Stage], ...]) -> Event:
        about = moves[-1][0] if moves else state.champion or state.staging or 0
        return self.event(EventKind.CHANGED_OUTSIDE, about, moves=moves, outside=True, follows=state.head)

    def _bury(self, model: str, notes: Notes) -> None:
        """Remove the intents of the dead. Until log and projection agree they stay: one of theirs may have written last."""
        for token, since in notes.intents.items():
            if datetime.now(UTC) - since >= _DEAD_AFTER:
                self.store.close_intent(model, token)

    def _known_models(self) -> str:
        names = self.store.models()
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")  # noqa: PLR2004
        return f"there are {shown}" if names else "there are none yet"

    def _take_over_versions(self, model: str, look: Look) -> bool:
        """Write down versions that came or went without an event. True if anything was done."""
        state, found, changed = look.state, look.observed.versions, False
        for version in sorted(state.stages):
            made = state.created.get(version)
            if version not in found or (made is not None and found[version].created_ms != made):
                gone = event_id("deleted outside", model, version, made)
                self.append(model, self.event(EventKind.DELETED, version, id=gone, outside=True, created=made))
                changed = True
        for version, seen in sorted(found.items()):
            if version in state.deleted and state.deleted[version] == seen.created_ms:
                changed |= self._finish_deletion(model, seen)
            elif version not in state.stages:
                self.append(model, self.registered(model, seen))
                changed = True
        return changed

    def _finish_deletion(self, model: str, seen: Found) -> bool:
        """Remove what its author, who died or is at it, has said to remove; what cannot be removed holds up nothing else.

        Files that this user may not remove keep their version, which leads to them: then it is False.
        """
        try:
            self.store.remove_version(model, seen)
        except NotAllowedError as error:
            _logger.warning(
                "%s v%d is deleted, and stays until a user comes who may remove it: %s", model, seen.version, error
            )
            return False
        except Exception as error:  # noqa: BLE001 - each store has its own
            _logger.warning("the files of %s v%d stay at %s: %s", model, seen.version, seen.location, error)
            self.store.delete_version(model, seen.version)
        return True

    def registered(self, model: str, seen: Found) -> Event:
        """The event that a version came to be. It follows from the version alone, so that it is the same one whoever
        writes it, its author or who comes after a crash, and counts once."""
        ours = AUTHOR_TAG in seen.tags
        event = self.event(
            EventKind.REGISTERED,
            seen.version,
            id=event_id("registered", model, seen.version, seen.created_ms),
            reason=seen.description[:LONGEST_TEXT] if ours else "",
            outside=not ours,
            fingerprint=seen.tags.get(FINGERPRINT_TAG),
            run_id=seen.run_id,
            created=seen.created_ms,
            to_stage=Stage.ARCHIVED if seen.stage is Stage.ARCHIVED else None,
        )
        return replace(event, who=seen.tags[AUTHOR_TAG]) if ours else event

    def project(self, model: str) -> None:
        """Write aliases, stages and description as the log has them, and again until the log stands still.

        The intent is opened before the log is read: whoever finds no intent knows that no writer is at it with an older
        reading.
        """
        token = str(uuid.uuid4())
        self.store.open_intent(model, token)
        try:
            for _ in range(_ROUNDS):
                state, events = self.read(model)
                observed = self.store.observe(model)
                if observed is None:
                    return
                self._write(model, state, events, observed)
                self.store.mark_projected(model, state.head)
                if self.read(model)[0].head == state.head:
                    return
            raise RegistryError(f"the history of {model!r} does not come to rest: too many writers at once")
        finally:
            self.store.close_intent(model, token)

    def _write(self, model: str, state: State, events: tuple[Event, ...], observed: Observed) -> None:
        """The one place that writes aliases and stages. Production's alias is set first, and removed only where nobody is."""
        holders = {ALIASES[Stage.PRODUCTION]: state.champion, ALIASES[Stage.STAGING]: state.staging}
        for alias, holder in holders.items():
            if holder is not None and holder in observed.versions and observed.aliases.get(alias) != holder:
                self.store.set_alias(model, alias, holder)
        for version, seen in observed.versions.items():
            due = state.stages.get(version)
            if due is not None and seen.stage is not None and seen.stage is not due:
                self.store.set_stage(model, version, due)
        text = render(observed.description, state, events)
        if text != observed.description:
            self.store.set_description(model, text)
        for alias, holder in holders.items():  # last: a server may let one set an alias and not remove it
            # Not where somebody has come since the log was read: its event was there before its alias.
            if holder is None and alias in observed.aliases and self.read(model)[0].head == state.head:
                self.store.drop_alias(model, alias)


@contextmanager
def written_down(model: str, event: Event) -> Iterator[None]:
    """Say of a server that goes away or refuses behind an event that the event is there: repeating it goes a step further."""
    try:
        yield
    except (ServerUnreachableError, NotAllowedError) as error:
        raise type(error)(
            f"the event {event.kind} of v{event.version} is in the history of {model!r}, and the next operation does what "
            f"follows from it. See `ratchet history {model}` before you repeat it: {error}"
        ) from error
