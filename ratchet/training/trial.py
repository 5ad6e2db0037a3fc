"""One trial: from a configuration to a finished MLflow run that holds a deployment model."""

from __future__ import annotations

import logging
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from ratchet.config import instantiate
from ratchet.data.datamodule import SegmentationDataModule
from ratchet.data.seen import SeenImages
from ratchet.errors import ConfigError, TrainingError
from ratchet.evaluation.counts import ImageCounts, class_scores, score
from ratchet.evaluation.scoring import score_batches
from ratchet.evaluation.served import ModelCard
from ratchet.settings import TrialConfig
from ratchet.training.callback import ProgressCallback
from ratchet.training.export import export_network
from ratchet.training.logger import RunLogger
from ratchet.training.module import LOGGED_METRICS, SegmentationModule
from ratchet.training.progress import Progress
from ratchet.training.report import write_report
from ratchet.training.run import MODEL_PATH, PARAMETERS_TAG, TrialRun, metric_rows

Report = Callable[[Progress], None]


def run_trial(
    config: TrialConfig,
    *,
    name: str,
    fingerprint: str,
    tags: Mapping[str, str],
    on_start: Callable[[str], None],
    report: Report,
) -> dict[str, float]:
    """Train, export, score and log one configuration; return the metrics that the run ends with.

    They are those of the exported weights: the last values logged, under the names that training used. `on_start` is
    told the run's id. Raises `RatchetError`; the run is then FAILED with the reason.
    """
    _quieten()
    started = time.monotonic()
    pl.seed_everything(config.core.seed, workers=True, verbose=False)
    data = instantiate(config.datamodule)
    data.prepare()
    with TrialRun(config, name=name, fingerprint=fingerprint, tags=tags) as run:
        on_start(run.run_id)
        run.log_dataset(data.name, data.fingerprint, str(data.data_path))
        work = Path(tempfile.mkdtemp(prefix="trial-", dir=_work_folder(config)))
        try:
            module, trainer, logger = fit(config, data, run, work, report)
            report(Progress(phase="scoring"))
            metrics, test_counts = _score(module, data)
            report(Progress(phase="exporting"))
            _write_artifacts(config, module, data, test_counts, logger, work)
            run.log_artifacts(work / "artifacts")
        finally:
            shutil.rmtree(work)
        metrics |= {"duration": time.monotonic() - started, "peak_memory": peak_memory()}
        run.tag({PARAMETERS_TAG: str(sum(parameter.numel() for parameter in module.network.parameters()))})
        run.log_metrics(metric_rows(metrics, trainer.global_step))
    return metrics


def fit(
    config: TrialConfig, data: Any, run: TrialRun, work: Path, report: Report
) -> tuple[SegmentationModule, pl.Trainer, RunLogger]:
    """Train; return the module with the weights that `export.checkpoint_selection` names."""
    module = build_module(config, data.classes)
    logger: RunLogger = instantiate(config.logger, run=run)
    callbacks = {
        key: instantiate(node, **({"dirpath": str(work / "checkpoints")} if key == "model_checkpoint" else {}))
        for key, node in config.callbacks.items()
        if node is not None
    }
    trainer: pl.Trainer = instantiate(
        config.trainer | {"precision": resolve_precision(config.trainer)},
        logger=logger,
        callbacks=[*callbacks.values(), ProgressCallback(report)],
        default_root_dir=str(work),
        deterministic=config.core.deterministic,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.tag({"ratchet.precision": str(trainer.precision), "ratchet.device": trainer.strategy.root_device.type})
    trainer.fit(module, datamodule=Loaders(data))
    if trainer.interrupted:
        raise KeyboardInterrupt("training was interrupted")
    checkpoint = callbacks.get("model_checkpoint")
    if config.export.checkpoint_selection == "best":
        path = getattr(checkpoint, "best_model_path", "")
        if not path:
            monitor = getattr(checkpoint, "monitor", None)
            raise TrainingError(
                f"no checkpoint was kept (callbacks.model_checkpoint.monitor={monitor}), so there is no best one to export: "
                "the metric was never finite, or never logged. Look at its curve, or set export.checkpoint_selection=last."
            )
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    else:
        path = str(work / "checkpoints" / "exported.ckpt")
        trainer.save_checkpoint(path)
    kept = work / "artifacts" / "checkpoints" / f"{config.export.checkpoint_selection}.ckpt"
    kept.parent.mkdir(parents=True)
    shutil.copyfile(path, kept)
    return module, trainer, logger


class Loaders(pl.LightningDataModule):
    """A data module's loaders, as Lightning asks for them."""

    def __init__(self, data: SegmentationDataModule) -> None:
        super().__init__()
        self._data = data

    def train_dataloader(self) -> Any:
        """Begin with the epoch that a resumed training is in: workers start before the sampler is told."""
        return self._data.train_dataloader(epoch=0 if self.trainer is None else self.trainer.current_epoch)

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
        optimizer=instantiate(config.optimizer),
        scheduler=None if config.scheduler is None else instantiate(config.scheduler),
        classes=classes,
    )
    return module


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


def peak_memory() -> float:
    """Largest resident size of this process so far, in MiB; of the GPU's allocations too where there is one."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return host + (torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0)


def _score(module: SegmentationModule, data: Any) -> tuple[dict[str, float], ImageCounts]:
    """Score the exported weights in float32, as they will be served, on validation and test."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = module.to(device).eval()
    metrics: dict[str, float] = {}
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        names = [sample.name for sample in data.samples[split]]
        counts, loss = score_batches(module, module.loss, loader, names=names, classes=data.classes, device=device)
        metrics[f"{split}_loss_epoch"] = loss
        for metric in LOGGED_METRICS:
            metrics[f"{split}_{metric}"] = score(metric, counts)
            metrics |= {f"{split}_{metric}_{key}": value for key, value in class_scores(metric, counts).items()}
    return metrics, counts


def _write_artifacts(
    config: TrialConfig, module: SegmentationModule, data: Any, counts: ImageCounts, logger: RunLogger, work: Path
) -> None:
    artifacts, transforms = work / "artifacts", config.transforms
    module = module.cpu()
    write_report(
        artifacts / "report",
        predict=module,
        dataset=data.evaluation_dataset("test"),
        counts=counts,
        mean=transforms.mean,
        std=transforms.std,
        history=logger.history,
    )
    card = ModelCard(
        input_height=transforms.input_height,
        input_width=transforms.input_width,
        mean=transforms.mean,
        std=transforms.std,
        classes=("background", *data.classes),
    )
    export_network(module.network, card, artifacts / MODEL_PATH, types=config.export.types)
    seen = {split: data.image_digests(split).values() for split in ("train", "val")}
    SeenImages(train=frozenset(seen["train"]), val=frozenset(seen["val"])).write(artifacts / MODEL_PATH)
    (artifacts / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _work_folder(config: TrialConfig) -> Path:
    folder = config.core.home / "work"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _quieten() -> None:
    """Keep Lightning's hints and the libraries' deprecations off the terminal: this runs in a process of its own."""
    for name in ("pytorch_lightning", "lightning.pytorch", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="torch.jit")
