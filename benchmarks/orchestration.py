"""What Prefect costs: the retraining flow beside the same library calls without it, with real servers on this machine.

The trials are tiny and trained before, so that both arms do the same and little of it: look them up, select, register,
score on the gate set, judge, stage, promote, render the report. Each repeat has a model name of its own, since the same
again would be skipped. `flow` is the flow called in this process, on a Prefect server that runs; `library` are the calls
that its tasks make. Both use MLflow's server over HTTP. The order alternates; medians are shown.

Then a worker runs deployments: the time from *Run* to the first training step (its parts: until the worker takes the run,
until the flow begins, until the first step), and the run that finds nothing to do.

    python benchmarks/orchestration.py [--trials 4 32] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

DATA = [
    "experiment=generic/shapes/segmentation/smp",
    "backbone.model.encoder_name=mobilenet_v2",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "datamodule.months=2",
    "datamodule.images_per_month=30",
    "transforms.input_height=32",
    "transforms.input_width=32",
    "core.name=tiny",
]
NO_RULES = [
    "gate=permissive",
    "gate.floor=0.0",
    "gate.superiority=null",
    "gate.non_inferiority=null",
    "gate.anchor=null",
    "datamodule.test_size=0.5",  # a gate set of fewer than 20 images decides nothing
]
TARGETS = {
    "overhead, 4 trials": 5.0,
    "overhead, 32 trials": 10.0,
    "a run with nothing to do, from Running to its end": 5.0,
}


def overrides(trials: int, model: str) -> list[str]:
    """A sweep over learning rates, as a user types it."""
    rates = ",".join(f"{0.0005 * (number + 1):g}" for number in range(trials))
    return [*DATA, *NO_RULES, f"optimizer.lr={rates}", f"retrain.model={model}"]


@contextmanager
def servers(folder: Path) -> Iterator[Any]:
    """MLflow's server, Prefect's server and a worker, as `ratchet up` starts them; a client of Prefect's."""
    from flows.service import servers as service
    from flows.service.processes import Processes
    from ratchet.registry.tracking import embedded_uri

    ports = {name: _free_port() for name in ("mlflow", "prefect")}
    pages = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    (folder / "prefect").mkdir(parents=True)
    os.environ |= {
        "RATCHET_HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"{pages['prefect']}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    processes = Processes(folder / "logs", lambda _, __: None)
    with ExitStack() as stack:
        stack.callback(processes.end_all)
        service.start_mlflow(processes, embedded_uri(), "127.0.0.1", ports["mlflow"])
        service.start_prefect(processes, "127.0.0.1", ports["prefect"], None)
        for name, path in (("mlflow", "/health"), ("prefect", "/api/health")):
            processes.wait_for(name, partial(service.answers, pages[name] + path), seconds=service.SECONDS_TO_START)
        os.environ["MLFLOW_TRACKING_URI"] = pages["mlflow"]
        from prefect.client.orchestration import get_client

        yield processes, stack.enter_context(get_client(sync_client=True))


def by_library(trials: int, model: str) -> None:
    """What the flow does, without it."""
    from ratchet import outcome, planning, report, retraining
    from ratchet.registry import Stage

    plan = planning.plan_retraining(overrides(trials, model))
    results = retraining.train(plan)
    best = retraining.select(plan, results)
    version = retraining.register(plan, best, results).version
    verdict = retraining.gate(plan, version)
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        retraining.move(plan, verdict, stage)
    report.markdown(outcome.conclude(plan, best, results, verdict))


def by_flow(trials: int, model: str) -> None:
    """The flow, on the server."""
    from flows.retrain import retrain

    assert retrain(overrides=overrides(trials, model), return_state=True).name == "promoted"


def seconds(call: Callable[[], None]) -> float:
    """How long a call takes."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def overhead(trials: int, repeats: int) -> dict[str, float]:
    """Medians of both arms, and of the differences of the pairs."""
    arms = {"library": by_library, "flow": by_flow}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(repeats):
        for name in sorted(arms, reverse=bool(repeat % 2)):
            times[name].append(seconds(partial(arms[name], trials, f"{name}_{trials}_{repeat}")))
    pairs = [flow - library for flow, library in zip(times["flow"], times["library"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians | {"overhead": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}


def through_the_worker(processes: Any, client: Any, repeats: int) -> dict[str, float]:
    """Press Run on a deployment that a worker serves, with a trial to train; then again, with nothing to do."""
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.retrain import retrain
    from flows.service import servers as service
    from flows.service.deployments import POOL
    from flows.service.work import online

    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    retrain.to_deployment("benchmark", entrypoint_type=_module_path()).apply(work_pool_name=POOL)
    service.start_worker(processes, "benchmark")
    processes.wait_for("worker", lambda: "benchmark" in online(client), seconds=service.SECONDS_TO_START)
    deployment = client.read_deployment_by_name("retrain/benchmark")
    found: dict[str, list[float]] = {}
    for repeat in range(repeats):
        wanted = [*overrides(1, f"worker_{repeat}")[:-2], f"core.seed={repeat + 100}", f"retrain.model=worker_{repeat}"]
        for name, value in [*_first(client, deployment.id, wanted), *_again(client, deployment.id, wanted)]:
            found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def _first(client: Any, deployment: Any, wanted: Sequence[str]) -> Iterator[tuple[str, float]]:
    run = client.create_flow_run_from_deployment(deployment, parameters={"overrides": list(wanted)})
    ended = _wait(client, run.id)
    assert ended.state_name == "promoted", ended.state
    pressed = ended.created.timestamp()
    states = {state.name: state.timestamp.timestamp() for state in client.read_flow_run_states(run.id)}
    yield "until the worker takes the run", states["Pending"] - pressed
    yield "until the flow begins", states["Running"] - pressed
    yield "from Run to the first step", _first_step(ended.name.split(":")[0]) - pressed
    yield "from Run to production (one tiny trial)", states["promoted"] - pressed


def _again(client: Any, deployment: Any, wanted: Sequence[str]) -> Iterator[tuple[str, float]]:
    run = client.create_flow_run_from_deployment(deployment, parameters={"overrides": list(wanted)})
    ended = _wait(client, run.id)
    assert ended.state_name.startswith("skipped"), ended.state
    states = {state.type.value: state.timestamp.timestamp() for state in client.read_flow_run_states(run.id)}
    yield "a run with nothing to do, from Run to its end", states["COMPLETED"] - ended.created.timestamp()
    yield "a run with nothing to do, from Running to its end", states["COMPLETED"] - states["RUNNING"]


def _first_step(model: str) -> float:
    """When the trial behind a model's newest version logged its first loss."""
    from ratchet import MlflowModelManager
    from ratchet.registry.tracking import client

    version = MlflowModelManager().get_latest_version(model)
    history = client().get_metric_history(str(version.run_id), "loss_step")
    return float(min(value.timestamp for value in history)) / 1000


def _wait(client: Any, run: Any) -> Any:
    while True:
        found = client.read_flow_run(run)
        if found.state is not None and found.state.is_final():
            return found
        time.sleep(0.2)


def _module_path() -> Any:
    from prefect.deployments.runner import EntrypointType

    return EntrypointType.MODULE_PATH


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Measure, and print beside the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder, servers(Path(folder)) as (processes, client):
        started = time.monotonic()
        by_library(max(options.trials), "warm_library")
        print(f"{max(options.trials)} trials trained in {time.monotonic() - started:.0f} s")
        by_flow(min(options.trials), "warm_flow")
        for trials in options.trials:
            found = overhead(trials, options.repeats)
            figures |= {f"{name}, {trials} trials": value for name, value in found.items()}
        figures |= through_the_worker(processes, client, max(1, options.repeats // 2))
    for name, value in figures.items():
        target = TARGETS.get(name)
        print(f"{name:55} {value:8.2f} s" + (f"   target {target:g} s: {value < target}" if target else ""))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
