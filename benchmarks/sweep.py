"""A sweep by Ratchet beside the same sweep in plain Lightning: time by phases, memory, and the models' quality.

Four trials (unet and unetplusplus on resnet18 and resnet50, random weights) on pets: 108 images to train, 12 to validate,
40 to test, 128x128, batches of 16. Both arms have the same networks, augmentation, order, optimiser and schedule, and the
same outputs: metrics per step and epoch, the best and the last checkpoint, a report with pictures, TorchScript and an
MLflow model. The plain arm is what people write: one process, images decoded in every epoch, float32, test outputs
collected, a second pass over the test images for the report, matplotlib and `log_model` as they come.

Each repeat runs each arm in a fresh process, from its start to its end, with another seed, and every second one in the other
order; each ratio is the median of those of the repeats. `bare` is forward, backward and optimizer alone, in the sweep's dtype,
layout, threads and way with freed memory: the floor for Ratchet's training steps. What is not computation is all but steps,
validations and scoring.

    RATCHET_OXFORD_PET=... python benchmarks/sweep.py [--epochs 1 5] [--seeds 42 43 44] [--arms bare ratchet plain]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from sweep_plain import plain
from sweep_trials import BATCH, NETWORKS, SIZE, TRAIN, overrides, write_lists

METRICS = ("val_loss_epoch", "val_iou", "test_iou")
SECONDS_BETWEEN_LOOKS = 5.0  # a look at 5 GB takes 0.05 s of a core, and stops the process that it is at
COMPUTE = ("steps", "validation", "scoring")


def ratchet(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """`ratchet train`, in this process; phases of its trials by what they report to the table that it shows."""
    began: dict[tuple[str, str], float] = {}
    results: Any = ()
    exports, since, alone = 0.0, 0.0, False  # exports beside which no other trial computes

    def watch(told: Any) -> None:
        nonlocal results, exports, since, alone
        results = told
        now = time.monotonic()
        exports += now - since if alone else 0.0
        running = [result for result in results if result.status == "running"]
        since, alone = now, {result.progress.phase for result in running} == {"exporting"}
        for result in results:
            state = result.progress.phase if result.status == "running" else result.status
            began.setdefault((result.name, state), now)

    @contextmanager
    def watched(*_: Any, **__: Any) -> Iterator[Any]:
        yield watch

    start = time.monotonic()
    from flows.cli import main as command
    from ratchet.training import display

    display.show_sweep = watched
    command(["train", *overrides(folder, epochs, seed), "--multirun"], standalone_mode=False)
    names = [result.name for result in results]
    phases = {
        "start": began[names[0], "starting"] - start,
        "scoring": sum(began[name, "exporting"] - began[name, "scoring"] for name in names),
        "report, export, upload alone": exports,
    }
    return {"phases": phases, "metrics": {result.name: result.metrics for result in results}}


def bare(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The steps of the sweep and nothing else: forward, loss, backward, optimizer."""
    import torch

    from ratchet.config import compose
    from ratchet.cores import cores
    from ratchet.training.fitting import resolve_precision
    from ratchet.training.losses import DiceLoss
    from ratchet.training.memory import keep_freed_memory
    from ratchet.training.network import create_network

    keep_freed_memory()
    torch.set_num_threads(cores())
    precision = resolve_precision(compose(["trainer.accelerator=cpu"]).trainer)
    sizes = [BATCH] * (TRAIN // BATCH) + [TRAIN % BATCH] * (TRAIN % BATCH > 1)
    seconds = 0.0
    for arch, encoder in NETWORKS:
        torch.manual_seed(seed)
        network = create_network(arch=arch, encoder_name=encoder, encoder_weights=None, num_classes=1)
        network = network.to(memory_format=torch.channels_last).train()
        optimizer, loss = torch.optim.Adam(network.parameters(), lr=0.001, fused=True), DiceLoss(num_outputs=1)
        for size in sizes * epochs:
            image, mask = torch.randn(size, 3, SIZE, SIZE), torch.randint(0, 2, (size, SIZE, SIZE))
            start = time.monotonic()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                logits = network(image.contiguous(memory_format=torch.channels_last))
            optimizer.zero_grad()
            loss(logits.float(), mask).backward()
            optimizer.step()
            seconds += time.monotonic() - start
    return {"phases": {"steps": seconds, "precision": precision}, "metrics": {}}


ARMS = {"bare": bare, "ratchet": ratchet, "plain": plain}


def measure(arm: str, epochs: int, seed: int) -> dict[str, Any]:
    """Run one arm in a fresh process with a home of its own; seconds from its start to its end, and its peak memory."""
    with tempfile.TemporaryDirectory(prefix="sweep-") as name:
        folder = Path(name)
        write_lists(folder)
        environment = {
            **os.environ,
            "RATCHET_OXFORD_PET": str(Path(os.environ["RATCHET_OXFORD_PET"]).resolve()),
            "RATCHET_HOME": str(folder / "home"),
            "RATCHET_ALLOWED_TARGETS": "sweep_phases",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        for variable in (
            "MLFLOW_TRACKING_URI",
            "PYTHONDONTWRITEBYTECODE",
        ):  # the latter compiles this tree at every start
            environment.pop(variable, None)
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--arm",
            arm,
            "--folder",
            name,
            "--epochs",
            str(epochs),
            "--seeds",
            str(seed),
        ]
        start = time.monotonic()
        with (folder / "log").open("w") as log:
            # MLflow keeps the plain arm's artifacts in the working directory
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
            peak = 0.0
            while True:
                try:
                    process.wait(SECONDS_BETWEEN_LOOKS)
                    break
                except subprocess.TimeoutExpired:
                    peak = max(peak, memory(process.pid))
        total = time.monotonic() - start
        if process.returncode != 0:
            raise SystemExit((folder / "log").read_text()[-5000:])
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        for file in (folder / "phases").glob("*.json"):
            for phase, seconds in json.loads(file.read_text()).items():
                result["phases"][phase] = result["phases"].get(phase, 0.0) + seconds
    return result | {"total": total - result["phases"].pop("not counted", 0.0), "peak": peak}


def memory(pid: int) -> float:
    """GB that a process and its children hold, shared pages counted once."""
    total = 0
    with suppress(psutil.Error, OSError, IndexError):  # it ended meanwhile
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("Pss:") else 0
    return total / 1e6


def machine() -> dict[str, str]:
    """What was measured on, and what."""
    processor = Path("/proc/cpuinfo").read_text()
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(
        asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "processor": processor.split("model name")[1].split(":")[1].splitlines()[0].strip(),
        "bfloat16": " ".join(flag for flag in ("amx_bf16", "avx512_bf16") if flag in processor) or "none",
        "cores": str(len(os.sched_getaffinity(0))),
        "torch": version("torch"),
        "commit": commit or "unknown",
    }


def share(run: dict[str, Any]) -> float:
    """The part of a run that is not computation."""
    return float(1 - sum(run["phases"][phase] for phase in COMPUTE) / run["total"])


def show(epochs: int, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians of time and memory, and what is to be seen from them."""

    def paired(one: str, other: str, of: Callable[[dict[str, Any]], float]) -> str:
        values = [of(mine) / of(its) for mine, its in zip(runs[one], runs[other], strict=True)]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    for found in runs.values():
        for run in found:
            known = sum(seconds for phase, seconds in run["phases"].items() if phase != "precision")
            run["phases"]["rest"] = run["total"] - known
    print(f"\n{epochs} epoch(s), {len(next(iter(runs.values())))} repeat(s), medians")
    median = {
        arm: {key: statistics.median(run[key] for run in found) for key in ("total", "peak")}
        | {p: statistics.median(run["phases"][p] for run in found) for p in found[0]["phases"] if p != "precision"}
        for arm, found in runs.items()
    }
    for arm, values in median.items():
        total, peak = values.pop("total"), values.pop("peak")
        spread = ", ".join(f"{run['total']:.1f}" for run in runs[arm])
        print(f"{arm:8} {total:7.1f} s ({spread}), peak {peak:.1f} GB")
        if arm != "bare":
            print("   " + ", ".join(f"{name} {value:.1f}" for name, value in values.items()))
    if {"ratchet", "plain"} <= runs.keys():
        print(f"plain Lightning takes {paired('plain', 'ratchet', lambda run: run['total'])} times as long,")
        once = paired("plain", "ratchet", lambda run: run["total"] - run["phases"].get("second pass", 0.0))
        print(f"and {once} times without its second pass over the test images")
    if "ratchet" in runs:
        shares = [share(run) for run in runs["ratchet"]]
        print(
            f"not computation: {statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%}) of Ratchet's total"
        )
    if {"ratchet", "bare"} <= runs.keys():
        precision = runs["bare"][0]["phases"]["precision"]
        steps = paired("ratchet", "bare", lambda run: run["phases"]["steps"])
        print(f"training steps / bare steps ({precision}, channels_last): {steps}")
    for name in runs["ratchet"][0]["metrics"] if "ratchet" in runs else ():
        for metric in METRICS:
            values = {
                arm: [run["metrics"][name][metric] for run in runs[arm]] for arm in ("ratchet", "plain") if arm in runs
            }
            told = "   ".join(f"{arm} " + " ".join(f"{value:.3f}" for value in found) for arm, found in values.items())
            if "plain" in values:
                apart = abs(statistics.median(values["ratchet"]) - statistics.median(values["plain"]))
                within = apart <= max(max(found) - min(found) for found in values.values())
                told += f"   medians {apart:.3f} apart, {'within' if within else 'BEYOND'} the seeds' spread"
            print(f"   {name:22} {metric:15} {told}")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="one repeat each")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        result = ARMS[options.arm](options.folder, options.epochs[0], options.seeds[0])
        (options.folder / "result.json").write_text(json.dumps(result))
        return
    figures: dict[Any, Any] = {"machine": machine()}
    print(", ".join(f"{what} {value}" for what, value in figures["machine"].items()))
    for epochs in options.epochs:
        runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
        for place, seed in enumerate(options.seeds):
            for arm in options.arms[:: -1 if place % 2 else 1]:
                runs[arm].append(measure(arm, epochs, seed))
                print(f"{epochs} epoch(s), seed {seed}, {arm}: {runs[arm][-1]['total']:.1f} s", flush=True)
        show(epochs, runs)
        figures[epochs] = runs
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
