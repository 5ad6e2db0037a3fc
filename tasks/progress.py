"""A sweep's progress: on the terminal, if there is one, and as an artifact in Prefect."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from rich.console import Console

from ratchet.registry.tracking import run_address
from ratchet.training.display import print_plan, show_sweep
from ratchet.training.markdown import trials_table
from ratchet.training.preview import Preview, rows
from ratchet.training.results import ENDED, OnProgress, SweepOutcome, TrialResult

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_BETWEEN = 5.0  # an update is a request to the server


class SweepProgress:
    """What a sweep tells, for the terminal and for Prefect's page."""

    def __init__(self, console: Console, show: OnProgress, size: int | None) -> None:
        self._console, self._show, self._size = console, show, size
        self._artifact = _ProgressArtifact("trials trained, in per cent of all training steps")

    def plan(self, found: Preview) -> None:
        """Tell the plan, before anything is trained."""
        print_plan(found, self._console)
        get_run_logger().info("%s", found.sentence)
        for row in rows(found):
            get_run_logger().info("%(trial)s: %(epochs)s epochs, %(state)s %(expected)s", row)
        self._artifact.describe(f"{found.sentence}. Trained, in per cent of all training steps:")

    def trials(self, trials: Sequence[TrialResult]) -> None:
        """Tell how far the trials are."""
        self._show(trials)
        done = [1.0 if trial.status in ENDED else trial.progress.fraction for trial in trials]
        self._artifact.set(100 * sum(done) / max(len(done), self._size or 0))

    def end(self, outcome: SweepOutcome) -> None:
        """Tell how they ended, with links to their runs."""
        self._artifact.set(100.0)
        if outcome.experiment_id is None:
            return
        experiment = outcome.experiment_id
        table = trials_table(outcome, link=lambda run_id: run_address(experiment, run_id))
        page = f"[The sweep's run, with the comparison of its trials]({run_address(experiment, str(outcome.run_id))})"
        create_markdown_artifact(f"{table}\n\n{page}", key="sweep-trials", description=outcome.stopped or "finished")


@contextmanager
def sweep_progress(metric: str, size: int | None) -> Iterator[SweepProgress]:
    """Show a sweep, while the block runs."""
    console = Console(stderr=True)
    with show_sweep(console, metric=metric, size=size) as show:
        yield SweepProgress(console, show, size)


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

    def describe(self, words: str) -> None:
        """Say what it shows."""
        update_progress_artifact(self._id, progress=0.0, description=words)

    def set(self, percent: float) -> None:
        """Set it, seldom enough not to burden the server."""
        now = time.monotonic()
        if percent >= 100.0 or now - self._told > _SECONDS_BETWEEN:  # noqa: PLR2004
            self._told = now
            update_progress_artifact(self._id, progress=percent)
