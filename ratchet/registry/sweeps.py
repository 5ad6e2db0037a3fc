"""Which trials go with a version: those that were trained beside it in a sweep, where nothing that stays needs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ratchet.registry.searches import all_experiments, all_runs, one_of_runs, quoted_name
from ratchet.run_names import FINGERPRINT_TAG, HEARTBEAT_TAG, PARENT_RUN_TAG, SWEEP_PREFIX, SWEEP_RUN_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

YOUNG_SECONDS = 24 * 3600.0

Stays = Callable[[str], bool]
"""Whether a version that stays, of whatever model, meets a condition of MLflow's search."""


def trials_beside(client: MlflowClient, run_id: str, stays: Stays) -> frozenset[str] | None:
    """The finished runs of the sweeps that a run was in, where no version that stays comes from one; None where one is at work.

    At work is also what ended within a day: its best trial may not be registered yet. Left out are trials of any other sweep,
    those that another run took its weights from, and those that a version which stays was trained as: a training of it may
    go on from their checkpoints.
    """
    own = client.get_run(run_id)
    experiment = own.info.experiment_id
    trials = {tag: all_runs(client, [experiment], f"tags.{quoted_name(tag)} = 'true'") for tag in _sweeps(own)}
    if any(_at_work(client, experiment, tag, runs) for tag, runs in trials.items()):
        return None
    free = {tag for tag, runs in trials.items() if not _in_use(runs, stays)}
    ended = {run.info.run_id: run for tag in free for run in trials[tag] if run.info.status == "FINISHED"}
    alone = [run for key, run in ended.items() if key != run_id and _sweeps(run) <= free]
    everywhere = [found.experiment_id for found in all_experiments(client)] if alone else []
    return frozenset(run.info.run_id for run in alone if not _needed(client, run, everywhere, stays))


def _sweeps(run: Run) -> set[str]:
    return {tag for tag in run.data.tags if tag.startswith(SWEEP_PREFIX)}


def _at_work(client: MlflowClient, experiment: str, tag: str, trials: Sequence[Run]) -> bool:
    """Whether one of its runs, its own among them, has given a sign of life within a day: the killed are marked as running."""
    young = (time.time() - YOUNG_SECONDS) * 1000
    own = f"tags.{quoted_name(SWEEP_RUN_TAG)} = '{tag.removeprefix(SWEEP_PREFIX)}'"
    return any(_last_sign(run) > young for run in (*trials, *all_runs(client, [experiment], own)))


def _last_sign(run: Run) -> float:
    """In milliseconds since 1970. Who opens a run again leaves it its old end."""
    beat = run.data.tags.get(HEARTBEAT_TAG)
    beaten = datetime.fromisoformat(beat).timestamp() * 1000 if beat else 0.0
    return float(max(run.info.start_time, run.info.end_time or 0, beaten))


def _in_use(trials: Sequence[Run], stays: Stays) -> bool:
    return any(stays(one_of) for one_of in one_of_runs([run.info.run_id for run in trials]))


def _needed(client: MlflowClient, trial: Run, experiments: list[str], stays: Stays) -> bool:
    mark = trial.data.tags.get(FINGERPRINT_TAG)
    if mark is not None and stays(f"tags.{quoted_name(FINGERPRINT_TAG)} = '{mark}'"):
        return True
    children = f"tags.{quoted_name(PARENT_RUN_TAG)} = '{trial.info.run_id}'"
    return bool(client.search_runs(experiments, children, max_results=1))
