"""Examines an installation: what is wrong, and what to do about it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement

from flows.service.check import check_models, prefect_client
from flows.service.deployments import MODELS
from flows.service.running import find
from flows.service.servers import LOCAL
from ratchet.cores import cores
from ratchet.errors import RatchetError
from ratchet.home import home
from ratchet.registry.tracking import answering, client, embedded_uri, shown, tracking_uri
from ratchet.watching import makes_its_data

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from prefect.client.orchestration import SyncPrefectClient

    from flows.service.deploying import Declaration

_GIGABYTE = 2**30
_LEAST_SPACE, _LITTLE_SPACE = 2, 10  # gigabytes: a sweep's checkpoints and exports; a month of them


@dataclass(frozen=True)
class Finding:
    """What one check found. `advice` says what to do, where something should be done; `bad`: where something must be."""

    check: str
    found: str
    advice: str = ""
    bad: bool = False


def examine(folder: Path | None) -> list[Finding]:
    """Check everything; `folder` holds the model files, if there are any. Packages that do not fit end it there."""
    packages = list(_packages())
    if any(finding.bad for finding in packages):
        return packages
    from flows.service.deploying import Declaration, load_declaration  # noqa: PLC0415 (Prefect: two seconds)

    declared, deploy = Declaration(), "ratchet deploy"
    if folder is not None and str(folder) != MODELS:
        deploy += f" --models {shlex.quote(str(folder))}"

    def models() -> Iterator[Finding]:
        nonlocal declared
        declared = load_declaration(folder)
        return _models(folder, declared)

    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "models": models,
        "MLflow": _mlflow,
        "Prefect": lambda: _prefect(declared if folder is not None else None, deploy),
        "disk": _disk,
        "GPU": _gpu,
    }
    findings = packages
    for name, check in checks.items():
        try:
            findings += check()
        except RatchetError as error:
            what, _, advice = str(error).partition(": ")
            findings.append(Finding(name, what, advice or type(error).__name__, bad=True))
    return findings


def _packages() -> Iterator[Finding]:
    """Compare what is installed with the bounds that Ratchet declares, and torchvision with its torch."""
    wrong = [*_violations("ratchet"), *_violations("torchvision", only="torch")]
    for requirement, installed in wrong:
        command = f"pip install '{requirement.name}{requirement.specifier}'"
        yield Finding("packages", f"{requirement.name} {installed}, not {requirement.specifier}", command, bad=True)
    if not wrong:
        told = ", ".join(f"{name} {version(name)}" for name in ("prefect", "mlflow", "torch", "fastapi", "sqlalchemy"))
        yield Finding("packages", f"work together: {told}")


def _violations(package: str, *, only: str | None = None) -> Iterator[tuple[Requirement, str]]:
    for requirement in map(Requirement, requires(package) or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if only is not None and requirement.name != only:
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = "absent"
        if installed == "absent" or not requirement.specifier.contains(installed, prereleases=True):
            yield requirement, installed


def _models(folder: Path | None, declared: Declaration) -> Iterator[Finding]:
    if folder is None:
        advice = "go to the project's folder, or give one with --models"
        yield Finding("models", "no folder deployments/models here", advice)
        return
    data = check_models(declared.models)
    names = ", ".join(model.name + ("" if model.enabled else " (off)") for model in declared.models)
    yield Finding("models", names or f"{folder} holds none", "" if names else "write a YAML file for each model")
    for name, node in data.items():
        if not os.access(node["data_path"], os.R_OK) and not makes_its_data(node):
            advice = "bring it back, or correct `data` in the model file, unless only a worker elsewhere has it"
            yield Finding("data", f"{name}: there is no folder {node['data_path']} that can be read here", advice)


def _mlflow() -> Iterator[Finding]:
    uri = tracking_uri()
    opened = client(uri)
    lost: dict[Path, list[str]] = {}
    with answering(uri):
        experiments = opened.search_experiments()
        for experiment in experiments:
            root = _root(experiment)
            # Before something is logged, the folder is not made.
            if root is not None and not os.access(root, os.R_OK) and _has_finished(opened, experiment):
                lost.setdefault(root, []).append(experiment.name)
    yield Finding(
        "MLflow", f"{shown(uri)} answers: {len(experiments)} experiment{'s' if len(experiments) != 1 else ''}"
    )
    for root, names in lost.items():
        there = home() / root.name
        new, old, above = (shlex.quote(str(path)) for path in (there, root, root.parent))
        advice = "bring that folder back, or let this machine see it"
        if there.is_dir():
            advice = f"if RATCHET_HOME was moved, leave a link where it was: mkdir -p {above} && ln -s {new} {old}"
        found = f"the files of {_some(names)} are gone: MLflow looks for them in {root}"
        yield Finding("MLflow", found, advice, bad=True)


def _root(experiment: Experiment) -> Path | None:
    """The folder that the files of an experiment, or of all, are in; None where they are not in a file system."""
    location = str(experiment.artifact_location)
    path = Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)
    if not path.is_absolute():
        return None
    return path.parent if path.name == str(experiment.experiment_id) else path


def _has_finished(opened: MlflowClient, experiment: Experiment) -> bool:
    return bool(opened.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=1))


def _queues(opened: SyncPrefectClient) -> Iterator[Finding]:
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    from flows.service.deployments import LONG, POOL, SHORT  # noqa: PLC0415

    for name in (LONG, SHORT):
        with suppress(ObjectNotFound):
            queue = opened.read_work_queue_by_name(name, POOL)
            if queue.is_paused:
                resume = f"PREFECT_API_URL={shown(str(opened.api_url))} prefect work-queue resume {name} --pool {POOL}"
                yield Finding("work queue", f"{name} is paused: none of its runs begins", resume, bad=True)
            elif queue.concurrency_limit == 0:
                yield Finding("work queue", f"{name} lets no run begin", "raise its limit on the pool's page", bad=True)


def _prefect(declared: Declaration | None, command: str) -> Iterator[Finding]:
    """Look at the server, and compare it with what is declared, if anything is; `command` is what would deploy that."""
    with prefect_client() as opened:
        from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

        from flows.service.deploying import deploy  # noqa: PLC0415
        from flows.service.deployments import POOL  # noqa: PLC0415
        from flows.service.notices import with_mute_off  # noqa: PLC0415
        from flows.service.work import online  # noqa: PLC0415
        from tasks.runs import MOST_SECONDS_APART, seconds_ahead  # noqa: PLC0415

        yield Finding("Prefect", f"{shown(str(opened.api_url))} answers: {opened.api_version()}")
        try:
            paused = opened.read_work_pool(POOL).is_paused
        except ObjectNotFound:
            yield Finding("work pool", f"there is no pool {POOL}", command, bad=True)
            return
        if paused:
            resume = f"PREFECT_API_URL={shown(str(opened.api_url))} prefect work-pool resume {POOL}"
            yield Finding("work pool", f"{POOL} is paused", resume, bad=True)
        if abs(ahead := seconds_ahead(opened)) > MOST_SECONDS_APART:
            where = "ahead of" if ahead > 0 else "behind"
            apart = f"this machine's clock is {abs(ahead):.0f} s {where} the Prefect server's, or its proxy's"
            yield Finding("clock", apart, "set it, by NTP for good: runs of this machine are taken for dead", bad=True)
        yield from _queues(opened)
        workers = online(opened)
        if workers:
            yield Finding("worker", f"{', '.join(workers)}: alive")
        else:
            worker = f"PREFECT_API_URL={shown(str(opened.api_url))} prefect worker start --pool {POOL}"
            start = f"start one: ratchet up, or {worker}"
            yield Finding("worker", f"no worker of the pool {POOL} is alive: nothing runs", start, bad=True)
        yield from _database(len(workers))
        if declared is None:
            return
        mute, told = with_mute_off(declared.notices, opened)
        for notice in mute:
            advice = f"make the block {notice.block} in Prefect, under Blocks, or set enabled: false"
            yield Finding("notice", f"{notice.name!r} is on, and there is no block {notice.block}", advice, bad=True)
        changes = deploy(replace(declared, notices=told), opened, dry_run=True)
        stale = [change for change in changes if change.action != "unchanged"]
        left = [change.name for change in stale if change.action == "left"]
        off = [change.name for change in stale if change.action == "off"]
        silent = {notice.name for notice in mute}
        differ = [c.name for c in stale if c.action not in ("left", "off") and c.name not in silent]
        if differ:
            yield Finding("deployments", f"not as the model files say: {_some(differ)}", command, bad=True)
        else:
            yield Finding("deployments", "as the model files say")
        if off:
            advice = "switch them on there, if they should run"
            yield Finding("deployments", f"switched off on Prefect's page: {_some(off)}", advice)
        if left:
            prune = f"{command} --prune, unless they are wanted"
            yield Finding("deployments", f"without a model file: {_some(left)}", prune)


def _database(workers: int) -> Iterator[Finding]:
    running = find()
    if running is None:
        return
    several = workers > 1 or urlsplit(running.prefect).hostname not in LOCAL
    if running.database == "sqlite" and several:
        advice = "ratchet up --postgres URL (or embedded): SQLite is for one person, and locks under several"
        yield Finding("database", "SQLite, with several workers or people", advice)
    else:
        yield Finding("database", running.database)


def _disk() -> Iterator[Finding]:
    folder = next(path for path in (home(), *home().parents) if path.exists())
    free = shutil.disk_usage(folder).free / _GIGABYTE
    store = f" --backend-store-uri {shlex.quote(embedded_uri())}" if tracking_uri() == embedded_uri() else ""
    advice = f"make room: ratchet prune MODEL, mlflow gc{store}, old logs" if free < _LITTLE_SPACE else ""
    yield Finding("disk", f"{free:.1f} GB free at {home()}", advice, bad=free < _LEAST_SPACE)
    if not os.access(folder, os.W_OK):
        yield Finding("disk", f"{folder} cannot be written to", "choose another RATCHET_HOME", bad=True)


def _gpu() -> Iterator[Finding]:
    import torch  # noqa: PLC0415 (three seconds)

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("GPU", ", ".join(names))
    elif shutil.which("nvidia-smi") is not None:
        advice = "install the build of torch for this driver: https://pytorch.org/get-started"
        yield Finding("GPU", f"there is a driver, but torch {torch.__version__} sees no GPU", advice, bad=True)
    else:
        yield Finding("GPU", f"none: trainings run on {cores()} CPU cores")


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
