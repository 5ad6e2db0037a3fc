"""The versions of models and the projection of their histories on MLflow's model registry."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.registry.locations import is_below, is_version
from ratchet.registry.mlflow_files import MlflowFiles
from ratchet.registry.mlflow_history import MlflowHistory, set_once, utc
from ratchet.registry.searches import all_pages, quoted_text
from ratchet.registry.store import Found, Kept, Observed, Source
from ratchet.registry.sweeps import trials_beside
from ratchet.registry.values import HISTORY_SUFFIX, Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

_MODELS = 1_000  # the most that MLflow gives in one answer


class MlflowStore(MlflowHistory):
    """One MLflow registry."""

    def __init__(self, client: MlflowClient, uri: str, *, stages: bool = True) -> None:
        """`stages=False` keeps away from MLflow's deprecated stages: the aliases and the history carry all."""
        super().__init__(client, uri, stages=stages)
        self._files = MlflowFiles(client, uri)
        self._locations: dict[tuple[str, str, int], str] = {}

    def models(self) -> tuple[str, ...]:
        """All registered models but the histories, and but MLflow's prompts."""
        search = partial(self._client.search_registered_models, max_results=_MODELS)
        with self._asking():
            found = all_pages(lambda token: search(page_token=token))
        return tuple(sorted(model.name for model in found if not model.name.endswith(HISTORY_SUFFIX)))

    def observe(self, model: str) -> Observed | None:
        """Aliases and description in one request, the versions in another."""
        registered = None
        with self._asking(absent_is_fine=True):
            registered = self._client.get_registered_model(model)
        if registered is None:
            return None
        with self._asking():
            versions = self._search(f"name={quoted_text(model)}")
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
            created=utc(version.creation_timestamp),
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
            set_once(lambda: self._client.set_registered_model_alias(model, alias, str(version)))

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
        logged = self._files.logged_model_at(seen.location)
        mark = (
            seen.location if logged is None else logged.removeprefix("models:/")
        )  # an address may be spelled in many ways
        with self._asking():
            found = self._search(f"source_path LIKE {quoted_text(f'%{mark}%')}")
            found += self._search("source_path LIKE 'models:/%'")
        same = [v for v in found if v.source == logged or is_below(self._location(v), seen.location)]
        return any((version.name, int(version.version)) != (model, seen.version) for version in same)

    def lighten(self, run_id: str, paths: Sequence[str], *, going: tuple[str, int]) -> bool:
        """Delete below the run's artifacts, unless a version was made right from them rather than from a copy."""
        used = [f"runs:/{run_id}", *filter(None, [self._files.artifacts_of(run_id)])]
        with self._asking():
            made = self._search(f"run_id={quoted_text(run_id)}")
            # MLflow notes the run only of what was registered as runs:/…; an address may be spelled in many ways.
            made += self._search(f"source_path LIKE {quoted_text(f'%{run_id}%')}")
        others = [version for version in made if (version.name, int(version.version)) != going]
        if any(is_below(self._location(version), root) for version in others for root in used):
            return False
        self._files.lighten(run_id, paths)
        return True

    def beside(self, run_id: str, *, going: Collection[tuple[str, int]]) -> frozenset[str] | None:
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
                set_once(partial(self._client.set_model_version_tag, model, str(version), key, value))

    def delete_version(self, model: str, version: int) -> None:
        """MLflow removes the aliases along with it."""
        with self._asking(absent_is_fine=True):
            self._client.delete_model_version(model, str(version))
