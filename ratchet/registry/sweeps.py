"""Which trials go with a version: those that were trained beside it in a sweep, where nothing that stays needs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ratchet.registry.selection import SWEEP_RUN_TAG, quoted
from ratchet.registry.values import FINGERPRINT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SWEEP_PREFIX = "ratchet.sweep."  # a sweep's digest follows: the tag of all its trials' runs, of reused ones too
_PARENT_RUN_TAG = "ratchet.parent_run"  # the run that a training took its first weights from
YOUNG_SECONDS = 24 * 3600.0
_HEARTBEAT_TAG = "ratchet.heartbeat"  # of a trial that is at work, every half a minute
_ALL = 50_000  # MLflow's largest page
_AT_ONCE = 50  # runs in one question, which is part of the address

Stays = Callable[[str], bool]
"""Whether a version that stays, of whatever model, meets a condition of MLflow's search."""


def trials_beside(client: MlflowClient, run_id: str, stays: Stays) -> frozenset[str] | None:
    """The finished runs of the sweeps that a run was in, where no version that stays comes from one; None where one is at work.

    At work is also what ended within a day: its best trial may not be registered yet. Left out are trials of any other sweep,
    those that another run took its weights from, and those that a version which stays was trained as: a training of it may
    go on from their checkpoints.
    """
    own = client.get_run(run_id)
    trials = {tag: _search(client, [own.info.experiment_id], f"tags.{quoted(tag)} = 'true'") for tag in _sweeps(own)}
    if any(_at_work(client, own.info.experiment_id, tag, runs) for tag, runs in trials.items()):
        return None
    free = {tag for tag, runs in trials.items() if not _in_use(runs, stays)}
    ended = {run.info.run_id: run for tag in free for run in trials[tag] if run.info.status == "FINISHED"}
    alone = [run for key, run in ended.items() if key != run_id and _sweeps(run) <= free]
    everywhere = [found.experiment_id for found in client.search_experiments(max_results=_ALL)] if alone else []
    return frozenset(run.info.run_id for run in alone if not _needed(client, run, everywhere, stays))


def _sweeps(run: Run) -> set[str]:
    return {tag for tag in run.data.tags if tag.startswith(SWEEP_PREFIX)}


def _at_work(client: MlflowClient, experiment: str, tag: str, trials: Sequence[Run]) -> bool:
    """Whether one of its runs, its own among them, has given a sign of life within a day: the killed are marked as running."""
    young = (time.time() - YOUNG_SECONDS) * 1000
    own = f"tags.{quoted(SWEEP_RUN_TAG)} = '{tag.removeprefix(SWEEP_PREFIX)}'"
    return any(_last_sign(run) > young for run in (*trials, *_search(client, [experiment], own)))


def _last_sign(run: Run) -> float:
    """In milliseconds since 1970. Who opens a run again leaves it its old end."""
    beat = run.data.tags.get(_HEARTBEAT_TAG)
    beaten = datetime.fromisoformat(beat).timestamp() * 1000 if beat else 0.0
    return float(max(run.info.start_time, run.info.end_time or 0, beaten))


def _in_use(trials: Sequence[Run], stays: Stays) -> bool:
    ids = [f"'{run.info.run_id}'" for run in trials]
    parts = (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
    return any(stays(f"run_id IN ({', '.join(part)})") for part in parts)


def _needed(client: MlflowClient, trial: Run, experiments: list[str], stays: Stays) -> bool:
    mark = trial.data.tags.get(FINGERPRINT_TAG)
    if mark is not None and stays(f"tags.{quoted(FINGERPRINT_TAG)} = '{mark}'"):
        return True
    return bool(_search(client, experiments, f"tags.{quoted(_PARENT_RUN_TAG)} = '{trial.info.run_id}'"))


def _search(client: MlflowClient, experiments: list[str], condition: str) -> list[Run]:
    return list(client.search_runs(experiments, condition, max_results=_ALL))
