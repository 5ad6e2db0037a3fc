"""Lets Lightning tell a trial's progress."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl

from ratchet.training.progress import TRAINING, Progress, Report

_SECONDS_BETWEEN = 0.2  # on a GPU, where reading the loss waits for the step to end


class ProgressCallback(pl.Callback):
    """Reports after every optimiser step (on a GPU: when it is time) and every validation."""

    def __init__(self, report: Report, *, max_epochs: int, metric: str) -> None:
        self._report = report
        self._max_epochs = max_epochs
        self._shown = ("loss", "val_loss", "val_loss_epoch", "val_iou", metric)
        self._validated = 0
        self._told = float("-inf")

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Count the epochs before, where training goes on from a snapshot."""
        self._validated = trainer.current_epoch
        self._first, self._started = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Report the step."""
        if module.device.type == "cpu" or time.monotonic() - self._told >= _SECONDS_BETWEEN:
            self._send(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Report the validation's metrics; what Lightning tries before the training is none."""
        if not trainer.sanity_checking:
            self._validated = trainer.current_epoch + 1
            self._send(trainer)

    def _send(self, trainer: pl.Trainer) -> None:
        self._told = time.monotonic()
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key in self._shown}
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        steps = self._max_epochs * per_epoch
        steps = min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps
        done, left = trainer.global_step - self._first, max(0, steps - trainer.global_step)
        self._report(
            Progress(
                epoch=trainer.current_epoch + 1,
                max_epochs=self._max_epochs,
                step=trainer.global_step,
                steps_per_epoch=per_epoch,
                steps=steps,
                metrics=values,
                validated=self._validated,
                phase=TRAINING,
                seconds_left=(time.monotonic() - self._started) * left / done if done else None,
            )
        )
