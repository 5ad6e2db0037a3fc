"""A sweep: its trials planned, those already trained reused, the others run in processes, as many as the machine serves well."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.errors import ConfigError, SweepFailedError
from ratchet.settings import TrialConfig
from ratchet.training.caching import fill_caches
from ratchet.training.fingerprint import trial_fingerprint
from ratchet.training.folder import TrialFolder
from ratchet.training.leftovers import interrupted, prune
from ratchet.training.origin import PRODUCTION, resolve
from ratchet.training.process import TrialOrder, TrialProcess, start_server
from ratchet.training.progress import EXPORTING, Progress
from ratchet.training.reuse import SWEEP_PREFIX, TrainedBefore
from ratchet.training.run import close_dead_run, flatten

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5

Status = Literal["waiting", "running", "paused", "finished", "reused", "failed"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlannedTrial(_Value):
    """One trial to be: its name says what sets it apart from the sweep's others.

    `asked` is the fingerprint of what was asked for: that `production` is another model now does not change it.
    """

    name: str
    config: TrialConfig
    fingerprint: str
    asked: str


class TrialResult(_Value):
    """What became of one trial. `metrics` are those of its exported weights; `seconds` is zero where it was reused.

    `note` says where it began, if not at the start of a new run.
    """

    name: str
    fingerprint: str
    status: Status = "waiting"
    run_id: str | None = None
    metrics: dict[str, float] = {}
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None
    progress: Progress = Progress()


OnProgress = Callable[[Sequence[TrialResult]], None]


def plan_trials(configs: Sequence[TrialConfig]) -> list[PlannedTrial]:
    """Name the trials and compute their fingerprints; the data are fetched, checked and hashed here, once.

    Raises `ConfigError` where two configurations are one and the same trial, the errors of the data, and those of the
    registry where a model to start from is not there.
    """
    from ratchet.config import instantiate  # noqa: PLC0415 - imports Hydra

    if any(interrupted(config.core.home) for config in configs):
        start_server()  # most likely something is to go on: let it import while this process plans
    contents: dict[str, str] = {}
    trials: dict[str, PlannedTrial] = {}
    for given, name in zip(configs, trial_names(configs), strict=True):
        config = resolve(given)
        key = repr(sorted(config.datamodule.items(), key=lambda item: item[0]))
        if key not in contents:
            # The augmentation does not change the content, and would import torchvision.
            contents[key] = instantiate(config.datamodule | {"train_transform": None}).fingerprint
        fingerprint = trial_fingerprint(config, contents[key])
        if fingerprint in trials:
            raise ConfigError(f"the trials {trials[fingerprint].name} and {name} are the same: leave one of them out.")
        asked = trial_fingerprint(given, contents[key]) if given.backbone.init_from == PRODUCTION else fingerprint
        trials[fingerprint] = PlannedTrial(name=name, config=config, fingerprint=fingerprint, asked=asked)
    return list(trials.values())


def trial_names(configs: Sequence[TrialConfig]) -> list[str]:
    """Name each by the values in which they differ (`unet resnet18`); a single one by its network."""
    if len(configs) == 1:
        model = configs[0].backbone.model
        return [f"{model.get('arch', 'network')} {model.get('encoder_name', '')}".strip()]
    trees = [dict(flatten(config.model_dump(mode="json"))) for config in configs]
    keys = list(dict.fromkeys(key for tree in trees for key in tree))
    varying = [key for key in keys if len({repr(tree.get(key)) for tree in trees}) > 1]
    plain = {"backbone.model.arch", "backbone.model.encoder_name"}
    return [
        " ".join(str(tree.get(key)) if key in plain else f"{key.split('.')[-1]}={tree.get(key)}" for key in varying)
        for tree in trees
    ]


def sweep_tag(trials: Sequence[PlannedTrial]) -> str:
    """Return the tag that every run of this sweep carries, reused ones too: the same trials have the same tag."""
    digest = hashlib.sha256("\n".join(sorted(trial.fingerprint for trial in trials)).encode()).hexdigest()
    return f"{SWEEP_PREFIX}{digest[:12]}"


def run_sweep(
    trials: Sequence[PlannedTrial], *, tags: Mapping[str, str] | None = None, on_progress: OnProgress = lambda _: None
) -> list[TrialResult]:
    """Run the trials; one that fails does not stop the others. Nothing is left running, however this ends.

    `tags` go to the runs of new trials; a reused one keeps what it says already.

    Raises `SweepFailedError` when none finished.
    """
    sweep, own = {sweep_tag(trials): "true"}, tags or {}
    results = {trial.fingerprint: TrialResult(name=trial.name, fingerprint=trial.fingerprint) for trial in trials}

    def update(fingerprint: str, **changes: object) -> None:
        results[fingerprint] = results[fingerprint].model_copy(update=changes)
        on_progress(list(results.values()))

    wanted = {trial.fingerprint: trial.config.core.name for trial in trials if not trial.config.sweep.force}
    before = TrainedBefore()
    found = before.all_finished(wanted)
    for trial in trials:
        if trial.fingerprint in found:
            known = found[trial.fingerprint].data.tags
            missing = {key: value for key, value in own.items() if key not in known}
            run = before.into_experiment(found[trial.fingerprint], trial.config, {**missing, **sweep})
            note = before.note(found[trial.fingerprint], trial.config)
            update(
                trial.fingerprint, status="reused", run_id=run.info.run_id, metrics=dict(run.data.metrics), note=note
            )
    waiting = [trial for trial in trials if trial.fingerprint not in found]
    if waiting:
        start_server()
        held = fill_caches(waiting, update)
        _run_waiting(waiting, {**own, **sweep}, update)
        del held
    if not any(result.status in ("finished", "reused") for result in results.values()):
        reasons = "; ".join(f"{result.name}: {result.error}" for result in results.values())
        raise SweepFailedError(f"no trial finished. {reasons}")
    return list(results.values())


def trials_at_once(config: TrialConfig) -> int:
    """How many trials to run side by side: `sweep.parallel`, or one per GPU, or one.

    On CPUs one trial with all threads is faster than several with few: 0.9 times as long on two cores.
    """
    if config.sweep.parallel is not None:
        return config.sweep.parallel
    if config.trainer.get("accelerator") == "cpu" or config.trainer.get("devices") != 1:
        return 1
    return max(1, _gpus())


def _gpus() -> int:
    """How many CUDA devices there are; where no driver is, torch's three seconds are not spent on asking."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and NVIDIA's under WSL
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in drivers):
        return 0
    import torch  # noqa: PLC0415 - slow

    return torch.cuda.device_count()


def _run_waiting(waiting: list[PlannedTrial], tags: Mapping[str, str], update: Callable[..., None]) -> None:
    if not waiting:
        return
    for home in {trial.config.core.home for trial in waiting}:
        for told in prune(home, keep={trial.fingerprint for trial in waiting}):
            logger.warning("%s", told)
    slots = trials_at_once(waiting[0].config)
    free = list(reversed(range(slots)))
    running: dict[TrialProcess, float] = {}
    try:
        while waiting or running:
            # A trial that is exported leaves its slot to the next one; not to more, where exports take longer than training.
            while waiting and free and len(running) < 2 * slots:
                trial = TrialProcess.start(_order(waiting.pop(0), tags, free.pop(), slots))
                running[trial] = time.monotonic()
            for trial in _ready(running):
                over = _receive(trial, time.monotonic() - running[trial], update)
                if trial.slot is not None and (over or trial.exporting):
                    free.append(trial.slot)
                    trial.slot = None
                if over:
                    trial.end()
                    del running[trial]
    finally:
        for trial in running:
            trial.end()
            close_dead_run(trial.run_id, "KILLED", "the sweep was stopped")


def _ready(running: dict[TrialProcess, float]) -> list[TrialProcess]:
    ready = wait([trial.connection for trial in running], timeout=_SECONDS_BETWEEN_LOOKS)
    for trial in running:
        trial.look()
    return [trial for trial in running if trial.connection in ready]


def _receive(trial: TrialProcess, seconds: float, update: Callable[..., None]) -> bool:
    """Take one message; return whether it was the last."""
    fingerprint = trial.order.fingerprint
    try:
        kind, value = trial.connection.recv()
    except (EOFError, ConnectionResetError):
        reason = f"{trial.death()} Run the sweep again, and the trial goes on from its last checkpoint."
        unsent = TrialFolder(trial.order.config.core.home, fingerprint).unsent
        close_dead_run(trial.run_id, "FAILED", reason, unsent=unsent)
        kind, value = "failed", reason
    if kind == "started":
        trial.run_id = value
        update(fingerprint, status="running", run_id=value)
    elif kind == "progress":
        trial.exporting = value.phase == EXPORTING
        update(fingerprint, progress=value, note=value.note, seconds=seconds)
    elif kind == "failed":
        update(fingerprint, status="failed", error=value, seconds=seconds)
    else:
        trial.order.log.unlink(missing_ok=True)
        spent = 0.0 if value.status == "reused" else seconds
        update(fingerprint, **value.model_dump(), seconds=spent)
    return kind in ("failed", "ended")


def _order(trial: PlannedTrial, tags: Mapping[str, str], slot: int, slots: int) -> TrialOrder:
    logs = (trial.config.core.home / "logs").absolute()
    logs.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = _gpus() if slots > 1 else 0
    return TrialOrder(
        name=trial.name,
        config=trial.config,
        fingerprint=trial.fingerprint,
        tags=tags,
        log=Path(logs / f"{trial.fingerprint[:12]}-{os.getpid()}.log"),
        slot=slot,
        threads=max(1, cores // slots),
        device=slot % gpus if gpus else None,
    )
