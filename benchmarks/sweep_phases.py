"""Where the time of a fit goes: what the benchmarks' trainings carry, as callbacks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Steps(pl.Callback):
    """Writes a byte into `file` for each step that is done."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def on_train_batch_end(self, *_: Any) -> None:
        """A step is done."""
        with self._file.open("a") as done:
            done.write(".")


class Phases(pl.Callback):
    """Adds up seconds and writes them to `folder` when the fit ends.

    `steps` are from a batch's start to its end (forward, backward, optimizer); `validation` are whole passes; `between`
    is the rest of the fit: waiting for data, logging, checkpoints.
    """

    def __init__(self, folder: str) -> None:
        self._file = Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}.json"
        self._seconds = {"steps": 0.0, "validation": 0.0, "fit": 0.0}
        self._since: dict[str, float] = {}

    def _start(self, what: str) -> None:
        self._since[what] = time.monotonic()

    def _stop(self, what: str) -> None:
        self._seconds[what] += time.monotonic() - self._since[what]

    def on_fit_start(self, *_: Any) -> None:
        """The fit begins."""
        self._start("fit")

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self._start("steps")

    def on_train_batch_end(self, *_: Any) -> None:
        """A step ends."""
        self._stop("steps")

    def on_validation_start(self, *_: Any) -> None:
        """A validation begins."""
        self._start("validation")

    def on_validation_end(self, *_: Any) -> None:
        """A validation ends."""
        self._stop("validation")

    def on_fit_end(self, *_: Any) -> None:
        """Write the sums."""
        self._stop("fit")
        found = self._seconds
        found["between"] = found.pop("fit") - found["steps"] - found["validation"]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(found))
