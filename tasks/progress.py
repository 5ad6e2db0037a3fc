"""A sweep's and a gate's progress: on the terminal, if there is one, and as artifacts of the flow run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar, cast
from uuid import UUID

from httpx import HTTPError, HTTPStatusError, codes
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException
from rich.console import Console

from ratchet.planning import Plan
from ratchet.report import trial_table
from ratchet.training.display import print_plan, show_sweep
from ratchet.training.preview import Preview, rows
from ratchet.training.results import OnProgress, Status, SweepOutcome, TrialResult
from tasks.run_page import artifact_key
from tasks.step import warned_of

_T = TypeVar("_T")

_SECONDS_BETWEEN = 5.0  # an update is a request to the server
_DONE: tuple[Status, ...] = ("finished", "reused", "pruned")  # what failed or was stopped counts as far as it came


@contextmanager
def sweep_progress(plan: Plan) -> Iterator[SweepProgress]:
    """Report what the sweep tells, while the block runs: its plan, how far it is, and a table of the trials."""
    console = Console(stderr=True, markup=False, emoji=False)
    with show_sweep(console, metric=plan.settings.metric, size=plan.sweep.due) as show:
        progress = SweepProgress(plan, console, show)
        try:
            yield progress
        except Exception:  # what ends the process, as Ctrl-C does, waits for no server
            progress.end()
            raise
    progress.end()


@contextmanager
def gate_progress(model: str) -> Iterator[Callable[[int, int], None]]:
    """Report the share of the gate's images that are scored, while the block runs; nothing where none has to be."""
    bar, due = _bar("gate", model, "share of the gate images scored"), Seldom()

    def report(done: int, total: int) -> None:
        if due(now=done == total):
            bar.set(100 * done / total)

    yield report


class SweepProgress:
    """Passes on what a sweep tells. Trials that are all reused leave no artifacts: the report will say so."""

    def __init__(self, plan: Plan, console: Console, show: OnProgress) -> None:
        self._plan, self._console, self._show = plan, console, show
        self._artifacts: _Sweep | None = None
        self._last: Sequence[TrialResult] = ()
        self._expected = plan.title.partition(": ")[2]

    def plan(self, found: Preview) -> None:
        """Tell what is about to be done."""
        print_plan(found, self._console)
        lines = [
            f"{row['trial']}: {row['epochs']} epoch{'s' if row['epochs'] != 1 else ''}, {row['state']} {row['expected']}"
            for row in rows(found)
        ]
        get_run_logger().info("\n".join([found.sentence, *lines]))
        self._expected = found.sentence

    def trials(self, trials: Sequence[TrialResult]) -> None:
        """Tell how far they are."""
        self._last = trials
        self._show(trials)
        if self._artifacts is None and any(trial.caching or trial.status == "running" for trial in trials):
            self._artifacts = _Sweep(self._plan, self._expected)
        if self._artifacts is not None:
            self._artifacts.set(trials)

    def end(self) -> None:
        """Bring the artifacts up to date."""
        if self._artifacts is not None:
            self._artifacts.set(self._last, now=True)


class Seldom:
    """Lets an update through if the last was long enough ago not to burden the server."""

    def __init__(self, seconds: float = _SECONDS_BETWEEN) -> None:
        self._seconds, self._told = seconds, -seconds

    def __call__(self, *, now: bool = False) -> bool:
        """Whether it is time, or is to be `now`."""
        if not now and time.monotonic() - self._told < self._seconds:
            return False
        self._told = time.monotonic()
        return True


@dataclass
class _Shown(Generic[_T]):
    """An artifact that is made when there is something to show, and anew where somebody deleted it.

    What is shown is beside the work: that goes on where Prefect takes nothing of it, a server that is away say, or an event
    that is too large.
    """

    make: Callable[[], UUID]
    update: Callable[[UUID, _T], object]
    made: UUID | None = None

    def set(self, value: _T) -> None:
        """Show it."""
        try:
            self.made = self.made or self.make()
            self.update(self.made, value)
        except (HTTPError, PrefectException) as error:
            if isinstance(error, HTTPStatusError) and error.response.status_code == codes.NOT_FOUND:
                self.made = None
            get_run_logger().warning("the progress is not shown: %s", error)


class _Sweep:
    """The two artifacts of a sweep."""

    def __init__(self, plan: Plan, expected: str) -> None:
        self._settings, self._size = plan.settings, plan.sweep.due or 0
        model = plan.settings.model
        self._bar = _bar("training", model, "share of the training done")
        description = f"{expected}, selected by {plan.settings.metric}"
        key = artifact_key("trials", model)
        self._table = _Shown[str](
            lambda: cast("UUID", create_markdown_artifact("Training begins.", key=key, description=description)),
            _update_table,
        )
        self._due = Seldom()

    def set(self, trials: Sequence[TrialResult], *, now: bool = False) -> None:
        """Bring them up to date, if it is time."""
        if not self._due(now=now):
            return
        done = [1.0 if trial.status in _DONE else trial.progress.fraction for trial in trials]
        size = len(done) if now else max(len(done), self._size)
        self._bar.set(100 * sum(done) / size)
        found = SweepOutcome(trials=tuple(trials), metric=self._settings.metric, mode=self._settings.mode)
        with warned_of("the table of the trials is not shown"):  # it asks MLflow, which may be away
            self._table.set(trial_table(found))


def _bar(kind: str, model: str, description: str) -> _Shown[float]:
    key = artifact_key(kind, model)
    return _Shown(
        lambda: cast("UUID", create_progress_artifact(0.0, key=key, description=description)), update_progress_artifact
    )


def _update_table(artifact: UUID, table: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_artifact(artifact, ArtifactUpdate(data=table))
