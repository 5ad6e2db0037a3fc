"""The Optuna study behind a sweep that searches or halves: kept in a database, so that it outlives its processes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import optuna
import psutil
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ratchet.space import Point
from ratchet.training import study_points as points
from ratchet.training import study_storage as storage
from ratchet.training.ownership import machine
from ratchet.training.plan import SweepPlan
from ratchet.training.pruning import pruner
from ratchet.training.study_storage import WORKER, again, patient, quieten, retried

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

logger = logging.getLogger(__name__)

_UNSIGNED = timedelta(days=1)
_FORCED = "forced at"  # of a study: when it was begun by force, in seconds since 1970
_BEGUN_BY = "begun by"  # of such a study: the flow run, which goes on with it when it is taken up
_FIXED = "fixed_params"  # by Optuna, of a trial that was queued
_REPEAT = "repeat"  # marks a draw of a point that was tried already: it uses up nothing


class SweepStudy:
    """Hands out points and takes what became of them. Several processes may work on one study, also on other machines.

    A trial of a process that died is handed out again; of this machine at once, of another when its heartbeat has
    been missing for `STALE_SECONDS`.
    """

    def __init__(self, plan: SweepPlan, *, synchronous: bool) -> None:
        """Open the study, or make it; `synchronous`: its trials wait for each other at a rung.

        Raises `ConfigError`, `ServerUnreachableError`.
        """
        quieten()
        settings, home = plan.settings, plan.config.core.home
        self._plan = plan
        self._worker = f"{machine(home)}/{os.getpid()}"
        self._live: dict[int, Trial] = {}
        self._known: set[int] = set()  # trials that were handed out, or told as over, by this object
        self._closed = threading.Event()
        self._beaten = 0.0
        self.url = storage.address(home)
        self._asked: Trial | None = None  # while the database does not answer, what was handed out is not yet told
        self._idle_since: float | None = None
        halving = pruner(settings, synchronous=synchronous) if settings.halving else optuna.pruners.NopPruner()
        self._storage = storage.open_storage(self.url)
        # To which a trial is stale as soon as its heart has missed a beat: the living beat twice as often.
        self._hasty = storage.open_storage(self.url, grace=3 * storage.BEAT_SECONDS // 4)
        with storage.alone(home):
            self._study = self._open_study(halving)
        if plan.space is None:
            for trial in plan.trials:
                self._study.enqueue_trial({points.GRID_KEY: trial.fingerprint}, skip_if_exists=True)
        self._take_over_the_dead()
        self._retry_the_failed()
        # A thread, because who asks for trials may wait long in between, for a cache to fill say.
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Stop telling other machines that the trials handed out here are alive."""
        self._closed.set()

    @patient
    def ask(self) -> tuple[int, Point | str] | None:
        """The number of the next trial, with its point, or of a grid its fingerprint; None when there are enough."""
        if time.time() - self._beaten >= storage.BEAT_SECONDS:  # the machine has slept, and its own trials look dead
            self._record_heartbeats()
        if self._asked is None:
            fail_stale_trials(self._study)
            counted = self._counted()
            if not any(trial.state == TrialState.WAITING for trial in counted) and self._enough(counted):
                return None
            self._asked = self._study.ask()
        found = self._taken(self._asked)
        self._asked = None
        if found is None:
            return self.ask()
        self._idle_since = None
        return found

    def _taken(self, trial: Trial) -> tuple[int, Point | str] | None:
        """Sign a trial and draw its point, as often as it takes; None where it is one too many, or there already."""
        trial.set_user_attr(WORKER, self._worker)  # before anything is drawn: whoever dies now is known to be dead
        self._storage.record_heartbeat(trial._trial_id)
        self._live[trial.number] = trial
        self._known.add(trial.number)
        before_it = [other for other in self._counted() if other.number < trial.number]  # of others that ask now, too
        now = self._now(trial.number)
        queued = _FIXED in now.system_attrs or now.params  # or tried again
        if (self._enough(before_it) and not queued) or (self._plan.space is None and self._is_twin(now)):
            trial.set_user_attr(_REPEAT, True)
            self.end(trial.number, pruned=False)  # a pruned one without parameters would change how the sampler draws
            return None
        self._study.sampler = points.sampler(self._plan, len(before_it))
        for name, distribution in points.distributions(self._plan).items():
            trial._suggest(name, distribution)
        before = RetryHeartbeatStaleTrialCallback.retry_history(self._now(trial.number))
        if live := [number for number in before if number in self._live]:
            # This process's own, which others took for dead and queued again: it goes on under the new number.
            self._live[live[-1]] = self._live.pop(trial.number)
            return None
        return trial.number, points.point(self._plan, trial.params)

    @patient
    def may_come_back(self) -> bool:
        """Whether a trial of another machine may be one of the dead, to be handed out again when its heartbeat is stale.

        Asked again and again by a process that has nothing else to do: whoever lives has beaten meanwhile.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        elsewhere = {
            trial._trial_id for trial in running if trial.number not in self._live and self._signed_here(trial) is None
        }
        if not elsewhere:
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
            logger.warning(
                "another machine works on the rest; what it leaves silent for %d s is begun again",
                storage.STALE_SECONDS,
            )
        if time.monotonic() - self._idle_since < storage.BEAT_SECONDS:
            return True
        return not elsewhere.isdisjoint(self._hasty._get_stale_trial_ids(self._study._study_id))

    def _is_twin(self, trial: FrozenTrial) -> bool:
        """Whether another process queued the same one of a grid, in the moment when this one did."""
        others = [other for other in self._study.get_trials(deepcopy=False) if other.state != TrialState.FAIL]
        return any(other.number < trial.number and _asked_for(other) == _asked_for(trial) for other in others)

    def _counted(self) -> list[FrozenTrial]:
        """All trials but those that failed and were queued again."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.FAIL or not retried(trial, trials)]

    def _enough(self, counted: Sequence[FrozenTrial]) -> bool:
        bound = self._plan.size if self._plan.space is not None else 0
        return bound is not None and sum(_REPEAT not in trial.user_attrs for trial in counted) >= bound

    @patient
    def report(self, number: int, epochs: int, value: float) -> None:
        """Note the value at a rung; nothing of a trial that others took for dead, and train again."""
        with suppress(UpdateFinishedTrialError):
            self._live[number].report(value, epochs)

    @patient
    def reported(self, number: int) -> dict[int, float]:
        """The values at the rungs that the trial has passed, in this process or one before."""
        return dict(self._now(number).intermediate_values)

    @patient
    def should_prune(self, number: int) -> bool:
        """Whether the trial is to stop at the rung that was reported last."""
        if self._now(number).state.is_finished():
            return False  # others took it for dead: they wait for its run, and reuse it
        return self._live[number].should_prune()

    @patient
    def is_retry(self, number: int) -> bool:
        """Whether the trial was queued because one of the same point had failed."""
        return bool(RetryHeartbeatStaleTrialCallback.retry_history(self._now(number)))

    def _now(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._live[number]._trial_id)

    @patient
    def finish(self, number: int, value: float) -> None:
        """Note the value of the exported weights; one that is not finite counts as failed."""
        self._study.tell(self._live[number], value, skip_if_finished=True)
        del self._live[number]

    @patient
    def end(self, number: int, *, pruned: bool) -> None:
        """Note that a trial was pruned, or that it failed."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL
        self._study.tell(self._live[number], state=state, skip_if_finished=True)
        del self._live[number]

    @patient
    def repeat(self, number: int, value: float | None) -> None:
        """Note that a trial is of a point that was tried already, with its value if it has one."""
        self._live[number].set_user_attr(_REPEAT, True)
        if value is None:
            self.end(number, pruned=True)
        else:
            self.finish(number, value)

    @patient
    def ended(self) -> list[tuple[Point | str, bool]]:
        """The trials that others ended, now or before this process began, each told once; and whether they were pruned."""
        over = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        trials = [trial for trial in over if trial.number not in self._known and _REPEAT not in trial.user_attrs]
        self._known |= {trial.number for trial in trials}
        return [(points.point(self._plan, trial.params), trial.state == TrialState.PRUNED) for trial in trials]

    @patient
    def begun(self) -> int:
        """How many points have been handed out, to any process."""
        trials = self._study.get_trials(deepcopy=False)
        return len({repr(trial.params) for trial in trials if trial.params and trial.state != TrialState.WAITING})

    def _beat(self) -> None:
        while not self._closed.wait(storage.BEAT_SECONDS / 2):
            try:
                self._record_heartbeats()
            except (SQLAlchemyError, StorageInternalError) as error:
                logger.warning("the study's database does not answer; it is tried again: %s", error)

    def _record_heartbeats(self) -> None:
        self._beaten = time.time()
        for trial in tuple(self._live.values()):
            self._storage.record_heartbeat(trial._trial_id)

    def _open_study(self, halving: BasePruner) -> optuna.Study:
        settings, config = self._plan.settings, self._plan.config
        rule = f"-{settings.halving_eta}-{settings.halving_min_epochs}" if settings.halving else ""
        name = f"{config.core.name}-{self._plan.digest}{rule}"
        if settings.force:
            with suppress(KeyError):  # there is none, or another process that begins by force was quicker
                before = optuna.load_study(study_name=name, storage=self._storage)
                own = self._plan.begun_by is not None and before.user_attrs.get(_BEGUN_BY) == self._plan.begun_by
                if not own and not self._others_work_on(before):
                    self._storage.delete_study(before._study_id)  # not by its name, which may be another's by now
        direction = StudyDirection.MAXIMIZE if config.retrain.mode == "max" else StudyDirection.MINIMIZE
        study = optuna.create_study(
            study_name=name, storage=self._storage, direction=direction, pruner=halving, load_if_exists=True
        )
        if settings.force and _FORCED not in study.user_attrs:
            study.set_user_attr(_FORCED, time.time())
            study.set_user_attr(_BEGUN_BY, self._plan.begun_by)
        return study

    def _others_work_on(self, study: optuna.Study) -> bool:
        """Whether a process that was given the same command, with force, has begun: then this one joins it."""
        fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        just_made = time.time() - study.user_attrs.get(_FORCED, 0.0) < storage.BEAT_SECONDS
        return (
            not trials  # it is as good as new, and may have been made just now
            or any(trial.state == TrialState.RUNNING and not self._dead(trial) for trial in trials)
            or (just_made and not any(trial.state.is_finished() for trial in trials))
        )

    def _take_over_the_dead(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._dead(trial):
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _dead(self, trial: FrozenTrial) -> bool:
        """Whether a trial's process was of this machine, and is no more; or died before it could sign, wherever that was."""
        if WORKER not in trial.user_attrs:  # Optuna's times are local ones
            return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _UNSIGNED
        pid = self._signed_here(trial)
        return pid is not None and not (pid != os.getpid() and psutil.pid_exists(pid))

    def _signed_here(self, trial: FrozenTrial) -> int | None:
        """The id of the process that works on a trial, if it is of this machine."""
        home, _, pid = str(trial.user_attrs.get(WORKER, "")).rpartition("/")
        return int(pid) if pid and home == self._worker.rpartition("/")[0] else None

    def _retry_the_failed(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.FAIL and _REPEAT not in trial.user_attrs and not retried(trial, trials):
                again(self._study, trial)


def _asked_for(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.system_attrs.get(_FIXED, trial.params))
