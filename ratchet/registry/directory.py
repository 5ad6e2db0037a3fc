"""The model manager on a plain directory: the same operations, rules and history as on MLflow, with files only."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ratchet.errors import ModelFilesError, RegistryError
from ratchet.registry.directory_store import DirectoryStore, file_name, plain_name
from ratchet.registry.files import require_model
from ratchet.registry.manager import LedgerModelManager
from ratchet.registry.ranking import (
    CANDIDATES,
    RunFacts,
    checked_mode,
    no_model_in_any,
    no_run_to_choose,
    no_such_experiment,
    rank,
)
from ratchet.registry.values import BestRun


@dataclass(frozen=True)
class _Run:
    """One run that was put into the directory."""

    run_id: str
    folder: Path
    facts: RunFacts
    parameters: int | None
    started: datetime


class DirectoryModelManager(LedgerModelManager):
    """A model manager in a directory, for air-gapped machines; several processes may use it at once.

    Experiments are directories too: `log_run` puts a run into `experiments/<name>/<run id>/`.
    """

    def __init__(self, root: str | Path, *, who: str | None = None) -> None:
        """`root` is made when something is first written."""
        self._root = Path(root).absolute()
        super().__init__(DirectoryStore(self._root), who)

    def log_run(
        self,
        experiment_name: str,
        *,
        metrics: Mapping[str, float],
        model: Path | None = None,
        model_path: str = "deployment_model",
        status: str = "FINISHED",
        parameters: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Put a run into the directory, with a copy of its `model` directory; returns its id."""
        run_id = uuid.uuid4().hex
        experiment = self._root / "experiments" / file_name(experiment_name)
        coming = experiment / f".{run_id}"
        coming.mkdir(parents=True)
        if model is not None:
            shutil.copytree(model, coming / model_path)
        run = {
            "status": status,
            "metrics": dict(metrics),
            "tags": dict(tags or {}),
            "parameters": parameters,
            "started": datetime.now(UTC).isoformat(),
        }
        (coming / "run.json").write_text(json.dumps(run), encoding="utf-8")
        coming.rename(experiment / run_id)
        return run_id

    def _candidates(
        self,
        experiment_name: str,
        metric: str,
        mode: str,
        tags: Mapping[str, str] | None,
        model_path: str,
        among: Collection[str] | None = None,
    ) -> Iterator[BestRun]:
        order, runs = checked_mode(mode), self._runs(experiment_name)
        runs = [run for run in runs if among is None or run.run_id in among]
        finished = [run for run in runs if run.facts.status == "FINISHED" and run.facts.has(tags)]
        ranked = rank((_best(run, metric, model_path) for run in finished if metric in run.facts.metrics), order)
        if not ranked:
            raise no_run_to_choose(experiment_name, [run.facts for run in runs], metric, tags)
        folders, troubles = {run.run_id: run.folder for run in runs}, []
        for best in ranked[:CANDIDATES]:
            model = folders[best.run_id] / model_path
            try:
                require_model({entry.name for entry in model.iterdir()} if model.is_dir() else set(), str(model))
            except ModelFilesError as error:
                troubles.append(str(error))
                continue
            yield best
        raise no_model_in_any(experiment_name, metric, model_path, len(ranked[:CANDIDATES]), troubles)

    def _runs(self, experiment_name: str) -> list[_Run]:
        experiments = self._root / "experiments"
        folder = experiments / file_name(experiment_name)
        if not folder.is_dir():
            there = [plain_name(path.name) for path in experiments.iterdir()] if experiments.is_dir() else []
            raise no_such_experiment(experiment_name, str(self._root), there)
        return [_run(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _run(folder: Path) -> _Run:
    try:
        written = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        facts = RunFacts(written["status"], written["metrics"], written["tags"])
        started = datetime.fromisoformat(written["started"])
        return _Run(folder.name, folder, facts, written["parameters"], started)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{folder / 'run.json'} does not describe a run ({error!r})") from error


def _best(run: _Run, metric: str, model_path: str) -> BestRun:
    value = float(run.facts.metrics[metric])
    return BestRun(run.run_id, metric, value, run.parameters, run.started, f"runs:/{run.run_id}/{model_path}")
