"""What a history amounts to: folds the log, in order, into who is champion, and says which events count.

Everyone who folds the same log gets the same answer, so the log decides and nobody needs a lock: an event whose
conditions do not hold at its place is void.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from ratchet.registry.events import Event, EventKind, Void
from ratchet.registry.values import Stage


@dataclass(frozen=True)
class State:
    """The registry as the history tells it, after the event numbered `head`.

    `stages` holds every version that is not deleted, `created` when each was made, in milliseconds since 1970;
    `deleted` holds the same of those that are gone. `previous` are the champions before this one, oldest first.
    `reigns` lists (since, champion); `reigned` are the versions that were champion, but for those whose number is another's
    now. `moved_at` is the last event that changed a stage.
    """

    head: int
    moved_at: int
    stages: Mapping[int, Stage]
    created: Mapping[int, int | None]
    deleted: Mapping[int, int | None]
    champion: int | None
    staging: int | None
    previous: tuple[int, ...]
    quarantined: frozenset[int]
    quarantined_fingerprints: frozenset[str]
    reigns: tuple[tuple[datetime, int | None], ...]
    reigned: frozenset[int]

    @property
    def rollback_target(self) -> int | None:
        """The version that a rollback returns to: the last champion before this one that can still serve."""
        return next(iter(self.rollback_targets), None)

    @property
    def rollback_targets(self) -> tuple[int, ...]:
        """The versions that rollbacks would go through, the next one first."""
        return tuple(dict.fromkeys(_fit(self.previous, self.champion, self.stages, self.quarantined)))


def _fit(
    previous: Sequence[int], champion: int | None, stages: Container[int], quarantined: Container[int]
) -> Iterator[int]:
    """The former champions that can still serve, the last one first."""
    for version in reversed(previous):
        if version in stages and version not in quarantined and version != champion:
            yield version


@dataclass
class _Fold:
    """The state while events are laid upon each other."""

    stages: dict[int, Stage] = field(default_factory=dict)
    created: dict[int, int | None] = field(default_factory=dict)
    deleted: dict[int, int | None] = field(default_factory=dict)
    champion: int | None = None
    staging: int | None = None
    previous: list[int] = field(default_factory=list)
    quarantined: dict[int, str | None] = field(default_factory=dict)
    reigns: list[tuple[datetime, int | None]] = field(default_factory=list)
    reigned: set[int] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    head: int = 0
    number: int = 0
    moved_at: int = 0
    clock: datetime | None = None

    @property
    def target(self) -> int | None:
        return next(_fit(self.previous, self.champion, self.stages, self.quarantined), None)

    def copy(self) -> _Fold:
        """One that more can be laid upon without a change of this."""
        return _Fold(**{name: copy(value) for name, value in vars(self).items()})

    def lay(self, event: Event) -> Event:
        """The event with its outcome. Its time never runs behind that of the event before it."""
        self.clock = event.time if self.clock is None else max(self.clock, event.time)
        event = replace(event, time=self.clock, from_stage=self.stages.get(event.version))
        champion, self.number = self.champion, event.number
        # A registration may be written again, after its number was given to a version made anew: its rule sees to it.
        twice = event.id in self.seen and event.kind is not EventKind.REGISTERED
        void = Void.WRITTEN_TWICE if twice else _RULES[event.kind](self, event)
        self.seen.add(event.id)
        self.head = event.number
        if self.champion != champion:
            self.reigns.append((self.clock, self.champion))
            if self.champion is not None:
                self.reigned.add(self.champion)
        return replace(event, void=void, replaced=champion if self.champion != champion else None)

    def crown(self, version: int) -> None:
        """Put a version in production and archive the one that was there."""
        if self.champion is not None:
            self.stages[self.champion] = Stage.ARCHIVED
            self.previous.append(self.champion)
        if self.staging == version:
            self.staging = None
        self.champion = version
        self.stages[version] = Stage.PRODUCTION
        self.moved_at = self.number

    def stage(self, version: int) -> None:
        """Put a version in staging and archive the one that was there."""
        if self.staging is not None:
            self.stages[self.staging] = Stage.ARCHIVED
        self.staging = version
        self.stages[version] = Stage.STAGING
        self.moved_at = self.number

    def retire(self, version: int, stage: Stage) -> None:
        """Take a version that is not the champion to none or archived."""
        if self.staging == version:
            self.staging = None
        self.stages[version] = stage
        self.moved_at = self.number

    def is_quarantined(self, event: Event) -> bool:
        return event.version in self.quarantined or (
            event.fingerprint is not None and event.fingerprint in self.quarantined.values()
        )

    def frozen(self) -> State:
        return State(
            head=self.head,
            moved_at=self.moved_at,
            stages=dict(self.stages),
            created=dict(self.created),
            deleted=dict(self.deleted),
            champion=self.champion,
            staging=self.staging,
            previous=tuple(self.previous),
            quarantined=frozenset(self.quarantined),
            quarantined_fingerprints=frozenset(mark for mark in self.quarantined.values() if mark is not None),
            reigns=tuple(self.reigns),
            reigned=frozenset(self.reigned),
        )


def _registered(fold: _Fold, event: Event) -> Void | None:
    if event.version in fold.stages or (event.version in fold.deleted and fold.deleted[event.version] == event.created):
        return Void.NOTHING_TO_DO
    if event.version in fold.deleted:  # the number is given again: what the version before it did is not this one's
        del fold.deleted[event.version]
        fold.previous = [version for version in fold.previous if version != event.version]
        fold.quarantined.pop(event.version, None)
        fold.reigned.discard(event.version)
    fold.created[event.version] = event.created
    fold.stages[event.version] = event.to_stage if event.to_stage is Stage.ARCHIVED else Stage.NONE
    return None


def _noted(fold: _Fold, event: Event) -> Void | None:
    return None if event.version in fold.stages or event.version in fold.deleted else Void.NO_SUCH_VERSION


def _advanced(fold: _Fold, event: Event) -> Void | None:
    """The conditions that staging and production share."""
    if event.version not in fold.stages:
        return Void.NO_SUCH_VERSION
    if event.version == (fold.champion if event.kind is EventKind.PROMOTED else fold.staging):
        return Void.NOTHING_TO_DO
    if event.expects and event.expected != fold.champion:
        return Void.CHAMPION_MOVED
    if event.version == fold.champion:
        return Void.PROTECTED
    return Void.QUARANTINED if fold.is_quarantined(event) else None


def _promoted(fold: _Fold, event: Event) -> Void | None:
    void = _advanced(fold, event)
    if void is None:
        fold.crown(event.version)
    return void


def _staged(fold: _Fold, event: Event) -> Void | None:
    void = _advanced(fold, event)
    if void is None:
        fold.stage(event.version)
    return void


def _retired(fold: _Fold, event: Event) -> Void | None:
    stage = Stage.ARCHIVED if event.kind is EventKind.ARCHIVED else Stage.NONE
    if event.version not in fold.stages:
        return Void.NO_SUCH_VERSION
    if event.version == fold.champion:
        return Void.PROTECTED
    if fold.stages[event.version] is stage:
        return Void.NOTHING_TO_DO
    fold.retire(event.version, stage)
    return None


def _rolled_back(fold: _Fold, event: Event) -> Void | None:
    if event.version != fold.champion or event.target is None or event.target != fold.target:
        return Void.CHAMPION_MOVED
    while fold.previous.pop() != event.target:
        pass
    fold.quarantined[event.version] = event.fingerprint
    fold.crown(event.target)
    fold.previous.pop()  # the version that was left is not one to go back to
    return None


def _released(fold: _Fold, event: Event) -> Void | None:
    same = event.fingerprint
    freed = [v for v, mark in fold.quarantined.items() if v == event.version or (same is not None and mark == same)]
    for version in freed:
        del fold.quarantined[version]
    return None if freed else Void.NOTHING_TO_DO


def _deleted(fold: _Fold, event: Event) -> Void | None:
    if event.version not in fold.stages:
        return Void.NOTHING_TO_DO if event.version in fold.deleted else Void.NO_SUCH_VERSION
    if event.version in {fold.champion, fold.target} and not (event.forced or event.outside):
        return Void.PROTECTED
    del fold.stages[event.version]
    fold.deleted[event.version] = fold.created.pop(event.version)
    if not event.outside:  # else its aliases went along with it, and nothing is left to project
        fold.moved_at = fold.number
    if fold.champion == event.version:
        fold.champion = None
    if fold.staging == event.version:
        fold.staging = None
    return None


def _changed_outside(fold: _Fold, event: Event) -> Void | None:
    if event.follows != fold.head or any(version not in fold.stages for version, _ in event.moves):
        return Void.OVERTAKEN
    for version, stage in event.moves:
        if stage is Stage.PRODUCTION and version != fold.champion:
            fold.quarantined.pop(version, None)  # a person put it there, knowing more than the quarantine
            fold.crown(version)
        elif stage is Stage.STAGING and version not in {fold.champion, fold.staging}:
            fold.stage(version)
        elif stage in {Stage.NONE, Stage.ARCHIVED} and version != fold.champion:
            fold.retire(version, stage)
    return None


_RULES: dict[EventKind, Callable[[_Fold, Event], Void | None]] = {
    EventKind.REGISTERED: _registered,
    EventKind.GATED: _noted,
    EventKind.NOTED: _noted,
    EventKind.ASKED: _noted,
    EventKind.APPROVED: _noted,
    EventKind.REFUSED: _noted,
    EventKind.STAGED: _staged,
    EventKind.PROMOTED: _promoted,
    EventKind.ARCHIVED: _retired,
    EventKind.WITHDRAWN: _retired,
    EventKind.ROLLED_BACK: _rolled_back,
    EventKind.RELEASED: _released,
    EventKind.DELETED: _deleted,
    EventKind.CHANGED_OUTSIDE: _changed_outside,
}


@dataclass(frozen=True)
class Folded:
    """A log as far as it was read: its events with what became of each. More can be laid upon it, which changes nothing here."""

    events: tuple[Event, ...] = ()
    _fold: _Fold = field(default_factory=_Fold)

    @cached_property
    def state(self) -> State:
        """What the events amount to."""
        return self._fold.frozen()

    def with_more(self, events: Iterable[Event]) -> Folded:
        """The log with those events behind it."""
        laid = self._fold.copy()
        return Folded((*self.events, *(laid.lay(event) for event in events)), laid)


def champion_at(state: State, time: datetime) -> int | None:
    """The version that was in production at that time (UTC); None before the first, or while there was none."""
    champion = None
    for since, version in state.reigns:
        if since > time:
            break
        champion = version
    return champion
