"""Takes snapshots of a training, and puts one back so that the training goes on as if it had never stopped."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Checkpoint,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ratchet.errors import ConfigError, TrainingError
from ratchet.training.epoch_sums import Sums, add_sums, epoch_sums
from ratchet.training.folder import Facts, Snapshot, TrialFolder
from ratchet.training.random_state import random_state, set_random_state

# A snapshot waits until the training has taken this many times as long as the last one took to write: at most 5 % are lost.
_TIMES_ITS_COST = 20
_TIMES_FIRST = 8  # of the first one within an epoch, whose cost is only expected: until then a kill loses everything
_BYTES_A_SECOND = 5e8  # that a disk is thought to take, until one was written
_STATES = 3  # of a weight: itself, and the two that Adam keeps of it
# Within an epoch, one is due when a kill would cost this share of the trial's time so far; a shorter time is no loss.
_SHARE_TO_LOSE = 1 / 20
_SECONDS_TO_LOSE = 10.0


class StraightToDisk(TorchCheckpointIO):
    """Writes checkpoints into their files. Lightning makes each in memory first, and copies it: six times as long."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it beside `path`, a local one, and let it take its place when it is whole: snapshots link what is there."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.draft")
        torch.save(checkpoint, draft)
        draft.replace(target)


class Snapshots(Checkpoint):
    """Snapshots between epochs, within an epoch, at SIGTERM, and when the training ends.

    Within an epoch there is one whenever a kill would cost a twentieth of the trial's time, and at least every `minutes` (0:
    after every step).

    The random numbers of an epoch follow from `seed` and the epoch alone, so those of a training that goes on with an
    epoch are those of one that never stopped; within an epoch their state is part of the snapshot. `before` is called
    first each time, so that what is logged is never behind a snapshot, and `after` with each snapshot. `seconds` and
    `peak_memory` tell what was spent so far. `pause_at` is the number of epochs after which the training is not over,
    but is to be left. Where it `ends_for_good`, nothing goes on from its end, and the snapshot there has the weights alone.
    """

    # Between epochs is where the hook `on_train_epoch_start` is: only there are the plateau schedulers stepped and the
    # epoch's means logged (Lightning steps them after `on_train_epoch_end`).

    def __init__(
        self,
        folder: TrialFolder,
        *,
        seed: int,
        minutes: float,
        pause_at: int | None,
        ends_for_good: bool,
        before: Callable[[], None],
        after: Callable[[Snapshot], None],
        seconds: Callable[[], float],
        peak_memory: Callable[[], float],
    ) -> None:
        """Be the last of the callbacks: a snapshot holds the state of those before it."""
        super().__init__()
        self._folder = folder
        self._seed = seed
        self._minutes = minutes
        self._pause_at = pause_at
        self._ends_for_good = ends_for_good
        self._before, self._after = before, after
        self._seconds, self._peak_memory = seconds, peak_memory
        self._moment = "other"
        self._sums: Sums = {}
        self._metrics: dict[str, torch.Tensor] = {}
        self._validated: dict[int, int] = {}
        self._validated_before: dict[int, int] = {}
        self._restored: dict[str, Any] | None = None
        self._saved = time.monotonic()
        self._cost = 0.0
        self._told_to_end = False
        self._stop_pending = False
        self._lightnings: Any = None

    def state_dict(self) -> dict[str, Any]:
        """The place of the kept checkpoints, and what Lightning forgets; within an epoch, the random numbers' state too."""
        within = {"random": random_state(), "sums": self._sums} if self._moment == "within epoch" else None
        return {
            "metrics": self._metrics,
            "checkpoints": str(self._folder.checkpoints),
            "within": within,
            "validated": self._validated,
            "stop pending": self._stop_pending,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep it until the first batch."""
        self._restored = state["within"]
        self._validated_before = state["validated"]
        self._stop_pending = state.get("stop pending", False)
        self._metrics = state.get("metrics", {})

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the epoch that is about to start as not begun."""
        if self._moment == "epoch start":
            progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
            for count in ("total", "current"):
                progress[count]["ready"] = progress[count]["completed"]

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the kept checkpoints be where this trial's folder is now: it may come from another machine.

        Raises `TrainingError` where a path leads out of a folder: Lightning removes what its states name.
        """
        there, here = checkpoint["callbacks"][self.state_key]["checkpoints"], str(self._folder.checkpoints)
        for key, state in checkpoint["callbacks"].items():
            if key.startswith("ModelCheckpoint"):
                _require_files(state)
        checkpoint["callbacks"] = _moved(checkpoint["callbacks"], there, here)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to count the time; from here on, the loop is to end at the pause. The schedule was made for the whole."""
        self._saved = time.monotonic()
        self._expected = _STATES * sum(weights.nbytes for weights in module.parameters()) / _BYTES_A_SECOND
        self._first = trainer.current_epoch
        if self._pause_at is not None:
            trainer.fit_loop.max_epochs = self._pause_at
        trainer.should_stop = trainer.should_stop or self._stop_pending
        # Of the last validation, which is what there is to go by until the next.
        for key, value in self._metrics.items():
            trainer._logger_connector._callback_metrics.setdefault(key, value)
        if trainer.fit_loop.restarted_mid_epoch:  # where Lightning leaves this out; a second time it changes nothing
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GradientAccumulationScheduler | StochasticWeightAveraging):
                    callback.on_train_epoch_start(trainer, module)
        if threading.current_thread() is threading.main_thread():
            self._lightnings = signal.signal(signal.SIGTERM, self._end_at_next_snapshot)

    def _end_at_next_snapshot(self, *_: Any) -> None:
        """Handle SIGTERM. Lightning's own handler, which it puts back itself, ends the training wherever it is met."""
        self._told_to_end = True

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save what the epochs before have come to."""
        if trainer.current_epoch > self._first and self._due(0.0):
            self._save(trainer, "epoch start")

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the random numbers: after the loaders were started, which draws from them, or not, by their workers."""
        if batch_idx == 0:
            pl.seed_everything((self._seed + 1_000_003 * (trainer.current_epoch + 1)) % 2**32, verbose=False)
        elif self._restored is not None:
            set_random_state(self._restored["random"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, and where nothing is half done."""
        if self._restored is not None:
            add_sums(trainer, self._restored["sums"])
            self._restored = None
            # Else Lightning leaves out the plateau scheduler at this epoch's end; the public setter is not for max_steps.
            trainer.fit_loop._restarting = False
        loop, done = trainer.fit_loop.epoch_loop, batch_idx + 1
        counted = done if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx + 1
        first = 0.0 if self._cost else _TIMES_FIRST * self._expected
        lost = max(_SECONDS_TO_LOSE, _SHARE_TO_LOSE * self._seconds(), first)
        half_done = (
            loop.batch_progress.is_last_batch
            or done % trainer.accumulate_grad_batches != 0
            or _stops(trainer)  # with a validation that is still to come
            or (trainer.val_check_batch is not None and counted % trainer.val_check_batch == 0)
        )
        due = self._due(min(60 * self._minutes, lost)) or trainer.received_sigterm
        if not half_done and due:
            self._sums = epoch_sums(trainer)
            self._save(trainer, "within epoch")

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Count the validation batches on from the snapshot's, which are the steps that their losses are logged for."""
        seen = trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader
        for loader, batches in self._validated_before.items():
            seen[loader] += batches
        self._validated_before = {}

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save the end; where training is only to pause, a stop that came by itself is still the end, as is the last step."""
        over = _stops(trainer) or trainer.global_step >= trainer.max_steps >= 0
        paused = self._pause_at is not None and not over
        self._save(trainer, "end", trained=not paused)
        if self._told_to_end:
            raise SIGTERMException

    def _save(self, trainer: pl.Trainer, moment: str, *, trained: bool = False) -> None:
        self._before()
        self._moment, started = moment, time.monotonic()
        self._metrics = {key: value.detach().cpu() for key, value in trainer.callback_metrics.items()}
        self._stop_pending = trainer.should_stop and not _stops(trainer)
        seen = trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader
        self._validated = dict(seen) or self._validated_before
        facts = Facts(
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            trained=trained,
            stopped=_stops(trainer),
            seconds=self._seconds(),
            peak_memory=self._peak_memory(),
            best=self._best(trainer),
        )

        def write(path: Path) -> None:
            trainer.save_checkpoint(path, weights_only=trained and self._ends_for_good)
            if not self._cost:  # those that follow have the same in them
                _require_readable(path)

        snapshot = self._folder.publish(facts, write)
        self._cost = time.monotonic() - started  # an upload has its own bound
        self._after(snapshot)
        self._saved, self._moment = time.monotonic(), "other"
        if self._told_to_end and callable(self._lightnings):
            self._lightnings(signal.SIGTERM, None)  # ends the training when this step is logged

    def _due(self, seconds: float) -> bool:
        cheap = time.monotonic() - self._saved >= max(seconds, _TIMES_ITS_COST * self._cost)
        return cheap or self._minutes == 0 or self._told_to_end

    def _best(self, trainer: pl.Trainer) -> str | None:
        folder = f"{self._folder.checkpoints / 'model_checkpoint'}/"
        kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        best = next((callback for callback in kept if callback.best_model_path.startswith(folder)), None)
        # Of a metric that was never finite, Lightning keeps the first epoch, and calls infinity its score.
        if best is None or not (best.best_model_score is None or torch.isfinite(best.best_model_score)):
            return None
        return str(Path(best.best_model_path).relative_to(self._folder.checkpoints))


def _require_readable(checkpoint: Path) -> None:
    """Raise `ConfigError` where a checkpoint has something in it that could not be gone on from."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ConfigError(
            f"the state of a callback, or of another class of your own, has {found[1] if found else 'an object'} in it, which is "
            "not read back, so that this training could never go on after an interruption: let it be of numbers, texts, lists, "
            "dicts and tensors alone."
        ) from error


def _stops(trainer: pl.Trainer) -> bool:
    """Whether a stop that was asked for is one now: not before `min_epochs` and `min_steps`."""
    return bool(trainer.should_stop and trainer.fit_loop._can_stop_early)


def _require_files(state: Any) -> None:
    """Raise `TrainingError` where a callback that removes files names something else than one within a folder."""
    if isinstance(state, str) and (".." in Path(state).parts or "://" in state or "::" in state):
        raise TrainingError(
            f"the checkpoint names {state}, which Ratchet has not written: delete the run that it is from, or what lies below "
            "checkpoints/ of its artifacts, and train anew"
        )
    for part in (
        [*state, *state.values()] if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    ):
        _require_files(part)


def _moved(value: Any, there: str, here: str) -> Any:
    """Replace the folder in every path of a state."""
    if isinstance(value, str):
        return here + value[len(there) :] if value == there or value.startswith(f"{there}/") else value
    if isinstance(value, dict):
        return {_moved(key, there, here): _moved(item, there, here) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, there, here) for item in value)
    return value
