"""A sweep by Ratchet beside the same sweep in plain Lightning: time by phases, memory, and the models' quality.

Four trials (unet and unetplusplus on resnet18 and resnet50, random weights) on pets: 108 images to train, 12 to validate,
40 to test, 128x128, batches of 16. Both arms have the same networks, augmentation, order, optimiser and schedule, and the
same outputs: metrics per step and epoch, the best and the last checkpoint, a report with pictures, TorchScript and an
MLflow model. The plain arm is what people write: one process, images decoded in every epoch, float32, test outputs
collected, a second pass over the test images for the report, matplotlib and `log_model` as they come.

Each repeat runs each arm in a fresh process, from its start to its end, with another seed; medians are shown. `bare` is
forward, backward and optimizer alone, in the sweep's dtype and layout: the floor for Ratchet's training steps.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    from ratchet.training.fitting import resolve_precision
    from ratchet.training.losses import DiceLoss
    from ratchet.training.network import create_network

    precision = resolve_precision(compose([]).trainer)
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


def show(epochs: int, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians of time and memory, and what is to be seen from them."""
    print(f"\n{epochs} epoch(s), {len(next(iter(runs.values())))} repeat(s), medians")
    median = {
        arm: {key: statistics.median(run[key] for run in found) for key in ("total", "peak")}
        | {p: statistics.median(run["phases"][p] for run in found) for p in found[0]["phases"] if p != "precision"}
        for arm, found in runs.items()
    }
    for arm, values in median.items():
        total, peak = values.pop("total"), values.pop("peak")
        values["rest"] = total - sum(values.values())
        median[arm]["total"] = total
        spread = ", ".join(f"{run['total']:.1f}" for run in runs[arm])
        print(f"{arm:8} {total:7.1f} s ({spread}), peak {peak:.1f} GB")
        if arm != "bare":
            print("   " + ", ".join(f"{name} {value:.1f}" for name, value in values.items() if name != "total"))
    ours, bare_, theirs = (median.get(arm) for arm in ("ratchet", "bare", "plain"))
    if ours and theirs:
        print(f"plain Lightning takes {theirs['total'] / ours['total']:.2f} times as long")
    if ours:
        compute = sum(ours[phase] for phase in COMPUTE)
        print(f"not compute (steps, validation, scoring): {1 - compute / ours['total']:.0%} of Ratchet's total")
    if ours and bare_:
        precision = runs["bare"][0]["phases"]["precision"]
        print(f"training steps / bare steps ({precision}, channels_last): {ours['steps'] / bare_['steps']:.3f}")
    for name in runs["ratchet"][0]["metrics"] if "ratchet" in runs else ():
        for metric in METRICS:
            values = {
                arm: [run["metrics"][name][metric] for run in runs[arm]] for arm in ("ratchet", "plain") if arm in runs
            }
            told = "   ".join(f"{arm} " + " ".join(f"{value:.3f}" for value in found) for arm, found in values.items())
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
    figures = {}
    for epochs in options.epochs:
        runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
        for seed in options.seeds:
            for arm in options.arms:
                runs[arm].append(measure(arm, epochs, seed))
                print(f"{epochs} epoch(s), seed {seed}, {arm}: {runs[arm][-1]['total']:.1f} s", flush=True)
        show(epochs, runs)
        figures[epochs] = runs
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
