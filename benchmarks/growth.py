"""What each further trial of a sweep costs beside its training, at 4, 32 and 128 tiny trials: it should be the same.

A trial trains one epoch of 24 generated images of 32x32, of a grid, of one that is halved (half of the trials go on to a second
epoch), or of a search. Its overhead is its time from start to end without the training steps and validations; the sweep's is
what no trial accounts for. Memory is that of the sweep's own process.

    python benchmarks/growth.py [--trials 4 32 128] [--kinds grid halved search]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OVERRIDES = [
    "experiment=generic/shapes/segmentation/smp",
    "trainer.max_epochs=1",
    "datamodule.months=1",
    "datamodule.images_per_month=40",
    "datamodule.batch_size=8",
    "transforms.input_height=32",
    "transforms.input_width=32",
    "backbone.model.encoder_name=mobilenet_v2",
]


KINDS: dict[str, Callable[[int], list[str]]] = {
    "grid": lambda trials: [f"core.seed=range(1,{trials + 1})"],
    "halved": lambda trials: [
        f"core.seed=range(1,{trials + 1})",
        "trainer.max_epochs=2",
        "sweep.halving=true",
        "sweep.halving_min_epochs=1",
        "sweep.halving_eta=2",
    ],
    "search": lambda trials: ["optimizer.lr=tag(log,interval(1e-4,1e-2))", f"sweep.max_trials={trials}"],
}


def sweep(folder: Path, trials: int, kind: str) -> dict[str, Any]:
    """Run one sweep in this process."""
    from ratchet.config import compose_space
    from ratchet.training.plan import plan_sweep
    from ratchet.training.sweep import run

    phases = f"+callbacks.phases={{_target_: sweep_phases.Phases, folder: {folder / 'phases'}}}"
    start = time.monotonic()
    began: dict[str, float] = {}

    def watch(results: Any) -> None:
        for result in results:
            if result.status == "running":
                began.setdefault(result.name, time.monotonic())

    results = run(plan_sweep(compose_space([*OVERRIDES, phases, *KINDS[kind](trials)])), on_progress=watch).trials
    assert len(results) == trials, f"{len(results)} of {trials} trials"
    assert {result.status for result in results} <= {"finished", "pruned"}, [result.error for result in results]
    end, first = time.monotonic(), min(began.values())
    found = [json.loads(file.read_text()) for file in (folder / "phases").glob("*.json")]
    compute = sum(phase["steps"] + phase["validation"] for phase in found)
    return {
        "start": first - start,
        "per trial": (end - first) / trials,
        "overhead": (end - first - compute) / trials,
        "median": statistics.median(result.seconds for result in results),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def measure(kind: str, sizes: list[int]) -> None:
    """Print a row for each size, measured in a fresh process and home."""
    print(f"{kind:>6} {'start s':>8} {'s/trial':>8} {'overhead':>8} {'of first':>8} {'median s':>8} {'MB':>5}")
    base = None
    for trials in sizes:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            environment = os.environ | {
                "RATCHET_HOME": folder,
                "RATCHET_ALLOWED_TARGETS": "sweep_phases",
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            }
            for name in ("MLFLOW_TRACKING_URI", "RATCHET_STUDY_STORAGE", "PYTHONDONTWRITEBYTECODE"):
                environment.pop(name, None)
            command = [sys.executable, __file__, "--folder", folder, "--trials", str(trials), "--kinds", kind]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        base = base or found["overhead"]
        print(
            f"{trials:6} {found['start']:8.1f} {found['per trial']:8.2f} {found['overhead']:8.2f} "
            f"{found['overhead'] / base:8.2f} {found['median']:8.2f} {found['memory']:5.0f}",
            flush=True,
        )


def main() -> None:
    """Measure each kind and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[4, 32, 128])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(sweep(options.folder, options.trials[0], options.kinds[0])))
        return
    for kind in options.kinds:
        measure(kind, options.trials)


if __name__ == "__main__":
    main()
