"""The engine of a sweep: a process for each trial that the queue hands out, as many at once as there are slots."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import wait
from typing import Any

from mlflow.exceptions import MlflowException

from ratchet.errors import DataError, RatchetError
from ratchet.registry.tracking import client
from ratchet.run_names import PRUNED_TAG, STOPPED_TAG
from ratchet.training.board import Board
from ratchet.training.budget import SweepBudget
from ratchet.training.caching import cache_key, fill_cache
from ratchet.training.folder import TrialFolder
from ratchet.training.memory import has_memory_for
from ratchet.training.plan import PlannedTrial, SweepPlan
from ratchet.training.process import TrialProcess
from ratchet.training.progress import EXPORTING, FOR_A_GPU, Progress
from ratchet.training.queue import Pruned, TrialQueue, Turn
from ratchet.training.reuse import TrainedBefore
from ratchet.training.run import close_dead_run, end_run, last_values, owned_by
from ratchet.training.slots import GpuLocks, gpus, gpus_are_shared, gpus_to_take, order

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class _Work:
    """A process's turn. `spent` are the seconds that the trial took before it, between other rungs."""

    turn: Turn
    started: float
    spent: float

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started


class Engine:
    """Starts processes for what the queue hands out, and passes on what they tell."""

    def __init__(self, plan: SweepPlan, board: Board, queue: TrialQueue, slots: int, tags: Mapping[str, str]) -> None:
        self._plan, self._board, self._queue, self._tags = plan, board, queue, tags
        self._slots = slots
        self._free = list(reversed(range(slots)))
        self._gpus = GpuLocks()
        self._held: Turn | None = None  # until another sweep leaves a GPU
        self._running: dict[TrialProcess, _Work] = {}
        self._caches: dict[str, Any] = {}
        self._before = TrainedBefore()
        mode = plan.config.retrain.mode
        self._budget = SweepBudget(plan.settings, metric=plan.metric, mode=mode, spent=plan.spent)

    def work(self) -> tuple[str | None, int | None]:
        """Work until nothing is left; return the reason where the budget ended it before, and the queue's `begun`."""
        stopped = None
        try:
            while True:
                if stopped is None:
                    stopped = self._start()
                    if stopped is not None:
                        self._leave(stopped)
                if self._running:
                    self._listen()
                elif stopped is None and self.waits_for_a_gpu:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                    self._budget.wait(_SECONDS_BETWEEN_LOOKS)
                elif stopped is None and self._queue.may_come_back():
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                else:
                    return stopped, self._queue.begun()
        finally:
            self._end(self._running)
            for process in self._running:
                self._leave_slot(process)
            try:
                for process in self._running:
                    stopped_tag = {STOPPED_TAG: "the sweep was stopped"}
                    end_run(process.run_id, "KILLED", stopped_tag, owner=process.owner)
            except (RatchetError, MlflowException) as error:  # not to hide why the sweep ended
                logger.warning("the runs of the trials that were stopped still look as if they ran: %s", error)

    def _start(self) -> str | None:
        """Start as many trials as there is room for; return the reason if no more may be trained. What is there is free."""
        while True:
            reason = self._budget.used_up(result.metrics for result in self._board.results if result.trained)
            turn = self._next(new=reason is None) if self._has_room() else None
            if isinstance(turn, Pruned):
                self._prune(turn)
            elif turn is not None and turn.found is not None:
                self._reuse(turn)
            elif turn is None or reason is not None:
                return reason
            elif not self._begin(turn):
                return None

    def _next(self, *, new: bool) -> Turn | Pruned | None:
        """The turn that waits for a GPU, or else what the queue hands out; without `new` neither that nor a new one."""
        if self._held is None or not new:
            return self._queue.next(new=new)
        over = self._queue.over()  # others may have reached the target meanwhile
        if over is None:
            over, self._held = self._held, None
        return over

    @property
    def waits_for_a_gpu(self) -> bool:
        """Whether a trial that was handed out waits until another sweep leaves it a GPU."""
        return self._held is not None

    def _has_room(self) -> bool:
        """Whether there is a slot. A trial that is exported leaves its own, to no more than two, where exports take longer."""
        exported = sum(process.slot is None for process in self._running)
        return bool(self._free) and exported <= 2 * self._slots

    def _leave_slot(self, process: TrialProcess) -> None:
        if process.slot is not None:
            self._free.append(process.slot)
            self._gpus.leave(process.order.gpus)
            process.slot = None

    def _reuse(self, turn: Turn) -> None:
        trial, before = turn.trial, self._before
        assert turn.found is not None
        run, note = before.into_experiment(turn.found, trial.config, self._tags), before.note(turn.found, trial.config)
        metrics = last_values(run)
        self._board.update(trial, status="reused", run_id=run.info.run_id, metrics=metrics, note=note, error=None)
        self._queue.ended(turn, metrics.get(self._plan.metric))

    def _prune(self, pruned: Pruned) -> None:
        before = self._board.add(pruned.trial)
        if pruned.run_id is None:
            end_run(before.run_id, "KILLED", {PRUNED_TAG: pruned.why})
        run_id = pruned.run_id or before.run_id
        self._board.update(pruned.trial, status="pruned", note=pruned.why, run_id=run_id)

    def _begin(self, turn: Turn) -> bool:
        """Start its process, or hold it where other sweeps have all GPUs; return whether there may be room for another.

        Where its images cannot be cached, it fails alone, unless nothing has been trained yet.
        """
        try:
            self._fill_cache(turn.trial)
        except DataError as error:
            if not self._running and not any(result.trained for result in self._board.results):
                raise
            self._board.update(turn.trial, status="failed", error=f"{type(error).__name__}: {error}")
            self._queue.ended(turn, None)
            return True
        names = gpus_to_take(turn.trial.config, self._slots)
        gpu = self._gpus.take(names)
        if names and gpu is None:
            self._hold(turn)
            return False
        before, slot = self._board.add(turn.trial), self._free.pop()
        process = TrialProcess.start(order(turn, self._tags, slot, self._slots, gpu))
        process.run_id = before.run_id
        if before.progress.phase == FOR_A_GPU:  # it has one now
            begins = before.progress.model_copy(update={"phase": Progress().phase})
            self._board.update(turn.trial, progress=begins)
        self._running[process] = _Work(turn, time.monotonic(), before.seconds)
        return True

    def _hold(self, turn: Turn) -> None:
        """Keep it until there is a GPU for it, and tell so once."""
        self._held, known = turn, self._board.add(turn.trial).progress
        if known.phase != FOR_A_GPU:
            progress = known.model_copy(update={"phase": FOR_A_GPU})
            self._board.update(turn.trial, status="running", progress=progress)

    def _fill_cache(self, trial: PlannedTrial) -> None:
        """Decode the images that it needs, once for all trials that need them; a cache that is held stays in place."""
        key = cache_key(trial.config)
        if key not in self._caches:
            self._caches[key] = fill_cache(
                trial.config, trial.samples, lambda progress: self._board.update(trial, progress=progress)
            )

    def _leave(self, reason: str) -> None:
        """End what is being trained, with a checkpoint; what is trained already is let to its end."""
        while wait([process.connection for process in self._running], timeout=0):  # said while images were decoded
            self._listen()
        late = ("scoring", EXPORTING)
        training = [
            p for p, work in self._running.items() if self._board.add(work.turn.trial).progress.phase not in late
        ]
        self._end(training)
        for process in training:
            work = self._running.pop(process)
            self._leave_slot(process)
            status = "waiting" if process.run_id is None else "paused"  # without a run it had not begun
            self._board.update(work.turn.trial, status=status, run_id=process.run_id, seconds=work.seconds)
        if self._held is not None:
            begun = self._board.add(self._held.trial).run_id is not None
            self._board.update(self._held.trial, status="paused" if begun else "waiting")
        ended = {process.run_id: process.owner for process in training}
        for result in self._board.stop(reason):
            end_run(result.run_id, "KILLED", {STOPPED_TAG: reason}, owner=ended.get(result.run_id))

    @staticmethod
    def _end(processes: Collection[TrialProcess]) -> None:
        """End all of them at once: each may take some seconds to leave a checkpoint."""
        for process in processes:
            process.tell_to_end()
        for process in processes:
            process.end()

    @cached_property
    def _overlaps(self) -> bool:
        """Whether the next trial trains while one is exported. With a target, there may be no next trial."""
        settings, config = self._plan.settings, self._plan.config
        return settings.overlap and settings.target is None and (not gpus(config) or gpus_are_shared())

    def _listen(self) -> None:
        ready = wait([process.connection for process in self._running], timeout=_SECONDS_BETWEEN_LOOKS)
        for process in self._running:
            process.look()
        for process in [process for process in self._running if process.connection in ready]:
            over = self._receive(process, self._running[process])
            if over:
                process.end()  # before its GPU is another sweep's
            if over or (process.exporting and self._overlaps and has_memory_for(process.peak)):
                self._leave_slot(process)
            if over:
                del self._running[process]

    @staticmethod
    def _close(process: TrialProcess, trial: PlannedTrial, reason: str) -> None:
        """Close the run of a trial that failed, if its process could not: it died, or the server was away."""
        try:
            run = None if process.run_id is None else client().get_run(process.run_id)
            if run is None or not owned_by(run, process.owner):
                return  # another machine has taken it over
            unsent = TrialFolder(process.order.config.core.home, trial.fingerprint).unsent
            close_dead_run(process.run_id, "FAILED", reason, unsent=unsent)
        except (RatchetError, MlflowException, OSError) as error:  # the other trials go on
            logger.warning("run %s still looks as if it ran: %s", process.run_id, error)

    def _receive(self, process: TrialProcess, work: _Work) -> bool:
        """Take one message; return whether it was the last."""
        trial = work.turn.trial
        try:
            kind, value = process.connection.recv()
        except (EOFError, ConnectionResetError):
            reason = f"{process.death()} Run the sweep again, and the trial goes on from its last checkpoint."
            kind, value = "failed", reason
        if kind == "started":
            process.run_id = value
            self._board.update(trial, status="running", run_id=value, error=None)
        elif kind == "progress":
            process.exporting = value.phase == EXPORTING
            known = self._board.add(trial).progress
            if not value.max_epochs and known.max_epochs:  # what follows training tells its phase only
                value = known.model_copy(update={"phase": value.phase, "note": value.note})
            self._board.update(trial, status="running", progress=value, note=value.note, seconds=work.seconds)
        elif kind == "failed":
            self._close(process, trial, value)
            self._board.update(trial, status="failed", error=value, seconds=work.seconds)
            self._queue.ended(work.turn, None)
        else:
            process.order.log.unlink(missing_ok=True)
            spent = 0.0 if value.status == "reused" else work.seconds
            self._board.update(trial, **value.model_dump(), seconds=spent)
            if value.status == "paused":
                self._queue.paused(work.turn, value.run_id)
            else:
                elsewhere = value.run_id if value.status == "reused" else None  # trained by another process meanwhile
                self._queue.ended(work.turn, value.metrics.get(self._plan.metric), reused=elsewhere)
        return kind in ("failed", "ended")
