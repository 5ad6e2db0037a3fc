"""A grid of twelve, halved and whole: the training steps that halving saves, and how good its winner is.

Three architectures, two encoders and two learning rates on generated shapes (600 images of 64 x 64 in six months), nine
epochs. For each seed the grid is halved first (one in three goes on after 2 and after 6 epochs), then trained whole; the
pruned trials go on from their checkpoints then, so that the whole grid's numbers are those of trials trained straight
through. Steps are counted as they are done, by a callback, so that one that was done twice counts twice.

    python benchmarks/halving.py [--seeds 42 43 44]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GRID = [
    "experiment=generic/shapes/segmentation/smp",
    "backbone.model.arch=unet,fpn,linknet",
    "backbone.model.encoder_name=resnet18,mobilenet_v2",
    "optimizer.lr=0.003,0.0003",
    "scheduler=cosine",
    "trainer.max_epochs=9",
    "trainer.accelerator=cpu",
    "export.types=[pt2]",
]
MOST_STEPS, MOST_LOST = 0.45, 0.01


def swept(seed: int, *overrides: str) -> tuple[Any, int, float]:
    """A sweep's winner, the training steps that were done for its seed by now, and the seconds it took."""
    from ratchet.config import compose_space
    from ratchet.training.plan import plan_sweep
    from ratchet.training.results import best_of
    from ratchet.training.sweep import run

    start = time.monotonic()
    done = Path(os.environ["RATCHET_HOME"]) / f"steps-{seed}"
    counted = f"+callbacks.steps={{_target_: sweep_phases.Steps, file: {done}}}"
    outcome = run(plan_sweep(compose_space([*GRID, f"core.seed={seed}", counted, *overrides])))
    seconds = time.monotonic() - start
    return best_of(outcome.trials, outcome.metric, outcome.mode), done.stat().st_size, seconds


def compare(seed: int) -> tuple[float, float]:
    """The share of steps, and the test IoU that halving lost."""
    halved, few, fast = swept(seed, "sweep.halving=true")
    whole, all_of_them, slow = swept(seed)
    lost = whole.metrics["test_iou"] - halved.metrics["test_iou"]
    print(f"seed {seed}: {few} of {all_of_them} steps ({few / all_of_them:.0%}), {fast:.0f} s and {slow:.0f} s more")
    for name, winner in (("halved", halved), ("whole", whole)):
        metrics = winner.metrics
        print(f"  {name:7} {winner.name:32} val IoU {metrics['val_iou']:.4f}, test IoU {metrics['test_iou']:.4f}")
    print(f"  lost    {lost:+.4f}", flush=True)
    return few / all_of_them, lost


def main() -> int:
    """Compare for each seed, in a home of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory(prefix="halving-") as folder:
        os.environ |= {"RATCHET_HOME": folder, "RATCHET_ALLOWED_TARGETS": "sweep_phases"}
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        found = [compare(seed) for seed in seeds]
    share, lost = (statistics.median(column) for column in zip(*found, strict=True))
    print(
        f"median of {len(seeds)}: {share:.0%} of the steps (target {MOST_STEPS:.0%}), test IoU lost {lost:+.4f} ",
        end="",
    )
    print(f"(target {MOST_LOST:+.2f}), at worst {max(lost for _, lost in found):+.4f}")
    return int(share > MOST_STEPS or lost > MOST_LOST)


if __name__ == "__main__":
    sys.exit(main())
