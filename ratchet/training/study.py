"""The Optuna study behind a sweep that searches or halves: kept in a database, so that it outlives its processes."""

from __future__ import annotations

import copy
import logging
import os
import random
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ratchet.errors import ConfigError, ServerUnreachableError
from ratchet.registry.tracking import shown
from ratchet.space import Choice, Dimension, Point
from ratchet.training.ownership import machine
from ratchet.training.plan import SweepPlan
from ratchet.training.pruning import pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

STORAGE = "RATCHET_STUDY_STORAGE"
"""The environment's variable that names a database which several machines share. No setting: it may hold a password."""

logger = logging.getLogger(__name__)

BEAT_SECONDS = 60
STALE_SECONDS = 180
_LOCK_SECONDS = 60
_UNSIGNED = timedelta(days=1)
_GRID_KEY = "trial"  # of a grid, only which of its trials is a parameter
_WORKER = "worker"
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
        _quieten()
        settings, home = plan.settings, plan.config.core.home
        self._plan = plan
        self._worker = f"{machine(home)}/{os.getpid()}"
        self._live: dict[int, Trial] = {}
        self._known: set[int] = set()  # trials that were handed out, or told as over, by this object
        self._closed = threading.Event()
        self._beaten = 0.0
        url = os.environ.get(STORAGE) or f"sqlite:///{(home / 'studies.db').absolute()}"
        halving = pruner(settings, synchronous=synchronous) if settings.halving else optuna.pruners.NopPruner()
        self._storage = _open_storage(url)
        self._study = self._open_study(halving)
        if plan.space is None:
            for trial in plan.trials:
                self._study.enqueue_trial({_GRID_KEY: trial.fingerprint}, skip_if_exists=True)
        self._take_over_the_dead()
        self._retry_the_failed()
        # A thread, because who asks for trials may wait long in between, for a cache to fill say.
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Stop telling other machines that the trials handed out here are alive."""
        self._closed.set()

    def ask(self) -> tuple[int, Point | str] | None:
        """The number of the next trial, with its point, or of a grid its fingerprint; None when there are enough."""
        if time.time() - self._beaten >= BEAT_SECONDS:  # the machine has slept, and its own trials look dead
            self._record_heartbeats()
        fail_stale_trials(self._study)
        counted = self._counted()
        if not any(trial.state == TrialState.WAITING for trial in counted) and self._enough(counted):
            return None
        trial = self._study.ask()
        trial.set_user_attr(_WORKER, self._worker)  # before anything is drawn: whoever dies now is known to be dead
        self._storage.record_heartbeat(trial._trial_id)
        self._live[trial.number] = trial
        self._known.add(trial.number)
        before_it = [other for other in self._counted() if other.number < trial.number]  # of others that ask now, too
        now = self._now(trial.number)
        queued = _FIXED in now.system_attrs or now.params  # or tried again
        if self._enough(before_it) and not queued:
            trial.set_user_attr(_REPEAT, True)
            self.end(trial.number, pruned=False)  # a pruned one without parameters would change how the sampler draws
            return self.ask()
        if self._plan.space is None and self._is_twin(now):
            trial.set_user_attr(_REPEAT, True)
            self.end(trial.number, pruned=False)
            return self.ask()
        self._study.sampler = self._sampler(len(before_it))
        for name, distribution in self._distributions().items():
            trial._suggest(name, distribution)
        before = RetryHeartbeatStaleTrialCallback.retry_history(self._now(trial.number))
        if live := [number for number in before if number in self._live]:
            # This process's own, which others took for dead and queued again: it goes on under the new number.
            self._live[live[-1]] = self._live.pop(trial.number)
            return self.ask()
        return trial.number, self._point(trial.params)

    def _is_twin(self, trial: FrozenTrial) -> bool:
        """Whether another process queued the same one of a grid, in the moment when this one did."""
        others = [other for other in self._study.get_trials(deepcopy=False) if other.state != TrialState.FAIL]
        return any(other.number < trial.number and _asked_for(other) == _asked_for(trial) for other in others)

    def _counted(self) -> list[FrozenTrial]:
        """All trials but those that failed and were queued again."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.FAIL or not _retried(trial, trials)]

    def _enough(self, counted: Sequence[FrozenTrial]) -> bool:
        bound = self._plan.size if self._plan.space is not None else 0
        return bound is not None and sum(_REPEAT not in trial.user_attrs for trial in counted) >= bound

    def report(self, number: int, epochs: int, value: float) -> None:
        """Note the value at a rung; nothing of a trial that others took for dead, and train again."""
        with suppress(UpdateFinishedTrialError):
            self._live[number].report(value, epochs)

    def reported(self, number: int) -> dict[int, float]:
        """The values at the rungs that the trial has passed, in this process or one before."""
        return dict(self._now(number).intermediate_values)

    def should_prune(self, number: int) -> bool:
        """Whether the trial is to stop at the rung that was reported last."""
        if self._now(number).state.is_finished():
            return False  # others took it for dead: they wait for its run, and reuse it
        return self._live[number].should_prune()

    def is_retry(self, number: int) -> bool:
        """Whether the trial was queued because one of the same point had failed."""
        return bool(RetryHeartbeatStaleTrialCallback.retry_history(self._now(number)))

    def _now(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._live[number]._trial_id)

    def finish(self, number: int, value: float) -> None:
        """Note the value of the exported weights; one that is not finite counts as failed."""
        self._study.tell(self._live.pop(number), value, skip_if_finished=True)

    def end(self, number: int, *, pruned: bool) -> None:
        """Note that a trial was pruned, or that it failed."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL
        self._study.tell(self._live.pop(number), state=state, skip_if_finished=True)

    def repeat(self, number: int, value: float | None) -> None:
        """Note that a trial is of a point that was tried already, with its value if it has one."""
        self._live[number].set_user_attr(_REPEAT, True)
        if value is None:
            self.end(number, pruned=True)
        else:
            self.finish(number, value)

    def ended(self) -> list[tuple[Point | str, bool]]:
        """The trials that others ended, now or before this process began, each told once; and whether they were pruned."""
        over = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        trials = [trial for trial in over if trial.number not in self._known and _REPEAT not in trial.user_attrs]
        self._known |= {trial.number for trial in trials}
        return [(self._point(trial.params), trial.state == TrialState.PRUNED) for trial in trials]

    def begun(self) -> int:
        """How many points have been handed out, to any process."""
        trials = self._study.get_trials(deepcopy=False)
        return len({repr(trial.params) for trial in trials if trial.params and trial.state != TrialState.WAITING})

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS / 2):
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
                    optuna.delete_study(study_name=name, storage=self._storage)
        direction = StudyDirection.MAXIMIZE if config.retrain.mode == "max" else StudyDirection.MINIMIZE
        study = optuna.create_study(
            study_name=name, storage=self._storage, direction=direction, pruner=halving, load_if_exists=True
        )
        if settings.force and _FORCED not in study.user_attrs:
            study.set_user_attr(_FORCED, time.time())
            study.set_user_attr(_BEGUN_BY, self._plan.begun_by)
        return study

    def _sampler(self, number: int) -> BaseSampler:
        """Seeded anew for each trial, so that a study that goes on draws what it would have drawn."""
        seed = (self._plan.config.core.seed + 1_000_003 * number) % 2**32
        if self._plan.settings.sampler == "random" or self._plan.space is None:
            return RandomSampler(seed=seed)
        # The trials before may still be exported, and others train elsewhere.
        return TPESampler(seed=seed, constant_liar=True)

    def _distributions(self) -> dict[str, BaseDistribution]:
        if self._plan.space is None:
            return {_GRID_KEY: CategoricalDistribution(sorted(trial.fingerprint for trial in self._plan.trials))}
        return {key: _distribution(dimension) for key, dimension in self._plan.space.dimensions.items()}

    def _point(self, params: Mapping[str, Any]) -> Point | str:
        if self._plan.space is None:
            return str(params[_GRID_KEY])
        return {key: _text(dimension, params[key]) for key, dimension in self._plan.space.dimensions.items()}

    def _others_work_on(self, study: optuna.Study) -> bool:
        """Whether a process that was given the same command, with force, has begun: then this one joins it."""
        fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        just_made = time.time() - study.user_attrs.get(_FORCED, 0.0) < BEAT_SECONDS
        return any(trial.state == TrialState.RUNNING and not self._dead(trial) for trial in trials) or (
            just_made and not any(trial.state.is_finished() for trial in trials)
        )

    def _take_over_the_dead(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._dead(trial):
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _dead(self, trial: FrozenTrial) -> bool:
        """Whether a trial's process was of this machine, and is no more; or died before it could sign, wherever that was."""
        home, _, pid = str(trial.user_attrs.get(_WORKER, "")).rpartition("/")
        if not pid:  # Optuna's times are local ones
            return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _UNSIGNED
        return home == self._worker.rpartition("/")[0] and not _alive(int(pid))

    def _retry_the_failed(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.FAIL and _REPEAT not in trial.user_attrs and not _retried(trial, trials):
                _again(self._study, trial)


def _quieten() -> None:
    """Heartbeats are used beside `Study.optimize` on purpose, and are called experimental since 2021."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")


def _again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a failed trial again, with the values that it had at its rungs, and without the signature of who is dead."""
    unsigned = copy.copy(trial)
    unsigned.user_attrs = {key: value for key, value in trial.user_attrs.items() if key != _WORKER}
    RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(study, unsigned)


def _open_storage(url: str, tries: int = 3) -> RDBStorage:
    options = {"connect_args": {"timeout": _LOCK_SECONDS}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=BEAT_SECONDS,
            grace_period=STALE_SECONDS,
            heartbeat_stale_trial_callback=_again,
        )
    except (ArgumentError, ImportError, ValueError) as error:
        raise ConfigError(f"{STORAGE}={shown(url)} cannot be used: {error}") from error
    except SQLAlchemyError as error:
        if tries == 1:
            raise ServerUnreachableError(f"the study's database {shown(url)} does not answer: {error}") from error
    time.sleep(random.uniform(0.5, 1.5))  # of two processes that make the tables of a new database at once, one fails
    return _open_storage(url, tries - 1)


def _asked_for(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.system_attrs.get(_FIXED, trial.params))


def _retried(trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
    return any(trial.number in RetryHeartbeatStaleTrialCallback.retry_history(other) for other in trials)


def _alive(pid: int) -> bool:
    """Whether another process has this id; a process of this one's id, before, is dead."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        last = len(dimension.values) - 1
        return IntDistribution(0, last) if dimension.ordered else CategoricalDistribution(dimension.values)
    if dimension.integer:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _text(dimension: Dimension, value: Any) -> str:
    if isinstance(dimension, Choice):
        return dimension.values[value] if dimension.ordered else str(value)
    return dimension.text(value)
