"""Which model a training starts from: what `backbone.init_from` names, resolved to a version or run and its content."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import ConfigError, ModelFilesError
from ratchet.run_names import MODEL_PATH, SELECTED_TAG
from ratchet.settings import TrialConfig

if TYPE_CHECKING:
    from ratchet.registry import ModelVersion

PRODUCTION = "production"
WEIGHTS_FILE = "data/model.pt2"  # MLflow's pt2 form: read without unpickling
MODEL_DIGEST_TAG = "ratchet.model_digest"

_VERSION = re.compile(r"models:/(?P<model>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[\w-]+))")
_RUN = re.compile(r"(runs:/)?(?P<run>[0-9a-f]{32})(/(?P<path>.+))?")


@dataclass(frozen=True)
class Ancestor:
    """A model to start from: `reference` names it for good, `digest` is the sha256 of its weights' file.

    `selected` is the metric by which its trial was the best, and its value, where a version says so.
    """

    reference: str
    digest: str
    run_id: str | None
    model: str | None = None
    version: int | None = None
    selected: str = ""


def resolve(config: TrialConfig) -> TrialConfig:
    """Replace `backbone.init_from` by what it stands for now, with its content in `backbone.init_digest`.

    `production` is the champion of `retrain.model`; while there is none, nothing is started from. Raises `ConfigError`
    for what names no model, `RegistryError` for a model that is not there.
    """
    if config.backbone.init_from is None:
        return config
    origin = find(config.backbone.init_from, model=config.retrain.model)
    reference, digest = (None, None) if origin is None else (origin.reference, origin.digest)
    backbone = config.backbone.model_copy(update={"init_from": reference, "init_digest": digest})
    return config.model_copy(update={"backbone": backbone})


def planned(config: TrialConfig) -> Ancestor | None:
    """The model that a planned training starts from, with the content that it was planned with."""
    if config.backbone.init_from is None:
        return None
    origin = find(config.backbone.init_from, model=config.retrain.model)
    return origin and replace(origin, digest=config.backbone.init_digest or origin.digest)


def find(init_from: str, *, model: str) -> Ancestor | None:
    """Find what is named; None for `production` of a model that has no champion."""
    from ratchet.registry import MlflowModelManager  # noqa: PLC0415 - opens MLflow

    named, run = _VERSION.fullmatch(init_from), _RUN.fullmatch(init_from)
    if init_from == PRODUCTION:
        champion = MlflowModelManager().champion(model)
        return None if champion is None else _of_version(champion)
    if named is not None:
        return _of_version(MlflowModelManager().version(named["model"], named["version"] or named["alias"]))
    if run is not None:
        return _of_run(run["run"], run["path"] or MODEL_PATH)
    raise ConfigError(
        f"backbone.init_from={init_from} names no model. It takes production, models:/<name>/<version>, "
        "models:/<name>@<alias>, runs:/<run id>, or null."
    )


def fetch(origin: Ancestor, into: Path) -> Path:
    """Download the model directory. Raises `RegistryError`, also where its weights are not what was planned with."""
    if origin.model is not None and origin.version is not None:
        from ratchet.registry import MlflowModelManager  # noqa: PLC0415

        folder = MlflowModelManager().download_model(origin.model, origin.version, into)
    else:
        from ratchet.registry.tracking import client  # noqa: PLC0415

        run_id, _, path = origin.reference.removeprefix("runs:/").partition("/")
        into.mkdir(parents=True)
        folder = Path(client().download_artifacts(run_id, path, str(into)))
    if _sha256(folder / WEIGHTS_FILE, origin.reference) != origin.digest:
        raise ModelFilesError(
            f"the weights of {origin.reference} are not those that this training was planned with: start it again."
        )
    return folder


def _of_version(version: ModelVersion) -> Ancestor:
    digest = (version.digests or {}).get(WEIGHTS_FILE)
    if digest is None:
        raise ModelFilesError(_no_weights(f"{version.model} v{version.version}"))
    reference = f"models:/{version.model}/{version.version}"
    selected = version.tags.get(SELECTED_TAG, "")
    return Ancestor(reference, digest, version.run_id, version.model, version.version, selected)


def _of_run(run_id: str, path: str) -> Ancestor:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    from ratchet.registry.tracking import client  # noqa: PLC0415

    reference, store = f"runs:/{run_id}/{path}", client()
    try:
        run = store.get_run(run_id)
        digest = run.data.tags.get(MODEL_DIGEST_TAG) if path == MODEL_PATH else None
        if digest is None:
            with tempfile.TemporaryDirectory(prefix="origin-") as folder:
                file = store.download_artifacts(run_id, f"{path}/{WEIGHTS_FILE}", folder)
                digest = _sha256(Path(file), reference)
    except (MlflowException, OSError) as error:
        raise ModelFilesError(f"{_no_weights(reference)} ({error})") from error
    return Ancestor(reference, digest, run_id)


def weights_digest(directory: Path) -> str:
    """The sha256 of the weights' file of a model directory."""
    return _sha256(directory / WEIGHTS_FILE, str(directory))


def _sha256(file: Path, what: str) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFilesError(_no_weights(what)) from error


def _no_weights(what: str) -> str:
    return (
        f"{what} holds no {WEIGHTS_FILE}, from which weights are taken; nothing is unpickled. Export it with Ratchet."
    )
