"""Callbacks that end a trial as trials end in practice, for the tests of what is told then."""

import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class Die(pl.Callback):
    """Is killed in the second step."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


class RunOut(Die):
    """Is killed as by the kernel for its memory, which counts that in a file such as /proc/vmstat."""

    def __init__(self, vmstat: str) -> None:
        self._vmstat = Path(vmstat)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._vmstat.write_text("oom_kill 8\n")
        super().on_train_batch_end(trainer)


class Crash(pl.Callback):
    """Crashes as compiled code does."""

    def on_train_batch_end(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Remembers(pl.Callback):
    """Has a state that torch reads back by unpickling alone."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(0.5)}


class Starve(pl.Callback):
    """May take 300 MB more than it has, and takes them."""

    def on_train_start(self, *_: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 300 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        self._taken: list[torch.Tensor] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self._taken.append(torch.zeros(50 * 2**20))


class CountsInPython(torch.nn.Module):
    """A network that can be trained, and traced by nobody."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(image)
        return logits if float(logits.sum()) > 0 else 2 * logits
