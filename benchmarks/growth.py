"""What each further trial of a sweep costs beside its training, at 4, 32 and 128 tiny trials: it should be the same.

A trial trains one epoch of 24 generated images of 32x32. Its overhead is its time from start to end without the training
steps and validations; the sweep's is what no trial accounts for. Memory is that of the sweep's own process.

    python benchmarks/growth.py [--trials 4 32 128]
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


def sweep(folder: Path, trials: int) -> dict[str, Any]:
    """Run one sweep in this process."""
    from ratchet.config import compose_sweep
    from ratchet.training.plan import plan_trials
    from ratchet.training.sweep import run_sweep

    phases = f"+callbacks.phases={{_target_: sweep_phases.Phases, folder: {folder / 'phases'}}}"
    start = time.monotonic()
    began: dict[str, float] = {}

    def watch(results: Any) -> None:
        for result in results:
            if result.status == "running":
                began.setdefault(result.name, time.monotonic())

    planned = plan_trials(compose_sweep([*OVERRIDES, phases, f"core.seed=range(1,{trials + 1})"]))
    results = run_sweep(planned, on_progress=watch)
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


def main() -> None:
    """Measure each size in a fresh process and home."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[4, 32, 128])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(sweep(options.folder, options.trials[0])))
        return
    print(f"{'trials':>6} {'start s':>8} {'s/trial':>8} {'overhead':>8} {'of first':>8} {'median s':>8} {'MB':>5}")
    base = None
    for trials in options.trials:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            environment = os.environ | {
                "RATCHET_HOME": folder,
                "RATCHET_ALLOWED_TARGETS": "sweep_phases",
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            }
            environment.pop("MLFLOW_TRACKING_URI", None)
            command = [sys.executable, __file__, "--folder", folder, "--trials", str(trials)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        base = base or found["overhead"]
        print(
            f"{trials:6} {found['start']:8.1f} {found['per trial']:8.2f} {found['overhead']:8.2f} "
            f"{found['overhead'] / base:8.2f} {found['median']:8.2f} {found['memory']:5.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
