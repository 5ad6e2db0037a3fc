"""The history, the versions and the projection on MLflow's model registry."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import RegistryError
from ratchet.registry.events import Event, decode, encode
from ratchet.registry.mlflow_files import MlflowFiles, is_version
from ratchet.registry.rendering import headline
from ratchet.registry.store import Found, Kept, Notes, Observed, Source, Store
from ratchet.registry.sweeps import trials_beside
from ratchet.registry.tracking import answering
from ratchet.registry.values import HISTORY_SUFFIX, Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

_EVENT_TAG = "ratchet.event"
_PROJECTED_TAG = "ratchet.projected"
_STAGED_TAG = "ratchet.projected.stages"
_INTENT_PREFIX = "ratchet.writing."
_EVENT_SOURCE = "ratchet:/event"  # a history version has no files; the server accepts any scheme that is not local
_MODELS = 1_000  # the most that MLflow gives in one answer
# The same of versions. Its pages begin at an offset: where versions are deleted between two, the second leaves some out.
_VERSIONS = 200_000
_ATTEMPTS = 5


class MlflowStore(Store):
    """One MLflow registry. The history of `model` is the versions of the registered model `model.history`."""

    def __init__(self, client: MlflowClient, uri: str, *, stages: bool = True) -> None:
        """`stages=False` keeps away from MLflow's deprecated stages: the aliases and the history carry all."""
        self._client = client
        self._uri = uri
        self._stages = stages and hasattr(client, "transition_model_version_stage")
        self._files = MlflowFiles(client, uri)
        self._locations: dict[tuple[str, str, int], str] = {}

    @contextmanager
    def _asking(self, *, absent_is_fine: bool = False) -> Iterator[None]:
        """Translate errors; what is not there may be fine."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with answering(self._uri):
            try:
                yield
            except MlflowException as error:
                if not (absent_is_fine and error.error_code == "RESOURCE_DOES_NOT_EXIST"):
                    raise

    def _search(self, condition: str) -> list[MlflowVersion]:
        found: list[MlflowVersion] = []
        token: str | None = None
        while True:
            page = self._client.search_model_versions(
                condition,
                max_results=_VERSIONS,
                order_by=["version_number ASC"],
                page_token=token,
            )
            found.extend(page)
            token = page.token
            if not token:
                return found

    def log(self, model: str, since: int) -> list[Event]:
        """The versions of `model.history` from `since` on."""
        with self._asking():
            newer = f" and version_number >= {since}" if since else ""
            entries = self._search(f"name={_quoted(model + HISTORY_SUFFIX)}{newer}")
        events = []
        for entry in entries:
            text = entry.tags.get(_EVENT_TAG)
            if text is None:
                raise RegistryError(
                    f"version {entry.version} of {model + HISTORY_SUFFIX!r} is no event of Ratchet: that registered "
                    "model is the history, delete what was registered there by hand"
                )
            events.append(decode(text, int(entry.version), _utc(entry.creation_timestamp)))
        return events

    def append(self, model: str, event: Event) -> None:
        """Create the next version of `model.history`: MLflow numbers them without gaps, in one transaction."""
        text = encode(event)
        with self._asking(absent_is_fine=True):
            self._write(model, text, event)
            return
        self._begin_history(model)
        with self._asking():
            self._write(model, text, event)

    def _write(self, model: str, text: str, event: Event) -> None:
        self._client.create_model_version(
            model + HISTORY_SUFFIX,
            _EVENT_SOURCE,
            tags={_EVENT_TAG: text},
            description=headline(event),
            await_creation_for=0,
        )

    def _begin_history(self, model: str) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with self._asking():
            try:
                self._client.create_registered_model(
                    model + HISTORY_SUFFIX,
                    description=f"The history of the model {model}, one version for each event, written by Ratchet. "
                    "Do not change it: it decides which version is in production.",
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def notes(self, model: str) -> Notes:
        """Read from the tags of `model.history`."""
        tags = self._tags(model)
        intents = {
            key.removeprefix(_INTENT_PREFIX): datetime.fromisoformat(value)
            for key, value in tags.items()
            if key.startswith(_INTENT_PREFIX)
        }
        projected = int(tags.get(_PROJECTED_TAG, 0))
        return Notes(projected, intents, int(tags.get(_STAGED_TAG, projected)) if self._stages else None)

    def _tags(self, model: str) -> Mapping[str, str]:
        with self._asking(absent_is_fine=True):
            return dict(self._client.get_registered_model(model + HISTORY_SUFFIX).tags)
        return {}

    def open_intent(self, model: str, token: str) -> None:
        """Tag `model.history`."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        tag = model + HISTORY_SUFFIX, _INTENT_PREFIX + token, datetime.now(UTC).isoformat()
        with self._asking():
            try:
                self._client.set_registered_model_tag(*tag)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._begin_history(model)  # of a model that somebody made in MLflow's pages, without a version
                self._client.set_registered_model_tag(*tag)

    def close_intent(self, model: str, token: str) -> None:
        """Remove the tag."""
        with self._asking(absent_is_fine=True):
            self._client.delete_registered_model_tag(model + HISTORY_SUFFIX, _INTENT_PREFIX + token)

    def mark_projected(self, model: str, head: int) -> None:
        """Tag `model.history`. A writer without stages says up to where the others have projected them."""
        tags = {_PROJECTED_TAG: str(head)}
        if self._stages:
            tags = {_STAGED_TAG: str(head)} | tags
        elif _STAGED_TAG not in (known := self._tags(model)):
            tags = {_STAGED_TAG: known.get(_PROJECTED_TAG, "0")} | tags
        for tag, number in tags.items():
            self._mark(model, tag, number)

    def _mark(self, model: str, tag: str, number: str) -> None:
        with self._asking():
            _set(lambda: self._client.set_registered_model_tag(model + HISTORY_SUFFIX, tag, number))

    def models(self) -> tuple[str, ...]:
        """All registered models but the histories, and but MLflow's prompts."""
        names: list[str] = []
        token: str | None = None
        with self._asking():
            while True:
                page = self._client.search_registered_models(max_results=_MODELS, page_token=token)
                names += [model.name for model in page if not model.name.endswith(HISTORY_SUFFIX)]
                token = page.token
                if not token:
                    return tuple(sorted(names))

    def observe(self, model: str) -> Observed | None:
        """Aliases and description in one request, the versions in another."""
        registered = None
        with self._asking(absent_is_fine=True):
            registered = self._client.get_registered_model(model)
        if registered is None:
            return None
        with self._asking():
            versions = self._search(f"name={_quoted(model)}")
        return Observed(
            description=registered.description or "",
            aliases={alias: int(version) for alias, version in registered.aliases.items()},
            versions={int(version.version): self._found(version) for version in versions},
        )

    def _found(self, version: MlflowVersion) -> Found:
        return Found(
            version=int(version.version),
            stage=Stage.parse(version.current_stage or "None") if self._stages else None,
            run_id=version.run_id or None,
            location=self._location(version),
            description=version.description or "",
            created=_utc(version.creation_timestamp),
            tags=dict(version.tags),
        )

    def _location(self, version: MlflowVersion) -> str:
        """Where its files lie; of what `copy_model_version` made of another version, where that one's lie."""
        source, key = version.source or "", (version.name, version.version, version.creation_timestamp)
        if not is_version(source):
            return source
        if key not in self._locations:
            with self._asking(absent_is_fine=True):  # it may go meanwhile
                self._locations[key] = self._client.get_model_version_download_uri(version.name, version.version)
        return self._locations.get(key, source)

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """One step in MLflow."""
        with self._asking(absent_is_fine=True):
            _set(lambda: self._client.set_registered_model_alias(model, alias, str(version)))

    def drop_alias(self, model: str, alias: str) -> None:
        """Remove the alias."""
        with self._asking(absent_is_fine=True):
            self._client.delete_registered_model_alias(model, alias)

    def set_stage(self, model: str, version: int, stage: Stage) -> None:
        """The only line that writes a stage: without stages in MLflow, `stages=False` is all there is to change."""
        if not self._stages:
            return
        # MLflow announces since 2.9 that stages will go; its warning blames this module.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"ratchet\.registry\.mlflow_store")
        with self._asking(absent_is_fine=True):
            self._client.transition_model_version_stage(model, str(version), stage.value)

    def set_description(self, model: str, text: str) -> None:
        """The registered model's description."""
        with self._asking(absent_is_fine=True):
            self._client.update_registered_model(model, text)

    def resolve(self, location: str) -> Source:
        """A `runs:/` location, a path or another address of artifacts."""
        return self._files.resolve(location)

    def keep(self, model: str, source: Source) -> Kept:
        """Copy into a logged model of the registry's own experiment."""
        return self._files.keep(model, source)

    def discard(self, location: str) -> None:
        """Delete the copy."""
        self._files.discard(location)

    def fetch(self, location: str, into: Path) -> None:
        """Download."""
        self._files.fetch(location, into)

    def is_shared(self, model: str, seen: Found) -> bool:
        """Ask for versions with the same files: their address, the logged model there, or another version's copy."""
        with self._asking():
            same = self._search(f"source_path={_quoted(seen.location)}")
            named = self._search("source_path LIKE 'models:/%'")
        logged = self._files.logged_model_at(seen.location)
        same += [v for v in named if v.source == logged or self._location(v) == seen.location]
        return any((version.name, int(version.version)) != (model, seen.version) for version in same)

    def lighten(self, run_id: str, paths: Sequence[str], *, going: tuple[str, int]) -> bool:
        """Delete below the run's artifacts, unless a version was made right from them rather than from a copy."""
        used = (f"runs:/{run_id}/", *filter(None, [self._files.artifacts_of(run_id)]))
        with self._asking():
            made = self._search(f"run_id={_quoted(run_id)}")
            for root in used:  # MLflow notes the run only of what was registered as runs:/…
                made += self._search(f"source_path LIKE {_quoted(root + '%')}")
        others = [version for version in made if (version.name, int(version.version)) != going]
        if any(self._location(version).startswith(used) for version in others):
            return False
        self._files.lighten(run_id, paths)
        return True

    def beside(self, run_id: str, *, going: Collection[tuple[str, int]]) -> frozenset[str]:
        """Ask for the runs of its sweeps, and for the versions and trainings that came from them."""

        def stays(condition: str) -> bool:
            return any((found.name, int(found.version)) not in going for found in self._search(condition))

        if self._files.artifacts_of(run_id) is None:  # the run may be gone: its versions outlive it
            return frozenset()
        with self._asking():
            return trials_beside(self._client, run_id, stays)

    def create_version(
        self, model: str, kept: Kept, source: Source, *, description: str, tags: Mapping[str, str]
    ) -> int:
        """Create the registered model if need be, then the version with its tags in one transaction."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with self._asking():
            try:
                self._client.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            created = self._client.create_model_version(
                model,
                kept.location,
                run_id=source.run_id,
                tags=dict(tags),
                description=description or None,
                await_creation_for=0,
                # A server asks which logged model holds the files; a database opened directly would look that up in
                # whatever store this process tracks to.
                model_id=kept.handle if self._uri.startswith("http") else None,
            )
        return int(created.version)

    def update_version(self, model: str, version: int, *, description: str | None, tags: Mapping[str, str]) -> None:
        """One request for each."""
        with self._asking():
            if description is not None:
                self._client.update_model_version(model, str(version), description)
            for key, value in tags.items():
                _set(partial(self._client.set_model_version_tag, model, str(version), key, value))

    def delete_version(self, model: str, version: int) -> None:
        """MLflow removes the aliases along with it."""
        with self._asking(absent_is_fine=True):
            self._client.delete_model_version(model, str(version))


def _set(write: Callable[[], object]) -> None:
    """Set an alias or a tag. MLflow inserts one that is not there: of two that do so at once, one has to do it again."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    for attempt in range(_ATTEMPTS):
        try:
            write()
            return
        except MlflowException as error:
            collided = any(sign in str(error) for sign in ("UNIQUE", "duplicate key", "Duplicate entry"))
            if not collided or attempt == _ATTEMPTS - 1:
                raise


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"
