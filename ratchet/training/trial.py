"""One trial: from a configuration to a finished MLflow run that holds a deployment model."""

from __future__ import annotations

import gc
import logging
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from ratchet.config import instantiate
from ratchet.data.seen import SeenImages
from ratchet.errors import DataError
from ratchet.evaluation.counts import ImageCounts, class_scores, shown_classes, shown_score
from ratchet.evaluation.packed import PackedMasks
from ratchet.evaluation.scoring import score_batches
from ratchet.evaluation.served import ModelCard
from ratchet.registry.tracking import client
from ratchet.run_names import CHECKPOINTS_PATH, CONFIG_FILE, ENDED_TAG, IMAGES_TAG, MODEL_PATH, PARAMETERS_TAG
from ratchet.settings import TrialConfig
from ratchet.targets import NETWORK
from ratchet.training.export import export_network
from ratchet.training.fingerprint import trial_fingerprint
from ratchet.training.fitting import Spending, Work, build_module, fit, load_exported
from ratchet.training.folder import Snapshot, TrialFolder
from ratchet.training.memory import batch_size_of, give_back_memory, lack_of_memory_told
from ratchet.training.metric_names import LOGGED_METRICS, logged_name
from ratchet.training.module import SegmentationModule
from ratchet.training.opening import Beginning, begin
from ratchet.training.origin import MODEL_DIGEST_TAG, weights_digest
from ratchet.training.progress import EXPORTING, Progress, Report, TrialEnd
from ratchet.training.report import write_report
from ratchet.training.reuse import TrainedBefore
from ratchet.training.run import last_values, metric_rows
from ratchet.training.upload import keep_checkpoints, withdraw
from ratchet.training.warm_start import inherited, warm_start


def run_trial(
    config: TrialConfig,
    *,
    name: str,
    fingerprint: str,
    tags: Mapping[str, str],
    on_start: Callable[[str], None],
    report: Report,
    until_epoch: int | None = None,
    samples: Collection[str] | None = None,
) -> TrialEnd:
    """Train, export, score and log one configuration: what is left to do of it, under the lock of its folder.

    The metrics are the last values logged: of validation and test those of the exported weights. With
    `until_epoch` the trial is left after so many epochs, its run SCHEDULED, and goes on at the next call; its metrics are
    then the latest. `on_start` is told the run's id. Images that are not among `samples`, the names that the fingerprint was
    made of, have come since and are left out. Raises `RatchetError`; the run is then FAILED with the reason.
    """
    _quieten()
    folder = TrialFolder(config.core.home, fingerprint)
    with folder.locked(on_wait=lambda: report(Progress(phase="waiting for another process that trains it"))):
        spending = Spending()
        pl.seed_everything(config.core.seed, workers=True, verbose=False)
        data = instantiate(config.datamodule)
        data.only = samples
        if trial_fingerprint(config, data.fingerprint) != fingerprint:
            raise DataError(
                f"{data.data_path}: images, masks, lists or weights, or code of your own, were changed since this sweep was "
                "planned. Run it again: it is planned on what is there then."
            )
        begun = begin(
            config,
            folder,
            name=name,
            fingerprint=fingerprint,
            data_fingerprint=data.fingerprint,
            tags=tags,
            on_wait=lambda owner: report(Progress(phase=f"waiting for {owner}, which trains it")),
            on_start=on_start,
        )
        if begun.run is None:
            return _reused(begun)
        with begun.run as run, lack_of_memory_told(lambda: batch_size_of(config.datamodule, run.tags)):
            on_start(run.run_id)
            end = _work_on(Work(config, data, run, folder, spending, report), begun.note, until_epoch)
        if end.status == "finished":
            folder.remove()
            return _in_its_experiment(end, config, tags)
    return end


def _reused(begun: Beginning) -> TrialEnd:
    found = begun.finished
    assert found is not None
    return TrialEnd(status="reused", run_id=found.info.run_id, metrics=last_values(found), note=begun.note)


def _in_its_experiment(end: TrialEnd, config: TrialConfig, tags: Mapping[str, str]) -> TrialEnd:
    """An interrupted trial has gone on in its run: where that is of another experiment, a copy is in this one."""
    before, run = TrainedBefore(), client().get_run(str(end.run_id))
    copied = before.note(run, config)
    if copied is None:
        return end
    copy = before.into_experiment(run, config, tags)
    return end.model_copy(update={"run_id": copy.info.run_id, "note": "; ".join(filter(None, [end.note, copied]))})


def _work_on(work: Work, note: str | None, until_epoch: int | None) -> TrialEnd:
    """Train until the pause or the end, and there score and export; `note` says where the training begins."""
    config, run, data = work.config, work.run, work.data
    run.log_dataset(data.name, data.fingerprint, str(data.data_path))
    module = build_module(config, data.classes)
    if work.folder.newest() is None:
        _require_exportable(work)
        test_today = partial(_digests, data, "test")
        note = warm_start(config, module.network, run, work.folder.path, test_today=test_today) or note

    report = work.report

    def tell(progress: Progress) -> None:
        run.require_owner()
        report(progress.model_copy(update={"note": note}))

    work = replace(work, report=tell)
    snapshot = fit(work, module, until_epoch=until_epoch)
    if not snapshot.facts.trained:
        run.confirm_owner()
        run.pause()
        return TrialEnd(status="paused", run_id=run.run_id, metrics={row.key: row.value for row in run.rows}, note=note)
    epochs = config.trainer["max_epochs"]
    metrics, notes = _conclude(work, module, snapshot)
    if snapshot.facts.stopped and snapshot.facts.epoch < epochs:  # by early stopping, or by sweep.trial_max_time
        ended = f"training ended early, in epoch {snapshot.facts.epoch} of {epochs}"
        run.tag({ENDED_TAG: ended})
        notes.append(ended)
    note = "; ".join(filter(None, [note, *notes])) or None
    metrics |= {"duration": work.spending.seconds(), "peak_memory": work.spending.peak_memory()}
    run.confirm_owner()
    # Behind what a process logged that got further than the snapshot, and behind a last validation between two steps of the
    # optimizer: the last values are those of the exported weights.
    end = snapshot.facts.step
    told = [row.step for row in run.rows if row.key == "duration" and row.step >= end]  # of one that got as far as here
    beyond = [row.step + 1 for row in run.rows if row.step > end or (row.step == end and row.key in metrics)]
    run.log_metrics(metric_rows(metrics, told[-1] if told else max([end, *beyond])))
    return TrialEnd(status="finished", run_id=run.run_id, metrics={row.key: row.value for row in run.rows}, note=note)


def _require_exportable(work: Work) -> None:
    """Raise `ExportError` for a network of one's own that cannot be exported: else its training would be for nothing."""
    config = work.config
    if config.backbone.model["_target_"] == NETWORK:
        return
    spare = build_module(config, work.data.classes).network  # what it draws changes nothing: each epoch is seeded
    with tempfile.TemporaryDirectory(dir=work.folder.path, ignore_cleanup_errors=True) as place:
        export_network(spare, _card(config, work.data), Path(place) / "model", types=config.export.types)


def _conclude(work: Work, module: SegmentationModule, snapshot: Snapshot) -> tuple[dict[str, float], list[str]]:
    """Score and export the weights of a training that is over; with the metrics, what is to be known of them."""
    config, data, run, folder = work.config, work.data, work.run, work.folder
    _leave_training(module)
    folder.begin()
    artifacts = folder.work / "artifacts"
    keep_checkpoints(config, snapshot, load_exported(config, module, snapshot), artifacts / CHECKPOINTS_PATH)
    work.report(Progress(phase="scoring"))
    metrics, notes, test_counts, test_masks = _score(module, data)
    folder.settle()  # a disk that does not take it is an error now rather than after the export
    _make_way(module)
    work.spending.begin_export()
    work.report(Progress(phase=EXPORTING))
    history = [row for row in run.rows if row.step < snapshot.facts.step]
    write_report(
        artifacts / "report",
        dataset=data.evaluation_dataset("test"),
        counts=test_counts,
        masks=test_masks,
        mean=config.transforms.mean,
        std=config.transforms.std,
        history=history,
    )
    _export(config, module, data, artifacts)
    _write_seen(data, inherited(config, run, folder.work), artifacts / MODEL_PATH)
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    run.confirm_owner()  # who slept meanwhile has lost the run, and writes nothing into it
    marks = {PARAMETERS_TAG: str(parameters), IMAGES_TAG: str(len(data.samples["train"]))}
    run.tag({**marks, MODEL_DIGEST_TAG: weights_digest(artifacts / MODEL_PATH)})
    run.log_artifacts(artifacts)
    withdraw(run)
    return metrics, notes


def _leave_training(module: SegmentationModule) -> None:
    """Let go of what only the training needed: gradients, and with Lightning's trainer the optimiser's state."""
    module.zero_grad()
    module.trainer = None
    gc.collect()


def _make_way(module: SegmentationModule) -> None:
    """Leave the GPU and the memory to the next trial."""
    module.cpu()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    give_back_memory()


def _score(module: SegmentationModule, data: Any) -> tuple[dict[str, float], list[str], ImageCounts, PackedMasks]:
    """Score the exported weights in float32, as they will be served, on validation and test.

    With the metrics, it returns what is to be known of them, and what the weights saw in the test images.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = module.to(device).eval()
    metrics: dict[str, float] = {}
    notes: list[str] = []
    masks = PackedMasks()
    for split, loader, keep in (("val", data.val_dataloader(), None), ("test", data.test_dataloader(), masks)):
        names = [sample.name for sample in data.samples[split]]
        with _whole_float32():
            counts, loss = score_batches(
                module, module.loss, loader, names=names, classes=data.classes, device=device, keep=keep
            )
        metrics[f"{split}_loss_epoch"] = loss
        for metric in LOGGED_METRICS:
            metrics[f"{split}_{metric}"] = shown_score(metric, counts)
            scores = class_scores(metric, counts).items()
            metrics |= {logged_name(f"{split}_{metric}_{key}"): value for key, value in scores}
        shown = zip(data.classes, shown_classes(counts), strict=True)
        if absent := [name for name, found in shown if not found]:
            means = " and ".join(f"{split}_{metric}" for metric in LOGGED_METRICS)
            notes.append(f"no image of {split} shows {', '.join(absent)}: {means} leave it out")
    return metrics, notes, counts, masks


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Let a GPU's convolutions compute in float32, as the CPU will that serves: torch lets them round their inputs to TF32."""
    rounds = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounds


def _card(config: TrialConfig, data: Any) -> ModelCard:
    transforms = config.transforms
    return ModelCard(
        input_height=transforms.input_height,
        input_width=transforms.input_width,
        mean=transforms.mean,
        std=transforms.std,
        classes=("background", *data.classes),
    )


def _export(config: TrialConfig, module: SegmentationModule, data: Any, artifacts: Path) -> None:
    export_network(module.network, _card(config, data), artifacts / MODEL_PATH, types=config.export.types)
    (artifacts / CONFIG_FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _write_seen(data: Any, inherited: frozenset[str] | None, directory: Path) -> None:
    """Say in the model's directory what it has seen; where its ancestor's images are not known, the gate must not think so."""
    if inherited is not None:
        splits = {split: _digests(data, split) for split in ("train", "val", "test")}
        SeenImages(inherited=inherited, **splits).write(directory)


def _digests(data: Any, split: str) -> frozenset[str]:
    return frozenset(data.image_digests(split).values())


def _quieten() -> None:
    """Keep Lightning's hints and the libraries' deprecations off the terminal: this runs in a process of its own."""
    for name in ("pytorch_lightning", "lightning.pytorch", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="torch.jit")
