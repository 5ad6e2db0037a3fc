"""A sweep's progress: on the terminal, if there is one, and as an artifact in Prefect."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console

from ratchet.training.display import show_sweep
from ratchet.training.sweep import OnProgress, TrialResult

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_BETWEEN = 5.0  # an update is a request to the server


@contextmanager
def sweep_progress() -> Iterator[OnProgress]:
    """Report what the sweep tells, while the block runs."""
    artifact = _ProgressArtifact("trials trained, in per cent of all training steps")
    with show_sweep(Console(stderr=True)) as show:

        def report(trials: Sequence[TrialResult]) -> None:
            show(trials)
            done = [
                1.0 if trial.status in ("finished", "reused", "failed") else trial.progress.fraction for trial in trials
            ]
            artifact.set(100 * sum(done) / len(done))

        yield report
    artifact.set(100.0)


@contextmanager
def gate_progress() -> Iterator[Callable[[int, int], None]]:
    """Report the share of the gate's images that are scored, while the block runs."""
    artifact = _ProgressArtifact("gate images scored, in per cent")
    yield lambda done, total: artifact.set(100 * done / total)
    artifact.set(100.0)


class _ProgressArtifact:
    def __init__(self, description: str) -> None:
        self._id = cast("UUID", create_progress_artifact(progress=0.0, description=description))
        self._told = time.monotonic()

    def set(self, percent: float) -> None:
        """Set it, seldom enough not to burden the server."""
        now = time.monotonic()
        if percent >= 100.0 or now - self._told > _SECONDS_BETWEEN:  # noqa: PLR2004
            self._told = now
            update_progress_artifact(self._id, progress=percent)
