"""Which trial is worked on next, and until which epoch: down a list, or as a study's sampler and pruner say."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ratchet.errors import ConfigError
from ratchet.page_parts import figure
from ratchet.run_names import PRUNED_TAG
from ratchet.training.halving import exported_value, rungs
from ratchet.training.plan import PlannedTrial, Planner, SweepPlan, point_name
from ratchet.training.reuse import TrainedBefore
from ratchet.training.run import validations

if TYPE_CHECKING:
    from mlflow.entities import Run

    from ratchet.space import Point


logger = logging.getLogger(__name__)

_REPEATS = 20  # draws in a row of points that were tried: then there are hardly any others


@dataclass(frozen=True)
class Turn:
    """A trial to work on, until an epoch or to its end; or, where it was trained before, its finished run.

    `number` is the study's, where there is one.
    """

    trial: PlannedTrial
    until_epoch: int | None = None
    found: Run | None = None
    number: int | None = None


@dataclass(frozen=True)
class Pruned:
    """A trial that does not go on, and why; with its run, if this process has not worked on it."""

    trial: PlannedTrial
    why: str
    run_id: str | None = None


class TrialQueue(ABC):
    """What the engine asks for work. By default nothing pauses, and nobody shares it. A queue is for one thread."""

    @abstractmethod
    def next(self, *, new: bool = True) -> Turn | Pruned | None:
        """The next thing to do; None: nothing, before a trial that is worked on comes to its end.

        Without `new`, no trial is begun by it: the rest comes all the same.
        """

    def over(self) -> Turn | Pruned | None:
        """The next that needs no training, where others have ended it; None: nothing."""
        return None

    def paused(self, turn: Turn, run_id: str) -> None:
        """Take a trial that came to the epoch where it was to pause."""

    def ended(self, turn: Turn, value: float | None, *, reused: str | None = None) -> None:
        """Take a trial that is over, with the value of its exported weights; None: it failed.

        `reused` is its run where another process has trained it meanwhile.
        """

    def pruned(self) -> set[str]:
        """The fingerprints of those that ended at a rung before this process began."""
        return set()

    def may_come_back(self) -> bool:
        """Whether a trial that another machine works on may yet be handed out here: its process may be dead."""
        return False

    def begun(self) -> int | None:
        """How many trials any process has begun; None where it is this one only that begins them."""
        return None

    def close(self) -> None:
        """Nothing more is asked."""


class TrialList(TrialQueue):
    """A grid: what has been trained before comes first, since it costs nothing."""

    def __init__(self, plan: SweepPlan, found: Mapping[str, Run]) -> None:
        turns = [Turn(trial, found=found.get(trial.fingerprint)) for trial in plan.trials]
        self._turns = deque(sorted(turns, key=lambda turn: turn.found is None))

    def next(self, *, new: bool = True) -> Turn | None:
        """The next in the list."""
        there = self._turns and (new or self._turns[0].found is not None)
        return self._turns.popleft() if there else None


class StudyQueue(TrialQueue):
    """Trials that a study hands out: points of a space, or those of a grid that is halved.

    With one trial at a time, of a number that is known, those of a rung wait until all have come there; else each is judged
    at once.
    """

    def __init__(self, plan: SweepPlan, *, at_once: int) -> None:
        """Open the study. Raises `ConfigError`, `ServerUnreachableError`."""
        from ratchet.training.study import SweepStudy  # noqa: PLC0415 - imports Optuna

        self._plan = plan
        self._waits = at_once == 1 and plan.size is not None
        self._planner = Planner(plan.trials)
        self._before = TrainedBefore()
        self._study = SweepStudy(plan, synchronous=self._waits)
        self._values: dict[str, float | None] = {}  # of the trials handed out, by fingerprint
        self._failed: set[str] = set()  # those of them that others may queue again
        self._ready: deque[Turn | Pruned] = deque(self._ended_elsewhere())
        self._pruned = {over.trial.fingerprint for over in self._ready if isinstance(over, Pruned)}
        self._held: dict[int, list[tuple[Turn, float]]] = defaultdict(list)
        self._repeats = 0

    def next(self, *, new: bool = True) -> Turn | Pruned | None:
        """A trial that goes on, or else a new one."""
        if not self._ready:
            self._ready.extend(self._ended_elsewhere())
        if not self._ready and not new:
            return None
        while not self._ready:
            asked = self._study.ask() if self._repeats < _REPEATS else None
            if asked is not None:
                self._take(*asked)
            elif self._held:
                self._release(min(self._held))
            else:
                return None
        return self._ready.popleft()

    def over(self) -> Turn | Pruned | None:
        """As the study tells."""
        if not self._ready:
            self._ready.extend(self._ended_elsewhere())
        first = self._ready[0] if self._ready else None
        is_over = isinstance(first, Pruned) or (first is not None and first.found is not None)
        return self._ready.popleft() if is_over else None

    def paused(self, turn: Turn, run_id: str) -> None:
        """Judge it now, or when the others of its rung are here."""
        assert turn.number is not None
        assert turn.until_epoch is not None
        value = self._rung_value(run_id, turn.trial, turn.until_epoch)
        self._study.report(turn.number, turn.until_epoch, value)
        self._held[turn.until_epoch].append((turn, value))
        if not self._waits:
            self._release(turn.until_epoch)

    def ended(self, turn: Turn, value: float | None, *, reused: str | None = None) -> None:
        """Let the sampler learn from it."""
        self._values[turn.trial.fingerprint] = value
        if turn.number is None:
            return
        if value is None:
            self._failed.add(turn.trial.fingerprint)
            self._study.end(turn.number, pruned=False)
            return
        run_id = reused if turn.found is None else turn.found.info.run_id
        if run_id is not None:
            for rung in self._rungs(turn.trial):
                self._study.report(turn.number, rung, self._rung_value(run_id, turn.trial, rung))
                self._study.should_prune(turn.number)  # which keeps the value for those that come to the rung later
        self._study.finish(turn.number, value)

    def pruned(self) -> set[str]:
        """Those that the study had pruned when it was opened, and that nobody has trained to their end since."""
        return self._pruned

    def may_come_back(self) -> bool:
        """As the study's heartbeats tell."""
        return self._repeats < _REPEATS and self._study.may_come_back()

    def begun(self) -> int:
        """Those that the study has handed out."""
        return self._study.begun()

    def close(self) -> None:
        """Stop the study's heartbeats."""
        self._study.close()

    def _take(self, number: int, point: Point | str) -> None:
        """Make a turn of what the study handed out; a point that was drawn before is told its value again.

        A point that is refused is left out: each of its values was composed when the sweep was planned, but not these together.
        """
        try:
            trial = self._trial(point)
        except ConfigError as error:
            if self._plan.space is None or isinstance(point, str):
                raise
            self._trial(self._plan.trials[0].point)  # raises where it is not the combination that is refused
            logger.warning("%s is left out: %s", point_name(point, self._plan.space), error)
            self._repeats += 1
            self._study.repeat(number, None)
            return
        again = trial.fingerprint in self._failed and self._study.is_retry(number)
        if trial.fingerprint in self._values and not again:
            self._repeats += 1
            self._study.repeat(number, self._values[trial.fingerprint])
            return
        self._values[trial.fingerprint], self._repeats = None, 0
        self._failed.discard(trial.fingerprint)
        reported, rungs = self._study.reported(number), self._rungs(trial)
        force = trial.config.sweep.force
        found = None if force else self._before.finished(trial.fingerprint, trial.config.core.name)
        passed = max((rung for rung in rungs if rung in reported), default=0)
        turn = Turn(trial, found=found, number=number)
        if passed and found is None and self._waits:  # its process died at or after that rung: nobody knows who went on
            self._held[passed].append((replace(turn, until_epoch=passed), reported[passed]))
        else:
            self._ready.append(replace(turn, until_epoch=next((rung for rung in rungs if rung > passed), None)))

    def _release(self, rung: int) -> None:
        """Judge the trials that are at a rung, the best first."""
        sign = -1.0 if self._plan.config.retrain.mode == "max" else 1.0
        held = sorted(self._held.pop(rung), key=lambda pair: (math.isnan(pair[1]), sign * pair[1]))
        going_on = []
        over = self._study.to_prune([turn.number for turn, _ in held if turn.number is not None], rung)
        for turn, value in held:
            assert turn.number is not None
            if turn.number in over:
                self._study.end(turn.number, pruned=True)
                why = f"{self._plan.metric} {figure(value)} after epoch {rung}: not among the best 1 in {self._eta}"
                self._ready.append(Pruned(turn.trial, why))
            else:
                later = next((later for later in self._rungs(turn.trial) if later > rung), None)
                going_on.append(replace(turn, until_epoch=later))
        self._ready.extend(going_on)

    def _ended_elsewhere(self) -> list[Turn | Pruned]:
        """The trials that were over before this process began, or that others have ended since this was asked last."""
        over = [(self._trial(point), pruned) for point, pruned in self._study.ended()]
        # Also with force: a study that was begun by force holds no other trials than those of this sweep. One that was pruned
        # may have been trained to its end since, by another command.
        found = self._before.all_finished({trial.fingerprint: trial.config.core.name for trial, _ in over})
        turns: list[Turn | Pruned] = []
        for trial, pruned in over:
            if trial.fingerprint in self._values and trial.fingerprint not in self._failed:
                continue
            self._values[trial.fingerprint] = None
            self._failed.discard(trial.fingerprint)
            if not pruned or trial.fingerprint in found:  # where its run is gone, it is trained again
                turns.append(Turn(trial, found=found.get(trial.fingerprint)))
                continue
            killed = [run for run in self._before.runs(trial.fingerprint) if PRUNED_TAG in run.data.tags]
            why = (
                killed[0].data.tags[PRUNED_TAG] if killed else "by another process"
            )  # its run will say more in a moment
            turns.append(Pruned(trial, why, killed[0].info.run_id if killed else None))
        return turns

    def _trial(self, point: Point | str) -> PlannedTrial:
        from ratchet.config import compose_point  # noqa: PLC0415 - imports Hydra

        if isinstance(point, str):
            return next(trial for trial in self._plan.trials if trial.fingerprint == point)
        assert self._plan.space is not None
        config = compose_point(self._plan.space, point)
        config = config.model_copy(update={"retrain": self._plan.config.retrain, "sweep": self._plan.settings})
        return self._planner.trial(config, point, point_name(point, self._plan.space))

    @property
    def _eta(self) -> int:
        return self._plan.settings.halving_eta

    def _rungs(self, trial: PlannedTrial) -> tuple[int, ...]:
        settings = self._plan.settings
        return rungs(settings, trial.config.trainer["max_epochs"]) if settings.halving else ()

    def _rung_value(self, run_id: str, trial: PlannedTrial, epochs: int) -> float:
        config, done = trial.config, epochs // trial.config.trainer.get("check_val_every_n_epoch", 1)
        return exported_value(config, partial(validations, run_id), done)


def trained_before(trials: list[PlannedTrial] | tuple[PlannedTrial, ...]) -> dict[str, Run]:
    """The finished runs of those trials that have one, unless they are to be trained anew."""
    wanted = {trial.fingerprint: trial.config.core.name for trial in trials if not trial.config.sweep.force}
    return TrainedBefore().all_finished(wanted) if wanted else {}
