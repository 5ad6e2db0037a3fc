"""Tries exported models where they will run: each in a fresh process without network, on one core, in limited time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import GateError
from ratchet.evaluation import probe_process
from ratchet.evaluation.served import TORCHSCRIPT_FILE

REFERENCE_FILE = "reference.npz"
"""Beside model.pt: `input` (1, 3, H, W) and `output` (1, C, h, w), what the trained network answered; float32."""

_MOST_SAMPLES, _SECONDS = 50, 20  # of latency: this many, but once there are enough not for longer than that


@dataclass(frozen=True)
class Exported:
    """An exported model's directory, and images (N, 3, H, W) as it takes them: float32, prepared by its own card."""

    directory: Path
    images: NDArray[np.float32]


@dataclass(frozen=True)
class ProbeAnswer:
    """How one model answered, an image at a time; `error` says why it did not, and then nothing else is known.

    `shapes` are its outputs' (1, C, h, w). `difference` is the largest to the reference output, over the reference's
    largest value where that is above 1; None without a reference, or where the shapes differ. `isolation` says what
    kept the process off the network. `memory_mb` is the process's peak, libraries included.
    """

    error: str | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    finite: bool | None = None
    difference: float | None = None
    memory_mb: float | None = None
    isolation: str | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of each sample by role; `error` says why there are none."""

    samples: Mapping[str, tuple[float, ...]]
    error: str | None = None


def try_model(model: Exported, *, time_limit: int) -> ProbeAnswer:
    """Load a model in a process of its own, which is killed after `time_limit` seconds, and let it answer."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        reference = model.directory / REFERENCE_FILE
        job = _on_disk(model, Path(folder) / "images.npy") | {
            "task": "answer",
            "reference": str(reference) if reference.exists() else None,
        }
        told = _run(job, Path(folder), time_limit)
    if "error" in told:
        return ProbeAnswer(error=told["error"], isolation=told.get("isolation"))
    return ProbeAnswer(
        shapes=tuple(tuple(shape) for shape in told["shapes"]),
        finite=told["finite"],
        difference=told["difference"],
        memory_mb=told["memory_mb"],
        isolation=told["isolation"],
    )


def time_models(models: Mapping[str, Exported], *, least: int, time_limit: int) -> Latency:
    """Time all models in turns in one process, which is killed after `time_limit` seconds: `least` samples or more."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        job = {
            "task": "measure",
            "models": {role: _on_disk(model, Path(folder) / f"{role}.npy") for role, model in models.items()},
            "least": least,
            "most": max(least, _MOST_SAMPLES),
            "seconds": _SECONDS,
        }
        told = _run(job, Path(folder), time_limit)
    if "error" in told:
        return Latency({}, told["error"])
    return Latency({role: tuple(samples) for role, samples in told["latency_ms"].items()})


def _on_disk(model: Exported, images: Path) -> dict[str, Any]:
    np.save(images, model.images)
    return {"model": str(model.directory / TORCHSCRIPT_FILE), "images": str(images)}


def _run(job: Mapping[str, Any], folder: Path, time_limit: int) -> dict[str, Any]:
    """Start a minimal interpreter on the job; return what it wrote, or why there is nothing.

    What kills it, or keeps it from answering in time, may be the machine's trouble: only what happens twice is the model's.
    Raises `GateError` where the process ends without having come to the model.
    """
    job_file, answer_file = folder / "job.json", folder / "answer.json"
    job_file.write_text(json.dumps(dict(job) | {"time_limit": time_limit}))
    # -P: the script's own folder stays off the path, where its neighbours would hide modules of the same names.
    command = [sys.executable, "-P", str(probe_process.__file__), str(job_file), str(answer_file)]
    told: dict[str, Any] = {}
    for _ in range(2):
        try:
            done = subprocess.run(
                command,
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"},  # AMD's
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=time_limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            told = {"error": f"it did not load and answer within {time_limit} s and was killed, twice"}
            continue
        try:
            answer: dict[str, Any] = json.loads(answer_file.read_text())
            return answer
        except (OSError, ValueError):
            said = done.stderr.strip()[-500:] or "no output"
        if done.returncode >= 0:  # what a model raises is an answer
            raise GateError(
                f"models cannot be tried on this machine: the process that does ended with status {done.returncode} and "
                f"without an answer: {said}. Mend that, and judge again."
            )
        told = {"error": f"its process was killed by {signal.Signals(-done.returncode).name}, twice: {said}"}
    return told
