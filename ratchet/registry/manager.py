"""The operations on a registry that has a history: what to write down, and what to tell who came too late."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal

from ratchet.errors import ModelFilesError, NoFinishedRunError, NothingToRollBackError, RegistryError
from ratchet.registry.events import Event, EventKind
from ratchet.registry.ledger import event_id, written_down
from ratchet.registry.questions import in_utc
from ratchet.registry.reading import RegistryReader, number_of, shown, stage_of
from ratchet.registry.refusal import refuse
from ratchet.registry.registration import register
from ratchet.registry.removal import remove
from ratchet.registry.retention import PrunePlan, plan
from ratchet.registry.values import VERDICT_TAG, ModelVersion, Stage, checked_model_name
from ratchet.run_names import FINGERPRINT_TAG, SELECTED_TAG


class Unset(Enum):
    """Tells *not given* from None, which is a champion that does not exist."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

_RECORDED = {EventKind.GATED, EventKind.NOTED, EventKind.ASKED, EventKind.APPROVED, EventKind.REFUSED}


class LedgerModelManager(RegistryReader):
    """A model manager on any `Store`: everything but the selection of a run, which is the back end's own.

    Safe to use from many processes and machines at once. An instance is for one thread.
    """

    def register_model(
        self,
        model_location: str,
        model_name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """Make a new version from a model directory, as `AbstractModelManager` says."""
        number = register(self._ledger, checked_model_name(model_name), str(model_location), description, tags or {})
        return self.version(model_name, number)

    def register_best_model(
        self,
        experiment_name: str,
        metric: str,
        model_name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        mode: Literal["min", "max"] = "max",
        model_path: str = "deployment_model",
        *,
        run_tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """Register the model of the best run; one whose files cannot be read gives way to the next best."""
        ranked = self._candidates(experiment_name, metric, mode, run_tags, model_path)
        checked_model_name(model_name)
        troubles: list[str] = []
        try:
            for best in ranked:
                try:
                    marked = {SELECTED_TAG: best.selected_by, **(tags or {})}
                    return self.register_model(best.model_location, model_name, description, marked)
                except ModelFilesError as error:
                    troubles.append(str(error))
        except NoFinishedRunError as error:
            raise NoFinishedRunError("; ".join([str(error), *troubles[:5]])) from error
        raise NoFinishedRunError("; ".join(["there is no run whose model could be registered", *troubles[:5]]))

    def promote(
        self,
        model_name: str,
        version: int | str,
        to: str = "production",
        *,
        expected_champion: int | Unset | None = UNSET,
        reason: str = "",
        verdict_digest: str | None = None,
        run_id: str | None = None,
        flow_run: str | None = None,
    ) -> ModelVersion:
        """Move a version to staging or production, if the champion still is `expected_champion` (None: there is none).

        Promoting to where the version is, or to staging what is in production, changes nothing. Raises
        `ChampionMovedError`, `QuarantinedError`, `VersionNotFoundError`; then nothing has changed.
        """
        stage = Stage.parse(to)
        if stage not in {Stage.STAGING, Stage.PRODUCTION}:
            raise RegistryError(f"promote goes to staging or production, not {to!r}: use transition_model for that")
        look = self._settle(model_name)
        number = number_of(model_name, look, version)
        if number == look.state.champion or stage_of(model_name, look, number) is stage:
            return shown(model_name, look, number)
        look = self._with_digests(model_name, look, number)
        return self._move(
            model_name,
            EventKind.PROMOTED if stage is Stage.PRODUCTION else EventKind.STAGED,
            number,
            expects=expected_champion is not UNSET,
            expected=None if isinstance(expected_champion, Unset) else expected_champion,
            fingerprint=look.observed.versions[number].tags.get(FINGERPRINT_TAG),
            reason=reason,
            verdict_digest=verdict_digest,
            run_id=run_id,
            flow_run=flow_run,
        )

    def transition_model(
        self, model_name: str, version: int | str, stage: str, description: str | None = None
    ) -> ModelVersion:
        """Move a version to any stage, whoever is there now; `description` is the reason that the history keeps."""
        to, look = Stage.parse(stage), self._settle(model_name)
        number = number_of(model_name, look, version)
        if stage_of(model_name, look, number) is to:
            return shown(model_name, look, number)
        kinds = {
            Stage.PRODUCTION: EventKind.PROMOTED,
            Stage.STAGING: EventKind.STAGED,
            Stage.ARCHIVED: EventKind.ARCHIVED,
            Stage.NONE: EventKind.WITHDRAWN,
        }
        if to in {Stage.PRODUCTION, Stage.STAGING}:
            look = self._with_digests(model_name, look, number)
        mark = look.observed.versions[number].tags.get(FINGERPRINT_TAG)
        return self._move(model_name, kinds[to], number, reason=description or "", fingerprint=mark)

    def rollback(self, model_name: str, reason: str = "", *, flow_run: str | None = None) -> ModelVersion:
        """Return production to the version before, and quarantine the one that is left.

        The version to return to is loaded first. Raises `NothingToRollBackError`, `ModelFilesError` if it does not
        load, `ChampionMovedError` if production changed meanwhile; then nothing has changed.
        """
        look = self._settle(model_name)
        left, target = look.state.champion, look.state.rollback_target
        if left is None:
            put = (
                ""
                if target is None
                else f": ratchet promote {model_name} {target} puts back the one that was there last"
            )
            raise NothingToRollBackError(f"{model_name!r} has no version in production to roll back from{put}")
        if target is None:
            raise NothingToRollBackError(
                f"{model_name!r} cannot be rolled back from v{left}: no version that can still serve was in production "
                "before it"
            )
        self.load_model(model_name, target)
        mark = look.observed.versions[left].tags.get(FINGERPRINT_TAG)
        self._settle(model_name)  # production may have been changed by hand while that was loaded
        return self._move(
            model_name,
            EventKind.ROLLED_BACK,
            left,
            shown=target,
            target=target,
            reason=reason,
            fingerprint=mark,
            flow_run=flow_run,
        )

    def release(self, model_name: str, version: int | str, reason: str = "") -> ModelVersion:
        """Lift the quarantine of a version and of those with the same fingerprint: they may be promoted again.

        What was rolled back may be deleted by now; any version of the same training stands for it.
        """
        look = self._settle(model_name)
        number = number_of(model_name, look, version)
        mark = look.observed.versions[number].tags.get(FINGERPRINT_TAG)
        if number not in look.state.quarantined and mark not in look.state.quarantined_fingerprints:
            return shown(model_name, look, number)
        return self._move(model_name, EventKind.RELEASED, number, reason=reason, fingerprint=mark)

    def record(
        self,
        model_name: str,
        kind: str,
        *,
        version: int | str,
        reason: str = "",
        key: str | None = None,
        outcome: str | None = None,
        verdict_digest: str | None = None,
        gate_set: str | None = None,
        anchor: int | None = None,
        run_id: str | None = None,
        flow_run: str | None = None,
        until: str | None = None,
    ) -> Event:
        """Write down what moves nothing.

        That is: *gated* (with `outcome` promote, reject or inconclusive), *asked* (with `until`), *approved*, *refused*, *noted*.

        The same `key` (default: the kind, the version and the verdict's digest) is written down once. The digest of a
        *gated* verdict becomes the version's tag `ratchet.verdict` too.
        """
        wanted = EventKind(kind)
        if wanted not in _RECORDED:
            raise RegistryError(
                f"{kind!r} events are written by the operation itself: record takes {', '.join(sorted(_RECORDED))}"
            )
        if wanted is EventKind.ASKED:
            until = in_utc(until)
        look = self._settle(model_name)
        number = number_of(model_name, look, version)
        made = look.observed.versions[number].created_ms
        if wanted is EventKind.GATED and verdict_digest is not None:
            self._store.update_version(model_name, number, description=None, tags={VERDICT_TAG: verdict_digest})
        known = event_id(kind, model_name, number, made, key or verdict_digest or reason)
        for event in look.events:
            if event.id == known:
                return event
        event = self._ledger.event(
            wanted,
            number,
            id=known,
            reason=reason,
            outcome=outcome,
            verdict_digest=verdict_digest,
            gate_set=gate_set,
            anchor=anchor,
            fingerprint=look.observed.versions[number].tags.get(FINGERPRINT_TAG),
            run_id=run_id,
            flow_run=flow_run,
            until=until,
        )
        _, written = self._ledger.append(model_name, event)
        self._ledger.project(model_name)
        return written

    def delete_model(
        self, model_name: str, version: int | str, description: str | None = None, *, force: bool = False
    ) -> None:
        """Delete a version and the files that the registry kept for it; `description` is the reason.

        With `force` also the champion, which leaves production empty, or the rollback target.
        """
        look = self._settle(model_name)
        number = number_of(model_name, look, version)
        seen = look.observed.versions[number]
        reason = description or ""
        event = self._ledger.event(EventKind.DELETED, number, reason=reason, forced=force, created=seen.created_ms)
        self._write(model_name, event)
        with written_down(model_name, event):
            self._ledger.project(model_name)
            self._store.remove_version(model_name, seen)

    def prune(
        self,
        model_name: str,
        *,
        keep: int = 10,
        rollbacks: int = 5,
        dry_run: bool = False,
    ) -> PrunePlan:
        """Delete archived, rejected and inconclusive versions beyond the newest `keep`, and the heavy artifacts of their runs.

        Those of trials beside them in their sweeps go too (`ratchet.registry.sweeps`). What stays whatever its age: see
        `ratchet.registry.retention.plan`. With `dry_run` nothing is touched. Returns what went, or would go.
        """
        if keep < 0 or rollbacks < 1:
            raise RegistryError(f"keep must be 0 or more and rollbacks 1 or more, not {keep} and {rollbacks}")

        def look() -> tuple[PrunePlan, dict[int, str | None]]:
            versions = self.versions(model_name)
            state, events = self._ledger.read(model_name)
            planned = plan(versions, state, events, keep=keep, rollbacks=rollbacks)
            return planned, {version.version: version.run_id for version in versions}

        def delete(version: int) -> None:
            self.delete_model(model_name, version, f"pruned: beyond the newest {keep}")

        return remove(model_name, look, self._store, delete, dry_run=dry_run)

    def _move(
        self, model_name: str, kind: EventKind, version: int, *, shown: int | None = None, **fields: object
    ) -> ModelVersion:
        event = self._ledger.event(kind, version, **fields)
        self._write(model_name, event)
        with written_down(model_name, event):
            self._ledger.project(model_name)
            return self.version(model_name, shown or version)

    def _write(self, model_name: str, event: Event) -> None:
        """Write an event that moves something, or raise what its author must be told.

        An event that could not count now is not written at all; whether one that is written counts, its place decides.
        """
        state, foreseen = self._ledger.foresee(model_name, event)
        refuse(model_name, state, foreseen)
        state, written = self._ledger.append(model_name, event)
        refuse(model_name, state, written)
