"""What can be asked of, and fetched from, a registry that has a history. All is settled first: what changed outside is in it."""

from __future__ import annotations

import logging
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ratchet.errors import ModelNotFoundError, NotAllowedError, RegistryError, VersionNotFoundError
from ratchet.registry.abstract import AbstractModelManager
from ratchet.registry.difference import Look
from ratchet.registry.events import Event, EventKind
from ratchet.registry.files import load_torchscript, verify
from ratchet.registry.fold import Folded, champion_at
from ratchet.registry.ledger import Ledger
from ratchet.registry.placing import UNFINISHED, filling, making, move_into
from ratchet.registry.registration import with_digests
from ratchet.registry.store import Store
from ratchet.registry.values import (
    FILES_TAG,
    SOURCE_TAG,
    BestRun,
    ModelVersion,
    Stage,
    checked_model_name,
    version_number,
)

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)


class RegistryReader(AbstractModelManager):
    """The questions, and the files. They write only to take over or to mend what others left.

    Safe to use from many processes and machines at once. An instance is for one thread.
    """

    def __init__(self, store: Store, who: str | None = None) -> None:
        """`who` is written into the history; None means user@host."""
        self._store = store
        self._ledger = Ledger(store, who)

    def models(self) -> tuple[str, ...]:
        """The names of all registered models, sorted."""
        return self._store.models()

    def get_latest_version(self, model_name: str) -> ModelVersion:
        """The version with the highest number. Raises `ModelNotFoundError`, `VersionNotFoundError`."""
        versions = self.versions(model_name)
        if not versions:
            raise VersionNotFoundError(f"{model_name!r} has no versions: register one first")
        return versions[-1]

    def versions(self, model_name: str) -> tuple[ModelVersion, ...]:
        """All versions, by number. Raises `ModelNotFoundError`."""
        look = self._settle(model_name)
        return tuple(shown(model_name, look, number) for number in sorted(look.observed.versions))

    def version(self, model_name: str, version_or_alias: int | str) -> ModelVersion:
        """One version by number or alias. Raises `ModelNotFoundError`, `VersionNotFoundError`."""
        look = self._settle(model_name)
        return shown(model_name, look, number_of(model_name, look, version_or_alias))

    def champion(self, model_name: str) -> ModelVersion | None:
        """The version in production now; None if there is none, or no such model."""
        try:
            look = self._settle(model_name)
        except ModelNotFoundError:
            return None
        return None if look.state.champion is None else shown(model_name, look, look.state.champion)

    def champions(self, model_name: str) -> tuple[ModelVersion, ...]:
        """Every version that ever was in production, as far as it still exists and is not in quarantine, by number."""
        look = self._settle(model_name)
        once = look.state.reigned & look.state.stages.keys()
        return tuple(shown(model_name, look, v) for v in sorted(filter(None, once)) if v not in look.state.quarantined)

    def replaced_champions(self, model_name: str) -> frozenset[int]:
        """The numbers of the versions whose place in production today's champion took, whoever saw to that: when it came, and
        each time that it came back.

        One that was released since is left out: it may be promoted again.
        """
        look = self._settle(model_name)
        reigns = [version for _, version in look.state.reigns]
        if not reigns or reigns[-1] is None:
            return frozenset()
        before = {*reigns[reigns.index(reigns[-1]) : -1], *reigns[-2:-1]} - {reigns[-1]}

        def released(number: int) -> bool:
            left = max((event.number for event in look.events if event.replaced == number), default=0)
            freed = (e for e in look.events if e.kind is EventKind.RELEASED and e.counts and e.version == number)
            return any(event.number > left for event in freed)

        return frozenset(v for v in before if v is not None and v in look.state.reigned and not released(v))

    def own_history(self, version: ModelVersion) -> tuple[Event, ...]:
        """The events of a version, oldest first, and none of one that had its number before the model was made anew."""
        events = [event for event in self.history(version.model) if event.version == version.version]
        made = max((e.number for e in events if e.kind is EventKind.REGISTERED and e.counts), default=0)
        return tuple(event for event in events if event.number >= made)

    def rollback_target(self, model_name: str) -> ModelVersion | None:
        """The version that a rollback would return to; None if there is nothing to go back to."""
        look = self._settle(model_name)
        target = look.state.rollback_target
        return None if target is None else shown(model_name, look, target)

    def history(self, model_name: str) -> tuple[Event, ...]:
        """Every event, oldest first, also those that came too late to count (`Event.counts`)."""
        return self._settle(model_name).events

    def champion_behind(self, model_name: str, event: Event) -> int | None:
        """The number of the version that was in production behind an event of the history; None if there was none.

        By its place: of events that a clock which was ahead has dated, several have the same time.
        """
        return Folded().with_more(e for e in self.history(model_name) if e.number <= event.number).state.champion

    def champion_at(self, model_name: str, time: datetime) -> int | None:
        """The number of the version that was in production at `time` (aware; it may be deleted by now), or None."""
        if time.tzinfo is None:
            raise RegistryError(f"{time.isoformat()} has no time zone: give one, such as {time.isoformat()}+00:00")
        return champion_at(self._settle(model_name).state, time.astimezone(UTC))

    def quarantined_fingerprints(self, model_name: str) -> frozenset[str]:
        """The fingerprints of versions that were rolled back and not released: training them again is no use."""
        return self._settle(model_name).state.quarantined_fingerprints

    def best_run(
        self,
        experiment_name: str,
        metric: str,
        mode: Literal["min", "max"] = "max",
        *,
        tags: Mapping[str, str] | None = None,
        model_path: str = "deployment_model",
        among: Collection[str] | None = None,
    ) -> BestRun:
        """The finished run, among those with `tags`, whose last value of `metric` is best and whose model is there.

        With `among`, only runs of these ids are looked at.
        Ties go to fewer parameters, then to the earlier start. Raises `ExperimentNotFoundError`, `NoFinishedRunError`
        or `MetricNotLoggedError`, each listing what there is.
        """
        return next(self._candidates(experiment_name, metric, mode, tags, model_path, among))

    @abstractmethod
    def _candidates(
        self,
        experiment_name: str,
        metric: str,
        mode: str,
        tags: Mapping[str, str] | None,
        model_path: str,
        among: Collection[str] | None = None,
    ) -> Iterator[BestRun]:
        """The finished runs that hold a model, best first; raises before the first where there is none, and says why."""

    def download_model(self, model_name: str, version: int | str, output_path: str | Path) -> Path:
        """Copy the files of a version or alias into `output_path`, checked.

        A folder that is there must be empty, but for what a download that was killed has left: that is replaced.
        """
        output = Path(output_path)
        if output.exists():  # it may be a volume, or this process's own folder: it stays, and is filled
            with filling(output), self._fetched(model_name, version, beside=output, prefix=UNFINISHED) as (files, _):
                move_into(output, files)
            return output
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            making(output) as prefix,
            self._fetched(model_name, version, beside=output.parent, prefix=prefix) as (files, _),
        ):
            files.rename(output)
        return output

    def load_model(self, model_name: str, version_or_alias: int | str) -> torch.jit.ScriptModule:
        """The TorchScript module of a version, its files checked against their recorded sha256; nothing is unpickled.

        Raises `ModelFilesError`.
        """
        with self._fetched(model_name, version_or_alias) as (files, what):
            return load_torchscript(files, what)

    @contextmanager
    def _fetched(
        self, model_name: str, version: int | str, *, beside: Path | None = None, prefix: str = ".ratchet-"
    ) -> Iterator[tuple[Path, str]]:
        """A checked copy of a version's files in a temporary directory, and what to call it."""
        look = self._settle(model_name)
        number = number_of(model_name, look, version)
        what = f"{model_name} v{number}"
        holder = Path(tempfile.mkdtemp(prefix=prefix, dir=beside))
        try:
            self._store.fetch(look.observed.versions[number].location, holder / "model")
            try:
                with_digests(self._store, model_name, look, number, files=holder / "model")
            except NotAllowedError as error:  # who may only read
                _logger.warning(
                    "the hashes of %s could not be recorded, so nothing says that it stays: %s", what, error
                )
            recorded = shown(model_name, look, number).digests
            if recorded is not None:
                verify(holder / "model", recorded, what)
            yield holder / "model", what
        finally:
            shutil.rmtree(holder, ignore_errors=True)

    def _with_digests(self, model_name: str, look: Look, number: int) -> Look:
        """What the registry shows once the version's files are hashed, which may have taken a while."""
        if FILES_TAG in look.observed.versions[number].tags:
            return look
        with_digests(self._store, model_name, look, number)
        return self._settle(model_name)

    def _settle(self, model_name: str) -> Look:
        return self._ledger.settle(checked_model_name(model_name))


def shown(model_name: str, look: Look, number: int) -> ModelVersion:
    """The version of that number, as this look saw it."""
    seen, state = look.observed.versions[number], look.state
    return ModelVersion(
        model=model_name,
        version=number,
        stage=state.stages.get(number, Stage.NONE),
        aliases=tuple(sorted(alias for alias, version in look.observed.aliases.items() if version == number)),
        run_id=seen.run_id,
        source=seen.tags.get(SOURCE_TAG, seen.location),
        location=seen.location,
        description=seen.description,
        created=seen.created,
        tags=dict(seen.tags),
        quarantined=number in state.quarantined,
    )


def stage_of(model_name: str, look: Look, number: int) -> Stage:
    """The stage of a version. Raises `NotAllowedError` for one that came from outside and could not be written down."""
    if number not in look.state.stages:
        raise NotAllowedError(f"{model_name} v{number} is not in the history yet, and this user may not write it there")
    return look.state.stages[number]


def number_of(model_name: str, look: Look, version_or_alias: int | str) -> int:
    """The number that a version or alias means; a number is a version, whatever alias looks like one.

    Raises `VersionNotFoundError`.
    """
    text = str(version_or_alias)
    if not text.isdecimal() and text in look.observed.aliases:
        return look.observed.aliases[text]
    there = sorted(look.observed.versions)
    try:
        number = version_number(version_or_alias)
    except VersionNotFoundError:
        number = 0
    if number not in there:
        listed = ", ".join(map(str, there[-20:])) or "none"
        raise VersionNotFoundError(
            f"{model_name!r} has no version {version_or_alias!r}: versions are {listed}; "
            f"aliases are {', '.join(sorted(look.observed.aliases)) or 'none'}"
        )
    return number
