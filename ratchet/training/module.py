"""The LightningModule: a network, its loss and optimiser, and validation by streamed confusion counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from ratchet.errors import ConfigError
from ratchet.evaluation.confusion import confusion, predict_classes
from ratchet.evaluation.counts import mean_over_shown, metric_of
from ratchet.training.metric_names import LOGGED_METRICS

Batch = dict[str, Tensor]


class SegmentationModule(pl.LightningModule):
    """Trains on batches of `image` float32 (B, 3, H, W) and `mask` int64 (B, H, W).

    Logs `loss` and `val_loss` per step and epoch (the latter per step only where every step is logged), `lr`, and `val_iou`,
    `val_dice` overall (the mean over the foreground classes that the validation images show) and per class.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None,
        classes: Sequence[str],
        channels_last: bool = True,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        """`scheduler_interval`: when a schedule steps; OneCycleLR and CyclicLR do at each step, plateau after validation."""
        super().__init__()
        if scheduler_interval not in ("epoch", "step"):
            raise ConfigError(f"model.scheduler_interval={scheduler_interval}: it takes epoch or step.")
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.loss = loss
        self.classes = tuple(classes)
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._interval = scheduler_interval
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._counts = torch.zeros(len(self.classes), 3, dtype=torch.int64)
        self.train()  # Lightning leaves the modes as they are

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) in float32."""
        logits: Tensor = self.network(image.contiguous(memory_format=self._memory_format))
        return logits.float()

    def train(self, mode: bool = True) -> SegmentationModule:
        """Keep a frozen encoder's batch statistics frozen as well."""
        super().train(mode)
        encoder = getattr(self.network, "encoder", None)
        if encoder is not None and not any(parameter.requires_grad for parameter in encoder.parameters()):
            encoder.eval()
        return self

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self._loss_in_float32(self(batch["image"]), batch["mask"])
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        # Of a number, Lightning makes a tensor on the device: a copy that waits for all that a GPU has still to do.
        self.log("lr", torch.as_tensor(rate, dtype=torch.float32), on_step=True, batch_size=1)
        return loss

    def _loss_in_float32(self, logits: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            loss: Tensor = self.loss(logits, mask)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._counts = torch.zeros(len(self.classes), 3, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the loss of one batch and add up its counts."""
        logits = self(batch["image"])
        loss = self._loss_in_float32(logits, batch["mask"])
        each = self.trainer.log_every_n_steps == 1  # type: ignore[attr-defined]  # a GPU would be waited for at each
        self.log("val_loss", loss, on_step=each, on_epoch=True, logger=each, batch_size=len(logits))
        if not each:  # an epoch's value is called so by Lightning only beside those of batches
            self.log("val_loss_epoch", loss, batch_size=len(logits))
        self._counts += confusion(predict_classes(logits), batch["mask"], len(self.classes)).sum(dim=0)

    def on_validation_epoch_end(self) -> None:
        """Log IoU and Dice from the counts."""
        self._counts = self._counts.cpu()  # what stays on a GPU is lost to the next trial
        tp, fp, fn = self._counts.numpy().astype(float).T
        for metric in LOGGED_METRICS:
            per_class = metric_of(metric, tp, fp, fn)
            self.log(f"val_{metric}", mean_over_shown(per_class, tp, fn))
            self.log_dict(
                {f"val_{metric}_{name}": float(value) for name, value in zip(self.classes, per_class, strict=True)}
            )

    def configure_optimizers(self) -> Any:
        """Return the optimiser over what is not frozen, with its scheduler."""
        make, mixed = self._optimizer, isinstance(self.trainer.precision_plugin, MixedPrecision)
        if mixed and self.trainer.gradient_clip_val and _is_fused(make):
            make = partial(make, fused=False)  # Lightning clips for no fused one there, which may undo the loss's scale
        optimizer = make([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self._scheduler is None:
            return optimizer
        if getattr(self._scheduler, "func", None) is OneCycleLR:
            scheduler = self._scheduler(optimizer, total_steps=_steps(self.trainer))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        scheduler = _built(self._scheduler, optimizer)
        by_validation = isinstance(scheduler, ReduceLROnPlateau)
        by_step = not by_validation and (isinstance(scheduler, CyclicLR) or self._interval == "step")
        every = self.trainer.check_val_every_n_epoch if by_validation else None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": "step" if by_step else "epoch",
                "frequency": every or 1,  # in an epoch without validation, there is nothing to go by
                "monitor": "val_loss_epoch",
            },
        }


def _steps(trainer: pl.Trainer) -> int:
    """The steps of the optimizer to come; Lightning counts them without the callback that gathers batches by the epoch."""
    steps = int(trainer.estimated_stepping_batches)  # which loads the batches
    gathers = (c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler))  # type: ignore[attr-defined]
    later = next(gathers, None)
    if later is None:
        return steps
    epochs = range(trainer.max_epochs or 0)
    return min(
        steps, sum(math.ceil(trainer.num_training_batches / later.get_accumulate_grad_batches(e)) for e in epochs)
    )


def _built(scheduler: Callable[..., LRScheduler], optimizer: Optimizer) -> LRScheduler:
    """Build it, and before it the schedules that one such as SequentialLR is made of."""
    parts = scheduler.keywords.get("schedulers") if isinstance(scheduler, partial) else None
    if parts is None:
        return scheduler(optimizer)
    return scheduler(optimizer=optimizer, schedulers=[_built(part, optimizer) for part in parts])


def _is_fused(optimizer: Callable[..., Optimizer]) -> bool:
    return isinstance(optimizer, partial) and bool(optimizer.keywords.get("fused"))
