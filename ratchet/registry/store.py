"""What a back end must be able to do so that a history can be kept on it: the seam between the rules and the files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ratchet.registry.events import Event
from ratchet.registry.values import Stage


@dataclass(frozen=True)
class Found:
    """A version as the back end shows it. `stage` is None on a back end without stages; `created` is in UTC."""

    version: int
    stage: Stage | None
    run_id: str | None
    location: str
    description: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def created_ms(self) -> int:
        """`created` in milliseconds since 1970."""
        return round(self.created.timestamp() * 1000)


@dataclass(frozen=True)
class Observed:
    """A model as the back end shows it: what the history is projected onto."""

    description: str
    aliases: Mapping[str, int]
    versions: Mapping[int, Found]


@dataclass(frozen=True)
class Notes:
    """What writers tell each other: `projected` is the event up to which the history was projected at least once,
    `staged` the same of the stages (None: as that), `intents` are the writers that are at it, with the time
    (UTC) they began."""

    projected: int = 0
    intents: Mapping[str, datetime] = field(default_factory=dict)
    staged: int | None = None

    @property
    def stages(self) -> int:
        """Up to which event the stages were projected."""
        return self.projected if self.staged is None else self.staged


@dataclass(frozen=True)
class Source:
    """A model directory that can be registered. `identity` is equal for two registrations of the same model."""

    location: str
    identity: str
    run_id: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Kept:
    """Model files in the registry's own keeping; `handle` is the back end's own name for the copy."""

    location: str
    digests: Mapping[str, str]
    handle: str


class Store(ABC):
    """The primitives of one back end. Each translates the back end's errors into ours.

    `append` is the only one that must be atomic and totally ordered: an event gets the next number, and whoever can
    read number n can read every number below n. `set_alias` must be one step for readers.
    """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, without a password."""

    @abstractmethod
    def log(self, model: str, since: int) -> list[Event]:
        """The events numbered `since` and above, in order."""

    @abstractmethod
    def append(self, model: str, event: Event) -> None:
        """Write one event. If this raises `ServerUnreachableError`, the event may have been written all the same."""

    @abstractmethod
    def notes(self, model: str) -> Notes:
        """The writers' notes."""

    @abstractmethod
    def open_intent(self, model: str, token: str) -> None:
        """Tell that the writer `token` is about to write the projection."""

    @abstractmethod
    def close_intent(self, model: str, token: str) -> None:
        """Take the intent back."""

    @abstractmethod
    def mark_projected(self, model: str, head: int) -> None:
        """Note that the history was projected up to event `head`."""

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """The names of all registered models, sorted."""

    @abstractmethod
    def observe(self, model: str) -> Observed | None:
        """The model as it stands, or None if there is none of that name."""

    @abstractmethod
    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias at a version, in one step."""

    @abstractmethod
    def drop_alias(self, model: str, alias: str) -> None:
        """Remove an alias; none of that name is fine."""

    @abstractmethod
    def set_stage(self, model: str, version: int, stage: Stage) -> None:
        """Write a version's stage; a version that is gone is fine."""

    @abstractmethod
    def set_description(self, model: str, text: str) -> None:
        """Write the model's description."""

    @abstractmethod
    def resolve(self, location: str) -> Source:
        """The model directory that `location` means. Raises `ModelFilesError` if there is no model."""

    @abstractmethod
    def keep(self, model: str, source: Source) -> Kept:
        """Copy the files of `source` to where no cleaning of runs reaches, and hash them on the way."""

    @abstractmethod
    def discard(self, location: str) -> None:
        """Give up the files at `location`, if the registry keeps them itself."""

    @abstractmethod
    def create_version(
        self, model: str, kept: Kept, source: Source, *, description: str, tags: Mapping[str, str]
    ) -> int:
        """Make the next version, and the model where it is the first. Numbers are never used twice."""

    @abstractmethod
    def update_version(self, model: str, version: int, *, description: str | None, tags: Mapping[str, str]) -> None:
        """Write a version's description (None leaves it) and tags."""

    @abstractmethod
    def delete_version(self, model: str, version: int) -> None:
        """Remove a version and the aliases on it; one that is gone is fine."""

    @abstractmethod
    def is_shared(self, model: str, seen: Found) -> bool:
        """Whether another version, of whatever model, has its files where this one has them."""

    def remove_version(self, model: str, seen: Found) -> None:
        """Remove a version and the files that the registry keeps for it; what is gone already is fine.

        The version goes last: it leads back to the files, should this be interrupted.
        """
        if not self.is_shared(model, seen):
            self.discard(seen.location)
        self.delete_version(model, seen.version)

    @abstractmethod
    def fetch(self, location: str, into: Path) -> None:
        """Copy the files at `location` into the new directory `into`. Raises `ModelFilesError` if there are none."""

    @abstractmethod
    def lighten(self, run_id: str, paths: Sequence[str], *, going: tuple[str, int]) -> bool:
        """Remove artifacts of a run, unless a version of whatever model has its files there: then it returns False.

        `going` is the version, as model and number, that does not count. What is not there is fine; metrics and parameters
        stay.
        """

    @abstractmethod
    def beside(self, run_id: str, *, going: Collection[tuple[str, int]]) -> frozenset[str] | None:
        """The runs that were trained beside this one in a sweep, and that nothing needs without the versions `going`.

        None: one of its sweeps is at work.
        """
