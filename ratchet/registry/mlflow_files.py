"""The files behind model versions on MLflow: where a location leads, the registry's own copy of it, and back again.

A version's files are a logged model of the experiment `ratchet-registry`, not the run's artifacts: cleaning a run, or a
whole experiment of trials, leaves them alone.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ratchet.errors import ModelFilesError, RegistryError, ServerUnreachableError
from ratchet.registry.files import cannot_be_copied, digests_of, is_of_this_machine, manifest_digest, require_model
from ratchet.registry.locations import VERSION, local_path
from ratchet.registry.searches import experiment_on, run_on
from ratchet.registry.store import Kept, Source
from ratchet.registry.tracking import answering
from ratchet.run_names import FINGERPRINT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEEPING_EXPERIMENT = "ratchet-registry"
_LOGGED = re.compile(r"models:/(m-[0-9a-f]{32})")
_ALIAS = re.compile(r"models:/([^/@]+)@([\w-]+)")
_KEPT = re.compile(r"/models/(m-[0-9a-f]{32})/artifacts$")


class MlflowFiles:
    """Reads and writes artifacts on one tracking store."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        """`client` is open on `uri`."""
        self._client = client
        self._uri = uri

    def resolve(self, location: str) -> Source:
        """The model directory at `location`: `runs:/<id>/<path>`, a local path, or an address that MLflow can download.

        A file inside of a model directory stands for the directory. Raises `ModelFilesError`.
        """
        if location.startswith("runs:/"):
            return self._run_source(location)
        location = self._named(location.rstrip("/"))
        path = local_path(location)
        if path is None:
            address = self._with_model(self._address(location.rstrip("/")), location)
            return Source(location=address, identity=address)
        directory = path.parent if path.is_file() else path
        if not directory.is_dir():
            raise ModelFilesError(f"no model at {location}: {directory} is not a directory")
        require_model({entry.name for entry in directory.iterdir()}, location)
        # A path says little: another model may lie there tomorrow. Its content does.
        digest = manifest_digest(digests_of(directory))
        return Source(location=str(directory.resolve()), identity=f"{directory.resolve()} sha256:{digest}")

    def _named(self, location: str) -> str:
        """The version that `models:/name@alias` means now: the alias may be another one's tomorrow."""
        named = _ALIAS.fullmatch(location)
        if named is not None:
            with answering(self._uri):
                found = self._client.get_model_version_by_alias(*named.groups())
            return f"models:/{found.name}/{found.version}"
        if location.startswith("models:/") and not (_LOGGED.fullmatch(location) or VERSION.fullmatch(location)):
            raise ModelFilesError(
                f"{location} names no version for good: give models:/<name>/<number> or models:/<name>@<alias>"
            )
        return location

    def _run_source(self, location: str) -> Source:
        run_id, _, path = location.removeprefix("runs:/").strip("/").partition("/")
        with answering(self._uri):
            run = run_on(self._client, run_id)
        if run is None:
            raise ModelFilesError(f"no model at {location}: there is no run {run_id}")
        directory = self.model_of_run(run, path)
        normal = f"runs:/{run_id}/{directory}".rstrip("/")
        mark = run.data.tags.get(FINGERPRINT_TAG) or run.data.params.get(FINGERPRINT_TAG)
        return Source(location=normal, identity=normal, run_id=run_id, fingerprint=mark)

    def model_of_run(self, run: Run, path: str) -> str:
        """The path inside a run that names a model directory; raises `ModelFilesError` if there is none.

        Three requests at the most: the listing of `path`, that of its parent, the run's logged models.
        """
        root, where = run.info.artifact_uri, f"runs:/{run.info.run_id}/{path}"
        names = self._list(root, path)
        if names:
            require_model(names, where)
            return path.strip("/")
        parent, _, name = path.strip("/").rpartition("/")
        beside = self._list(root, parent)
        if name in beside and "." in name:
            require_model(beside, where)
            return parent
        if self._logged_model(run, path) is None:
            raise ModelFilesError(f"no model at {where}: the run holds {', '.join(sorted(beside)[:10]) or 'nothing'}")
        return PurePosixPath(path).parts[0]

    def trouble_with(self, run: Run, path: str) -> str | None:
        """Why a run's model cannot be used, or None: it must be there, and its `MLmodel` must be readable."""
        import yaml  # noqa: PLC0415

        try:
            inside = self.model_of_run(run, path)
            with tempfile.TemporaryDirectory(prefix="ratchet-") as folder:
                text = self._read(self._address_in(run, inside), "MLmodel", Path(folder))
            described = yaml.safe_load(text) if text is not None else {"flavors": None}
        except ModelFilesError as error:
            return str(error)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            return f"its MLmodel cannot be read: {error}"
        return None if isinstance(described, dict) and "flavors" in described else "its MLmodel is not one"

    def _read(self, root: str, name: str, folder: Path) -> str | None:
        """The text of one small file, or None if it is not there."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            got: str = _repository(root, self._uri).download_artifacts(name, str(folder))
        except (MlflowException, OSError):
            return None
        return Path(got).read_text(encoding="utf-8")

    def _logged_model(self, run: Run, path: str) -> str | None:
        """Where the run's logged model of that name keeps its files: the latest that was finished well."""
        name = PurePosixPath(path).parts[0] if path else ""
        with answering(self._uri):
            found = self._client.search_logged_models(
                [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
            )
        ready = [model for model in found if model.name == name and str(model.status) == "READY"]
        if not ready:
            return None
        return str(max(ready, key=lambda model: model.creation_timestamp).artifact_location)

    def _list(self, root: str, path: str) -> set[str]:
        """The names directly below a path of artifacts; none if it is a file or is not there."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            with answering(self._uri):
                listed = _repository(root, self._uri).list_artifacts(path.strip("/") or None)
        except ServerUnreachableError:
            raise
        except (RegistryError, MlflowException, OSError):
            return set()  # what cannot be listed holds no model
        return {PurePosixPath(entry.path).name for entry in listed}

    def _with_model(self, location: str, given: str) -> str:
        names = self._list(location, "")
        if not names:
            location = location.rpartition("/")[0]
            names = self._list(location, "")
        require_model(names, given)
        return location

    def keep(self, model: str, source: Source) -> Kept:
        """A copy of the files as a logged model, and their hashes.

        The run stays the version's origin; the copy costs one download (where the artifacts are not local) and one
        upload of the model directory.
        """
        with tempfile.TemporaryDirectory(prefix="ratchet-") as folder:
            directory = local_path(source.location)
            if directory is None:
                directory = Path(folder) / "model"
                self.fetch(source.location, directory)
            digests = digests_of(directory)
            experiment = experiment_on(self._client, KEEPING_EXPERIMENT, self._uri)
            with answering(self._uri):
                kept = self._client.create_logged_model(experiment, name=_safe(model), source_run_id=source.run_id)
                try:
                    self._client.log_model_artifacts(kept.model_id, str(directory))
                    self._client.finalize_logged_model(kept.model_id, "READY")
                except BaseException:
                    # A full disk: what is there of the copy belongs to no version, and nobody would find it.
                    with suppress(Exception):  # not to hide the error
                        self.discard(kept.artifact_location)
                    raise
        return Kept(location=kept.artifact_location, digests=digests, handle=kept.model_id)

    def discard(self, location: str) -> None:
        """Delete a copy of ours, files first; files that are not ours stay."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        ours = _KEPT.search(location)
        if ours is None:
            return
        with answering(self._uri):
            try:
                model = self._client.get_logged_model(ours.group(1))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return
                raise
            if model.experiment_id != experiment_on(self._client, KEEPING_EXPERIMENT, self._uri):
                return
            with suppress(FileNotFoundError):  # another process finishes the deletion, too
                _repository(location, self._uri).delete_artifacts()
            self._client.delete_logged_model(model.model_id)

    def logged_model_at(self, location: str) -> str | None:
        """How a version would name the logged model whose files are at a location; None where there is none."""
        kept = _KEPT.search(location)
        return None if kept is None else f"models:/{kept.group(1)}"

    def artifacts_of(self, run_id: str) -> str | None:
        """Where a run's artifacts begin; None if there is no such run."""
        with answering(self._uri):
            run = run_on(self._client, run_id)
        return None if run is None else str(run.info.artifact_uri)

    def lighten(self, run_id: str, paths: Sequence[str]) -> None:
        """Delete artifacts of a run; a run or a path that is not there is fine."""
        with answering(self._uri):
            run = run_on(self._client, run_id)
        for path in paths:
            if run is not None and self._list(run.info.artifact_uri, path):
                with answering(self._uri):
                    _repository(run.info.artifact_uri, self._uri).delete_artifacts(path)

    def fetch(self, location: str, into: Path) -> None:
        """Copy the files at a location into the new directory `into`. Raises `ModelFilesError` if there are none."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        path = local_path(location)
        try:
            if path is not None:
                directory = path.parent if path.is_file() else path  # a file of the model may stand for its directory
                if directory != path:
                    require_model({entry.name for entry in directory.iterdir()}, location)
                shutil.copytree(directory, into)
                return
            root = self._address(location)
            above, _, name = root.rpartition("/")
            if not self._list(root, "") and name in self._list(above, ""):
                root = self._with_model(root, location)
            into.mkdir()
            with answering(self._uri):
                _repository(root, self._uri).download_artifacts("", str(into))
        except ServerUnreachableError as error:  # that says nothing of the files
            if is_of_this_machine(error):  # MLflow sums up what failed of a download, as if the server had
                raise cannot_be_copied(location, error) from error
            raise
        except (RegistryError, MlflowException, OSError) as error:
            raise cannot_be_copied(location, error) from error
        if not any(into.iterdir()):
            raise ModelFilesError(f"there are no model files at {location} any more")

    def _address(self, location: str) -> str:
        """The artifact address behind `runs:/<id>/<path>` or a logged model's `models:/m-…`; any other as it is.

        Asked of this store: left to itself, MLflow would ask the one that the process tracks to.
        """
        if logged := _LOGGED.fullmatch(location):
            with answering(self._uri):
                return str(self._client.get_logged_model(logged.group(1)).artifact_location)
        if version := VERSION.fullmatch(location):
            with answering(self._uri):
                return self._client.get_model_version_download_uri(*version.groups())
        if not location.startswith("runs:/"):
            return location
        run_id, _, path = location.removeprefix("runs:/").partition("/")
        with answering(self._uri):
            run = self._client.get_run(run_id)
        return self._address_in(run, path)

    def _address_in(self, run: Run, path: str) -> str:
        if self._list(run.info.artifact_uri, path):
            return f"{run.info.artifact_uri}/{path}".rstrip("/")
        return self._logged_model(run, path) or f"{run.info.artifact_uri}/{path}"


def _repository(root: str, uri: str) -> Any:
    """MLflow's reader and writer of artifacts below `root`; MLflow leaves most of its methods without types."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # noqa: PLC0415

    return get_artifact_repository(root, tracking_uri=uri)


def _safe(model: str) -> str:
    """A name that a logged model may have."""
    return re.sub(r"[^\w -]", "_", model)
