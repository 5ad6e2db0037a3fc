"""Starts a training from the weights of another model: what fits is loaded, what was seen is inherited."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pytorch
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from torch import Tensor, nn

from ratchet.data.seen import SEEN_FILE, SeenImages
from ratchet.environment import variable
from ratchet.errors import WeightsUnavailableError
from ratchet.run_names import PARENT_RUN_TAG, PARENT_TAG
from ratchet.settings import TrialConfig
from ratchet.training.folder import link
from ratchet.training.origin import WEIGHTS_FILE, fetch, planned
from ratchet.training.run import TrialRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ANCESTRY_PATH = "ancestry"

_SHOWN = 5  # tensors that are named
_PICKLES = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"  # MLflow is to refuse archives that hold them


@dataclass(frozen=True)
class Loaded:
    """How much of a network's state was taken from another model, and why the rest was not, by its names."""

    taken: int
    total: int
    left: dict[str, str]

    def __str__(self) -> str:
        """Say it in a line."""
        named = "; ".join(f"{name} ({why})" for name, why in list(self.left.items())[:_SHOWN])
        more = f"; and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
        return f"{self.taken} of {self.total} tensors" + (f", not {named}{more}" if self.left else "")


def warm_start(
    config: TrialConfig, network: nn.Module, run: TrialRun, work: Path, *, test_today: Callable[[], frozenset[str]]
) -> str | None:
    """Load what `backbone.init_from` names, tag the run with its ancestry, and return a note; None where it names nothing.

    What the ancestor had seen is kept among the run's artifacts, for the gate; of an older one that was selected by its test
    images, which it does not name, those of `test_today` (by content). Raises `RegistryError`, and
    `WeightsUnavailableError` where nothing fits.
    """
    origin = planned(config)
    if origin is None:
        return None
    with tempfile.TemporaryDirectory(dir=work) as folder:
        directory = fetch(origin, Path(folder) / "model")
        loaded = load_fitting(network, read_weights(directory, origin.reference), origin.reference)
        own = origin.model == config.retrain.model  # of another model's data, nobody knows the split
        _keep_ancestry(run, directory, origin.selected, test_today() if own else None)
    tags = {PARENT_TAG: origin.reference, PARENT_RUN_TAG: origin.run_id}
    tags |= {f"{PARENT_TAG}_digest": origin.digest, f"{PARENT_TAG}_loaded": str(loaded)}
    run.tag({name: value for name, value in tags.items() if value is not None})
    return f"starts from {origin.reference}: {loaded}"


def load_fitting(network: nn.Module, theirs: dict[str, Tensor], what: str) -> Loaded:
    """Take over the tensors that agree in name and shape, a layer's only together.

    Raises `WeightsUnavailableError` where none fits.
    """
    own = network.state_dict()
    left = {name: "not there" for name in own if name not in theirs}
    left |= {
        name: f"{tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here"
        for name, tensor in own.items()
        if name in theirs and theirs[name].shape != tensor.shape
    }
    torn = {name.rpartition(".")[0] for name in left}
    left |= {name: "as its layer" for name in own if name not in left and name.rpartition(".")[0] in torn}
    fitting = {name: theirs[name] for name in own if name not in left}
    if not any(tensor.ndim for tensor in fitting.values()):  # a counter of batches fits everywhere
        raise WeightsUnavailableError(
            f"backbone.init_from: no tensor of {what} fits this network. It must have the same encoder or the same arch."
        )
    network.load_state_dict({**own, **fitting})
    return Loaded(taken=len(fitting), total=len(own), left=left)


def read_weights(directory: Path, what: str) -> dict[str, Tensor]:
    """Read the state of an exported network, by the names of the network itself; no code of the directory is run.

    Only the weights' file is read, whose hash was checked: an MLmodel file may name other weights, and code to import.
    """
    try:
        with tempfile.TemporaryDirectory(dir=directory.parent) as folder, variable(_PICKLES, "false"):
            alone = Path(folder)
            (alone / WEIGHTS_FILE).parent.mkdir()
            link(str(directory / WEIGHTS_FILE), str(alone / WEIGHTS_FILE))
            flavor = {"model_data": Path(WEIGHTS_FILE).parent.name, "pytorch_version": str(torch.__version__)}
            Model(flavors={"pytorch": flavor}).save(str(alone / MLMODEL_FILE_NAME))
            return dict(mlflow.pytorch.load_model(folder, device="cpu").state_dict())
    except (MlflowException, OSError, RuntimeError, ValueError) as error:
        raise WeightsUnavailableError(f"backbone.init_from: the weights of {what} cannot be read: {error}") from error


def copy_ancestry(store: MlflowClient, source: Run, run: TrialRun, work: Path) -> None:
    """Give a run that continues another one the ancestry of that one."""
    run.tag({key: value for key, value in source.data.tags.items() if key.startswith(PARENT_TAG)})
    with tempfile.TemporaryDirectory(dir=work) as folder:
        if store.list_artifacts(source.info.run_id, ANCESTRY_PATH):
            run.log_artifacts(Path(store.download_artifacts(source.info.run_id, ANCESTRY_PATH, folder)), ANCESTRY_PATH)


def inherited(config: TrialConfig, run: TrialRun, work: Path) -> frozenset[str] | None:
    """What the ancestor had seen, by content: nothing without one, None where that is not known. Raises `ModelFilesError`."""
    if config.backbone.init_from is None:
        return frozenset()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        kept = run.fetch(ANCESTRY_PATH, Path(folder))
        seen = None if kept is None else SeenImages.read(kept)
        return None if seen is None else seen.all


def _keep_ancestry(run: TrialRun, directory: Path, selected: str, test_today: frozenset[str] | None) -> None:
    """What decided the ancestor, the test images too where it was the best trial by them; nothing where it does not say."""
    seen = SeenImages.read(directory)
    if seen is None or (selected.startswith("test_") and seen.test is None and test_today is None):
        return
    decided = seen.selected_by(selected, test_today or frozenset()) - seen.train - seen.val
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        SeenImages(train=seen.train, val=seen.val, inherited=decided).write(Path(folder))
        run.log_artifact(Path(folder) / SEEN_FILE, ANCESTRY_PATH)
