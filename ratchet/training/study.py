"""The Optuna study behind a sweep that searches or halves: kept in a database, so that it outlives its processes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ratchet.space import Point
from ratchet.training import study_points as points
from ratchet.training import study_storage as storage
from ratchet.training.ownership import machine, pid_namespace
from ratchet.training.plan import SweepPlan
from ratchet.training.pruning import SynchronousHalving, pruner
from ratchet.training.study_storage import again, counted, patient, quieten, retried, retry_history, states
from ratchet.training.study_workers import WORKER, is_dead, signed_here

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

logger = logging.getLogger(__name__)

_FORCED = "forced at"  # of a study: when it was begun by force, in seconds since 1970
_BEGUN_BY = "begun by"  # of such a study: the flow run, which goes on with it when it is taken up
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
        self._worker = f"{machine(home)}/{pid_namespace()}/{os.getpid()}"
        self._live: dict[int, Trial] = {}
        self._grid = [] if plan.space is not None else list(dict.fromkeys(trial.fingerprint for trial in plan.trials))
        self._lost: set[int] = set()
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
            there = {points.asked_for(trial).get(points.GRID_KEY) for trial in self._study.get_trials(deepcopy=False)}
            for fingerprint in self._grid:  # what another process queues meanwhile is a twin
                if fingerprint not in there:
                    self._study.enqueue_trial({points.GRID_KEY: fingerprint})
        self._take_over_the_dead()
        self._retry_the_failed()
        self._lost.clear()
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
            now = self._states()
            if TrialState.WAITING not in now.values() and self._is_full(len(now)):
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
        each_once = bool(self._grid) and len(self._states()) == len(self._grid)
        trials = [] if each_once else self._study.get_trials(deepcopy=False)
        before_it = [other for other in counted(trials) if other.number < trial.number]  # of others that ask now, too
        now = self._now(trial.number)
        queued = points.FIXED in now.system_attrs or now.params  # or tried again
        if (self._enough(before_it) and not queued) or self._is_twin(now, trials):
            trial.set_user_attr(_REPEAT, True)
            self.end(trial.number, pruned=False)  # a pruned one without parameters would change how the sampler draws
            return None
        self._study.sampler = points.sampler(self._plan, len(before_it))
        for name, distribution in points.distributions(self._plan).items():
            trial._suggest(name, distribution)
        now = self._now(trial.number)
        if live := [number for number in retry_history(now) if number in self._live]:
            # This process's own, which others took for dead and queued again: it goes on under the new number.
            self._live[live[-1]] = self._live.pop(trial.number)
            return None
        return trial.number, points.point(self._plan, now)

    @patient
    def may_come_back(self) -> bool:
        """Whether a trial of another process may be one of the dead: of this machine at once, of another when its heartbeat is
        stale.

        Asked again and again by a process that has nothing else to do: whoever lives has beaten meanwhile.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others = [trial for trial in running if trial.number not in self._own()]
        if self._lost or any(
            signed_here(trial, self._worker) != os.getpid() and is_dead(trial, self._worker) for trial in others
        ):
            self._take_over_the_dead()
            self._retry_the_failed(self._lost)
            self._lost.clear()
            return True
        elsewhere = {trial._trial_id for trial in others if signed_here(trial, self._worker) is None}
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

    def _is_twin(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
        """Whether another process queued the same one, of a grid or again, in the moment when this one did."""
        earlier = [other for other in trials if other.state != TrialState.FAIL and other.number < trial.number]
        if self._plan.space is None:
            return any(points.asked_for(other) == points.asked_for(trial) for other in earlier)
        before = retry_history(trial)
        return bool(before) and any(retry_history(other) == before for other in earlier)

    def _own(self) -> set[int]:
        """The trials that this object has handed out, by the numbers that they have now."""
        return {trial.number for trial in self._live.values()}

    def _states(self) -> dict[int, TrialState]:
        return states(self._storage, self._study._study_id)

    def _is_full(self, trials: int) -> bool:
        """Whether none is drawn any more, of so many trials."""
        if self._plan.space is None:
            return True
        bound = self._plan.size
        return bound is not None and trials >= bound and self._enough(counted(self._study.get_trials(deepcopy=False)))

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
    def to_prune(self, numbers: Sequence[int], rung: int) -> set[int]:
        """Which of the trials, all at the same rung, are to stop there."""
        judge = self._study.pruner
        if not isinstance(judge, SynchronousHalving):
            return {number for number in numbers if self.should_prune(number)}
        trials = self._study.get_trials(deepcopy=False)
        best, states = judge.best(self._study.direction, trials, rung), {trial.number: trial.state for trial in trials}
        now = {number: self._live[number].number for number in numbers}  # of one that was queued again, it is another
        return {number for number, own in now.items() if not states[own].is_finished() and own not in best}

    @patient
    def is_retry(self, number: int) -> bool:
        """Whether the trial was queued because one of the same point had failed."""
        return bool(retry_history(self._now(number)))

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
        ended = {
            number for number, state in self._states().items() if state in (TrialState.COMPLETE, TrialState.PRUNED)
        }
        if not (new := ended - self._known):
            return []
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number in new]
        self._known |= new
        trials = [trial for trial in trials if _REPEAT not in trial.user_attrs]
        return [(points.point(self._plan, trial), trial.state == TrialState.PRUNED) for trial in trials]

    @patient
    def begun(self) -> int:
        """How many points have been handed out, to any process."""
        trials = self._study.get_trials(deepcopy=False)
        begun = [t for t in trials if t.state != TrialState.WAITING and _REPEAT not in t.user_attrs]
        asked = [points.asked_for(trial) for trial in begun]
        return len({repr(found) for found in asked if found})

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
            or any(trial.state == TrialState.RUNNING and not is_dead(trial, self._worker) for trial in trials)
            or (just_made and not any(trial.state.is_finished() for trial in trials))
        )

    def _take_over_the_dead(self) -> None:
        """Note those whose process is dead as failed, and as lost until they are queued again."""
        running, own = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)), self._own()
        for trial in running:
            if trial.number not in own and is_dead(trial, self._worker):
                self._lost.add(trial.number)  # first: the database may go away behind the next line
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _retry_the_failed(self, only: Collection[int] | None = None) -> None:
        trials = self._study.get_trials(deepcopy=False)
        queued_again = retried(trials)
        for trial in trials:
            wanted = only is None or trial.number in only
            failed = trial.state == TrialState.FAIL and _REPEAT not in trial.user_attrs
            if wanted and failed and trial.number not in queued_again:
                again(self._study, trial)
