"""Trains one trial, from its start or from its snapshot, until it is over or is to pause."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loops.loop import _Loop
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ratchet.config import instantiate
from ratchet.data.datamodule import SegmentationDataModule
from ratchet.errors import ConfigError, TrainingError
from ratchet.run_names import PRECISION_TAG, THREADS_TAG
from ratchet.settings import TrialConfig
from ratchet.training.batch_size import settle_batch_size
from ratchet.training.callback import ProgressCallback
from ratchet.training.checkpoint import Snapshots, StraightToDisk
from ratchet.training.fingerprint import fixed_length
from ratchet.training.folder import Snapshot, TrialFolder
from ratchet.training.logger import RunLogger
from ratchet.training.memory import peak_memory
from ratchet.training.module import SegmentationModule
from ratchet.training.progress import Report
from ratchet.training.run import TrialRun
from ratchet.training.upload import Uploads

_STEPS_ON_A_GPU = 10  # from one that is logged, and so waited for, to the next


class Spending:
    """What a trial has cost: its time in seconds and its largest memory in MiB, over all processes that worked on it.

    The time of an export is the processor's: it yields to the next trial, which is no cost of this one.
    """

    def __init__(self) -> None:
        """Begin to count."""
        self._started = time.monotonic()
        self._before = (0.0, 0.0)
        self._until_export: tuple[float, float] | None = None

    def add(self, snapshot: Snapshot | None) -> None:
        """Add what was spent until a snapshot."""
        if snapshot is not None:
            self._before = (snapshot.facts.seconds, snapshot.facts.peak_memory)

    def begin_export(self) -> None:
        """Count the processor's time from here on."""
        self._until_export = self.seconds(), time.process_time()

    def seconds(self) -> float:
        """The time."""
        if self._until_export is not None:
            seconds, processor = self._until_export
            return seconds + time.process_time() - processor
        return self._before[0] + time.monotonic() - self._started

    def peak_memory(self) -> float:
        """The memory."""
        return max(self._before[1], peak_memory())


@dataclass(frozen=True)
class Work:
    """What a trial is made with: its configuration and data, its run and folder, what it has cost, and who is told."""

    config: TrialConfig
    data: SegmentationDataModule
    run: TrialRun
    folder: TrialFolder
    spending: Spending
    report: Report


def fit(work: Work, module: SegmentationModule, *, until_epoch: int | None) -> Snapshot:
    """Train, and return the last snapshot: that of the end, or that of the pause after `until_epoch` epochs.

    The module is left as it is at that moment; where there was nothing to train any more, untouched.
    """
    config, folder = work.config, work.folder
    snapshot, epochs = folder.newest(), config.trainer["max_epochs"]
    if config.core.deterministic:
        _keep_threads(work.run)
    pause_at = until_epoch if until_epoch is not None and until_epoch < epochs else None
    work.spending.add(snapshot)
    if config.datamodule.get("batch_size") == "auto":
        search = partial(_trainer, work, logger=False, enable_checkpointing=False)
        settle_batch_size(work.data, module, work.run, trainer=search, loaders=Loaders(work.data))
    if snapshot is not None and (snapshot.facts.trained or (pause_at is not None and snapshot.facts.epoch >= pause_at)):
        return snapshot
    folder.begin()
    trainer = _build_trainer(work, pause_at)
    work.run.tag({PRECISION_TAG: str(trainer.precision), "ratchet.device": trainer.strategy.root_device.type})
    resume = None if snapshot is None else str(snapshot.resume)
    trainer.fit(module, datamodule=Loaders(work.data), ckpt_path=resume, weights_only=True)
    last = folder.newest()
    if last is not None and last == snapshot and trainer.should_stop:  # its time was up already when it was left
        last = last.model_copy(update={"facts": last.facts.model_copy(update={"trained": True, "stopped": True})})
    if last is None:
        raise TrainingError(
            "no epoch was trained: trainer.max_epochs or trainer.limit_train_batches leaves nothing to do."
        )
    return last


def _keep_threads(run: TrialRun) -> None:
    """Let a deterministic training have as many threads as it began with: sums follow their number."""
    if THREADS_TAG not in run.tags:
        run.tag({THREADS_TAG: str(torch.get_num_threads())})
    torch.set_num_threads(int(run.tags[THREADS_TAG]))


def _build_trainer(work: Work, pause_at: int | None) -> pl.Trainer:
    config, folder = work.config, work.folder
    logger: RunLogger = instantiate(config.logger, run=work.run, unsent=folder.unsent)
    callbacks = [
        instantiate(node, **_place(key, node, folder)) for key, node in config.callbacks.items() if node is not None
    ]
    averages = [callback for callback in callbacks if isinstance(callback, WeightAveraging)]
    for callback in averages:  # the average is in the checkpoints; what may go on has its own weights still
        callback.on_train_end = lambda *_: None  # type: ignore[method-assign]
    for callback in callbacks if averages else ():
        if isinstance(callback, ModelCheckpoint):
            callback.save_weights_only = False  # only in whole ones is the average
    snapshots = Snapshots(
        folder,
        seed=config.core.seed,
        minutes=config.sweep.checkpoint_minutes,
        pause_at=pause_at,
        ends_for_good=fixed_length(config) is not None and not any(map(_writes_checkpoints, callbacks)),
        before=logger.send,
        after=Uploads(work.run, minutes=config.sweep.upload_minutes),
        seconds=work.spending.seconds,
        peak_memory=work.spending.peak_memory,
    )
    progress = ProgressCallback(work.report, max_epochs=config.trainer["max_epochs"], metric=config.retrain.metric)
    return _trainer(work, logger=logger, callbacks=[*callbacks, progress, snapshots])


def _writes_checkpoints(callback: pl.Callback) -> bool:
    """Whether a callback has a say in what is in a checkpoint, as one that averages weights: only in whole ones it is asked."""
    return type(callback).on_save_checkpoint is not pl.Callback.on_save_checkpoint


def _trainer(work: Work, **parts: Any) -> pl.Trainer:
    config = work.config
    begun_in = {"precision": work.run.tags[PRECISION_TAG]} if PRECISION_TAG in work.run.tags else {}
    trainer: pl.Trainer = instantiate(
        resolve_trainer({**config.trainer, **begun_in}),
        default_root_dir=str(work.folder.work),
        deterministic=config.core.deterministic,
        enable_progress_bar=False,
        enable_model_summary=False,
        **parts,
    )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one that the configuration chose
        trainer.strategy.checkpoint_io = StraightToDisk()
    return trainer


def load_exported(config: TrialConfig, module: SegmentationModule, snapshot: Snapshot) -> Path:
    """Give the module the weights that `export.checkpoint_selection` names; return the file that they are from.

    Raises `TrainingError` where no best checkpoint was kept.
    """
    path = snapshot.resume
    if config.export.checkpoint_selection == "best":
        if snapshot.facts.best is None:
            monitor = (config.callbacks.get("model_checkpoint") or {}).get("monitor")
            raise TrainingError(
                f"no checkpoint was kept (callbacks.model_checkpoint.monitor={monitor}), so there is no best one to export: "
                "the metric was never finite, or never logged. Look at its curve, or set export.checkpoint_selection=last."
            )
        path = snapshot.checkpoints / snapshot.facts.best
    module.float()  # some precisions of Lightning's train it in another
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"])
    return path


def _place(key: str, node: Mapping[str, Any], folder: TrialFolder) -> dict[str, str]:
    """Where a callback keeps checkpoints, if it does: in the trial's folder, which the snapshots hold whole."""
    keeps = str(node["_target_"]).endswith("ModelCheckpoint")
    return {"dirpath": str(folder.checkpoints / key)} if keeps else {}


class Loaders(pl.LightningDataModule):
    """A data module's loaders, as Lightning asks for them."""

    def __init__(self, data: SegmentationDataModule) -> None:
        super().__init__()
        self._data = data

    @property
    def batch_size(self) -> int:
        """Images of a batch, for Lightning's tuner to change."""
        return self._data.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        if size < 1:  # Lightning halves a batch of one, too
            raise MemoryError("not even one image fits")
        self._data.batch_size = size

    def train_dataloader(self) -> Any:
        """Begin where a resumed training is: workers start before Lightning tells the sampler the epoch."""
        if self.trainer is None:
            return self._data.train_dataloader()
        loop = self.trainer.fit_loop
        epochs = loop.epoch_progress.current
        # Between epochs. With max_steps, Lightning would leave out the one that follows.
        if epochs.ready == epochs.completed:
            _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]
        done = loop.epoch_loop.batch_progress.current.ready if loop.restarting else 0
        return self._data.train_dataloader(epoch=self.trainer.current_epoch, batches_done=done)

    def val_dataloader(self) -> Any:
        """The validation split."""
        return self._data.val_dataloader()


def build_module(config: TrialConfig, classes: tuple[str, ...]) -> SegmentationModule:
    """Build the module that a configuration describes. Raises `ConfigError`."""
    outputs = 1 if len(classes) == 1 else len(classes) + 1
    if config.backbone.model.get("num_classes", outputs) != outputs:
        raise ConfigError(
            f"backbone.model.num_classes={config.backbone.model['num_classes']}, but datamodule.idx_to_class names "
            f"{len(classes)} foreground class(es): that takes {outputs}. Leave backbone.model.num_classes out."
        )
    module: SegmentationModule = instantiate(
        config.model,
        network=instantiate(config.backbone.model),
        loss=instantiate(config.loss),
        optimizer=instantiate({"_partial_": True, **config.optimizer}),
        scheduler=None if config.scheduler is None else instantiate({"_partial_": True, **config.scheduler}),
        classes=classes,
    )
    return module


def resolve_trainer(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `auto` into what suits the device, and a GPU that is named into the only one that the trial's process sees."""
    resolved = {**trainer, "precision": resolve_precision(trainer)}
    if trainer.get("log_every_n_steps") == "auto":
        on_gpu = trainer.get("accelerator") != "cpu" and torch.accelerator.is_available()
        resolved["log_every_n_steps"] = _STEPS_ON_A_GPU if on_gpu else 1
    if isinstance(trainer.get("devices"), list):
        resolved["devices"] = 1
    return resolved


def resolve_precision(trainer: Mapping[str, Any]) -> str:
    """Turn `auto` into bf16 where the device multiplies it natively, else into fp32."""
    precision = str(trainer.get("precision", "32-true"))
    if precision != "auto":
        return precision
    if torch.cuda.is_available() and trainer.get("accelerator") != "cpu":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"
