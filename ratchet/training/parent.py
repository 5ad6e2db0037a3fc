"""The sweep's own MLflow run: its trials are nested below it, and it shows the plan, the outcome and the comparison."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from ratchet.comparison import draw_page, gather
from ratchet.errors import RatchetError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import FAILURE_TAG, NESTED_TAG, SWEEP_RUN_TAG
from ratchet.settings import flatten
from ratchet.space import Interval
from ratchet.training.markdown import short_trial_table
from ratchet.training.plan import SweepPlan
from ratchet.training.preview import Preview, rows
from ratchet.training.results import SweepOutcome, TrialResult, best_of
from ratchet.training.run import log_params, metric_rows, tag_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

PLAN_TAG = "ratchet.plan"
OUTCOME_TAG = "ratchet.outcome"
BEST_TAG = "ratchet.best_run"
PAGE = "comparison.html"
"""The artifact of the sweep's run that compares its trials."""

_STATE_TAG = "ratchet.sweep_state"
_NOTE_TAG = "mlflow.note.content"
_MOST_OF_A_NOTE = 7900  # characters: MLflow cuts a tag at 8,000
_KEPT_SECONDS = 90 * 24 * 3600.0
_BEST = "best/"  # so that no metric of it is taken for a trial's


class SweepRun:
    """RUNNING inside its block; a sweep that goes on goes on in the run that it had. A single trial has none."""

    def __init__(self, plan: SweepPlan, run: Run | None, note: str | None = None) -> None:
        """`run` is open; `note` goes into its description."""
        self._plan = plan
        self._run_id = None if run is None else str(run.info.run_id)
        self._experiment = "" if run is None else str(run.info.experiment_id)
        self._state = "" if run is None else run.data.tags.get(_STATE_TAG, "")
        self._note = note
        self._left = False

    @classmethod
    def of(cls, plan: SweepPlan, tags: Mapping[str, str]) -> SweepRun:
        """Open the run of this sweep, or make it; a sweep that is forced has a new one."""
        if plan.space is None and len(plan.trials) == 1:
            return cls(plan, None)
        store, experiment = client(), ensure_experiment(plan.config.core.name)
        before = [] if plan.settings.force else _runs(store, experiment, plan.digest)
        if before:
            store.update_run(before[0].info.run_id, status="RUNNING")
            if FAILURE_TAG in before[0].data.tags:
                store.delete_tag(before[0].info.run_id, FAILURE_TAG)
            return cls(plan, before[0], tags.get(_NOTE_TAG))
        user_tag = {"tag": plan.config.core.tag} if plan.config.core.tag else {}
        tags = {**tags, **user_tag, SWEEP_RUN_TAG: plan.digest}
        run = store.create_run(experiment, run_name=f"sweep {', '.join(_keys(plan))}".strip(), tags=tags)
        log_params(store, run.info.run_id, _params(plan))
        return cls(plan, run, tags.get(_NOTE_TAG))

    @property
    def trial_tags(self) -> dict[str, str]:
        """What the runs of its trials carry."""
        parent = {} if self._run_id is None else {NESTED_TAG: self._run_id}
        return {self._plan.tag: "true", **parent}

    def __enter__(self) -> SweepRun:
        """Nothing is to be done."""
        return self

    def leave_open(self) -> None:
        """Let the run be as it is when the block is left: other processes are at work on its sweep."""
        self._left = True

    def tell(self, told: Preview) -> None:
        """Keep the plan."""
        if self._run_id is not None:
            tag_run(self._run_id, {PLAN_TAG: told.sentence})
            client().log_dict(self._run_id, {"sentence": told.sentence, "trials": rows(told)}, "plan.json")

    def conclude(self, outcome: SweepOutcome) -> SweepOutcome:
        """Write down how the sweep ended, with the page that compares its trials, unless nothing has changed."""
        if self._run_id is None:
            return outcome
        page: Path | None = self._page()
        with suppress(OSError):
            os.utime(self._page())  # one that is asked for again is kept
        if _state(outcome) != self._state or not self._page().is_file():
            page = self._write_page(outcome)
            try:
                self._log(outcome, page)
            except (RatchetError, MlflowException) as error:  # the trials are there, though somebody deleted this run
                logger.warning("the sweep's run %s does not tell how it ended: %s", self._run_id, error)
        own = {"run_id": self._run_id, "experiment_id": self._experiment, "page": page}
        return outcome.model_copy(update=own)

    def _log(self, outcome: SweepOutcome, page: Path | None) -> None:
        store, run_id = client(), str(self._run_id)
        if page is not None:
            store.log_artifact(run_id, str(page))
        best = best_of(outcome.trials, outcome.metric, outcome.mode)
        tags = {OUTCOME_TAG: outcome.remark or "finished", _STATE_TAG: _state(outcome)}
        tags[_NOTE_TAG] = self._description(outcome, best)
        if best is not None and best.run_id is not None:
            tags[BEST_TAG] = best.run_id
            store.log_batch(
                run_id, metrics=metric_rows({f"{_BEST}{key}": value for key, value in best.metrics.items()}, 0)
            )
        tag_run(run_id, tags)

    def _description(self, outcome: SweepOutcome, best: TrialResult | None) -> str:
        """What was said of the run when it was made, what the budget left undone, and the trials, or the best of many."""
        said = "\n\n".join(filter(None, [self._note, outcome.stopped]))
        table = short_trial_table(
            outcome,
            best=None if best is None else best.run_id,
            link=lambda run_id: f"#/experiments/{self._experiment}/runs/{run_id}",  # within MLflow's pages
            room=_MOST_OF_A_NOTE - len(said),
            rest=PAGE,
        )
        return f"{said}\n\n{table}".strip()

    def _page(self) -> Path:
        return (self._plan.config.core.home / "sweeps" / self._plan.digest / PAGE).absolute()

    def _write_page(self, outcome: SweepOutcome) -> Path | None:
        """Draw the page; a sweep of many hours is not lost to a picture that cannot be read."""
        plan, path = self._plan, self._page()
        dimensions = {} if plan.space is None else plan.space.dimensions
        try:
            comparison = gather(
                outcome,
                title=_title(plan, len(outcome.trials)),
                experiment=plan.config.core.name,
                experiment_id=self._experiment,
                logarithmic=[key for key, found in dimensions.items() if isinstance(found, Interval) and found.log],
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            try:
                draft.write_text(draw_page(comparison), encoding="utf-8")
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
            _remove_old(path.parents[1])
        except Exception:
            logger.warning("the page that compares the trials could not be made", exc_info=True)
            return None
        return path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run as what the sweep was."""
        if self._run_id is None or self._left:
            return
        try:
            if error is None:
                if FAILURE_TAG in client().get_run(self._run_id).data.tags:  # of another process that left the sweep
                    client().delete_tag(self._run_id, FAILURE_TAG)
                client().set_terminated(self._run_id, "FINISHED")
                return
            tag_run(self._run_id, {FAILURE_TAG: f"{type(error).__name__}: {error}"[:5000]})
            client().set_terminated(self._run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        except (RatchetError, MlflowException) as unreachable:  # not to hide why the sweep ended
            logger.warning("the sweep's run %s still looks as if it ran: %s", self._run_id, unreachable)


def _remove_old(folder: Path) -> None:
    """Remove the pages of sweeps that nobody has repeated for long: MLflow has them, too."""
    for page in folder.glob(f"*/{PAGE}"):
        with suppress(FileNotFoundError):  # another process has removed it
            if time.time() - page.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(page.parent, ignore_errors=True)


def _runs(store: MlflowClient, experiment: str, digest: str) -> list[Run]:
    order = ["attributes.start_time DESC"]
    return list(store.search_runs([experiment], f"tags.`{SWEEP_RUN_TAG}` = '{digest}'", order_by=order, max_results=1))


def _state(outcome: SweepOutcome) -> str:
    """What the page is made of, as a hash: a trial that is reused is the same as when it finished."""
    parts = [[trial.run_id, "trained" if trial.trained else trial.status] for trial in outcome.trials]
    return hashlib.sha256(json.dumps([parts, outcome.stopped]).encode()).hexdigest()


def _keys(plan: SweepPlan) -> list[str]:
    keys = plan.space.dimensions if plan.space is not None else plan.trials[0].point
    return [key.lstrip("+").split(".")[-1] for key in keys]


def _title(plan: SweepPlan, trials: int) -> str:
    *most, last = _keys(plan) or ["several things"]
    return f"{trials} trial{'s' if trials != 1 else ''} of {', '.join(most)}{' and ' if most else ''}{last}"


def _params(plan: SweepPlan) -> dict[str, object]:
    """What the trials have in common, and the values of what they have not."""
    params = dict(flatten(plan.config.model_dump(mode="json")))
    if plan.space is not None:
        return params | {key.lstrip("+"): str(dimension) for key, dimension in plan.space.dimensions.items()}
    for key in plan.trials[0].point:
        params[key.lstrip("+")] = ", ".join(dict.fromkeys(trial.point[key] for trial in plan.trials))
    return params
