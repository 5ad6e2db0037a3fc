"""Finds the best run of an experiment on MLflow, in a few requests however many runs there are."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from ratchet.errors import RegistryError
from ratchet.registry.mlflow_files import MlflowFiles
from ratchet.registry.ranking import (
    CANDIDATES,
    INFINITE,
    RunFacts,
    checked_mode,
    no_model_in_any,
    no_run_to_choose,
    no_such_experiment,
    rank,
)
from ratchet.registry.searches import all_runs, one_of_runs, quoted_name, quoted_text
from ratchet.registry.tracking import answering, shown
from ratchet.registry.values import BestRun
from ratchet.run_names import PARAMETERS_TAG, SWEEP_RUN_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_PAGE = 200
_SHOWN = 20
_LOOKED_AT = 1_000  # runs, where none can be chosen


class MlflowSelection:
    """Finds the best run of an experiment: at most 4 + 6 * `CANDIDATES` requests, however many runs there are.

    Where more than a thousand are equally good, it is one more for each thousand.
    """

    def __init__(self, client: MlflowClient, uri: str, files: MlflowFiles) -> None:
        """`client` is open on `uri`."""
        self._client = client
        self._uri = uri
        self._files = files

    def candidates(
        self,
        experiment_name: str,
        metric: str,
        mode: str,
        tags: Mapping[str, str] | None,
        model_path: str,
        among: Collection[str] | None = None,
    ) -> Iterator[BestRun]:
        """The finished runs that hold a model, of those with these ids or of all, best first, as far as `CANDIDATES` goes.

        Raises `ExperimentNotFoundError`, `NoFinishedRunError` or `MetricNotLoggedError` before it yields the first,
        `NoFinishedRunError` when none of the runs looked at holds a model.
        """
        order = checked_mode(mode)
        experiment = self._experiment(experiment_name)
        runs = self._best_runs(experiment, metric, order, tags, among)
        if not runs:
            raise self._explained(experiment, metric, tags)
        trials = [run for run in runs if SWEEP_RUN_TAG not in run.data.tags]
        ranked = rank((_candidate(run, metric, model_path) for run in trials), order)
        by_id, troubles = {run.info.run_id: run for run in runs}, []
        for candidate in ranked[:CANDIDATES]:
            trouble = self._files.trouble_with(by_id[candidate.run_id], model_path)
            if trouble is None:
                yield candidate
            else:
                troubles.append(f"{candidate.run_id} ({trouble})")
        raise no_model_in_any(experiment_name, metric, model_path, len(ranked[:CANDIDATES]), troubles)

    def _experiment(self, name: str) -> Experiment:
        with answering(self._uri):
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "active":
                return found
            there = [experiment.name for experiment in self._client.search_experiments(max_results=_SHOWN)]
        raise no_such_experiment(name, shown(self._uri), there, deleted=found is not None)

    def _best_runs(
        self,
        experiment: Experiment,
        metric: str,
        order: str,
        tags: Mapping[str, str] | None,
        among: Collection[str] | None,
    ) -> list[Run]:
        """The best page of runs, whole groups of equals only, so that ties are broken among all of them; of `among`, all."""
        name = f"metrics.{quoted_name(metric)}"
        finished = _finished(tags)
        if among is not None:
            found = [
                run
                for one_of in one_of_runs(sorted(among))
                for run in self._search(experiment, f"{finished} and attributes.{one_of}")
            ]
            return [run for run in found if abs(run.data.metrics.get(metric, math.nan)) < INFINITE]
        # The bound keeps infinity from the top, and lets SQLite begin at the metric's index: 10,000 runs in 0.1 s, not 6.
        # Two bounds lose that again, so the other infinity, which sorts last, is left out here, like NaN.
        best, direction = (f"> {_digits(-INFINITE)}", "ASC") if order == "min" else (f"< {_digits(INFINITE)}", "DESC")
        page = self._first_page(experiment, f"{finished} and {name} {best}", f"{name} {direction}")
        runs = [run for run in page if abs(run.data.metrics.get(metric, math.nan)) < INFINITE]
        if len(page) < _PAGE or len(runs) < len(page):
            return runs
        first, last = runs[0].data.metrics[metric], runs[-1].data.metrics[metric]
        if first == last:
            return self._search(experiment, f"{finished} and {name} = {_digits(first)}", f"{name} {direction}")
        return [run for run in runs if run.data.metrics[metric] != last]

    def _first_page(self, experiment: Experiment, condition: str, order: str, *, most: int = _PAGE) -> list[Run]:
        with answering(self._uri):
            return list(
                self._client.search_runs([experiment.experiment_id], condition, max_results=most, order_by=[order])
            )

    def _search(self, experiment: Experiment, condition: str, *order: str) -> list[Run]:
        with answering(self._uri):
            return all_runs(self._client, [experiment.experiment_id], condition, order=order)

    def _explained(self, experiment: Experiment, metric: str, tags: Mapping[str, str] | None) -> RegistryError:
        """Why there is no run to choose from, by the newest that ended well, or else by the newest."""
        for condition in (_finished(tags), ""):
            runs = self._first_page(experiment, condition, "attributes.start_time DESC", most=_LOOKED_AT)
            trials = [_facts(run) for run in runs if SWEEP_RUN_TAG not in run.data.tags]
            if trials:
                break
        newest = _LOOKED_AT if len(runs) == _LOOKED_AT else None
        return no_run_to_choose(experiment.name, trials, metric, tags, newest=newest)


def _finished(tags: Mapping[str, str] | None) -> str:
    return "attributes.status = 'FINISHED'" + "".join(
        f" and tags.{quoted_name(key)} = {quoted_text(value)}" for key, value in (tags or {}).items()
    )


def _facts(run: Run) -> RunFacts:
    return RunFacts(status=run.info.status, metrics=run.data.metrics, tags=run.data.tags)


def _candidate(run: Run, metric: str, model_path: str) -> BestRun:
    text = run.data.params.get(PARAMETERS_TAG) or run.data.tags.get(PARAMETERS_TAG) or ""
    return BestRun(
        run_id=run.info.run_id,
        metric=metric,
        value=run.data.metrics[metric],
        parameters=int(text) if text.strip().isdecimal() else None,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        model_location=f"runs:/{run.info.run_id}/{model_path}",
    )


def _digits(value: float) -> str:
    """The value exactly, without an exponent: MLflow's filters do not read one."""
    return format(Decimal(value), "f")
