"""A sweep on a terminal: one live table, or plain lines where the output is no terminal."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from ratchet.duration import shown_duration
from ratchet.page_parts import figure
from ratchet.training.preview import Preview, rows
from ratchet.training.progress import CACHING, TRAINING
from ratchet.training.results import ENDED, OnProgress, SweepOutcome, TrialResult, best_of

_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "paused": "dim cyan",
    "finished": "green",
    "reused": "blue",
    "pruned": "yellow",
    "stopped": "yellow",
    "failed": "red",
}
_PLANNED = 30  # trials of a plan that are listed
_FRAME = 8  # lines of the live table that are no trials
_SECONDS_BETWEEN = 10.0  # of lines that say how many images are decoded
_BAR = 10  # columns: in 80 there is room for a name beside it


def print_plan(found: Preview, console: Console) -> None:
    """Print what a sweep is about to do."""
    shown = rows(found)
    if len(shown) > 1:
        table = Table("trial", "epochs", "", "expected", title="Plan", title_justify="left")
        for row in shown[:_PLANNED]:
            table.add_row(row["trial"], str(row["epochs"]), row["state"], row["expected"])
        if len(shown) > _PLANNED:
            table.add_row(Text(f"and {len(shown) - _PLANNED} more", style="dim"))
        console.print(table)
    console.print(found.sentence, highlight=False, soft_wrap=True)


@contextmanager
def show_sweep(console: Console, *, metric: str = "val_iou", size: int | None = None) -> Iterator[OnProgress]:
    """Show what a sweep reports, while the block runs; it is to have `size` trials, if that is known."""
    if not (console.is_interactive and console.file.isatty()):  # FORCE_COLOR makes rich call a pipe a terminal
        yield _Lines(console, metric)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda trials: live.update(live_table(trials, metric=metric, size=size, rows=console.height - _FRAME))


def _whole(name: str) -> Column:
    """A column whose text is broken where there is no room, so that it can be copied."""
    return Column(name, overflow="fold", min_width=8)


def results_table(trials: Sequence[TrialResult], *, metric: str = "val_iou", best: str | None = None) -> Table:
    """Return a table of the trials as they ended, their notes below; `best` is the run id of the selected one."""
    shown = list(dict.fromkeys([metric, "val_iou", "val_loss_epoch", "test_iou", "test_dice"]))
    notes = "\n".join(f"{trial.name}: {trial.note}" for trial in trials if trial.note)
    table = Table("", _whole("trial"), *shown, "time", _whole("run"), title="Trials", title_justify="left")
    table.caption, table.caption_justify = notes or None, "left"
    for trial in trials:
        mark = "★" if trial.run_id is not None and trial.run_id == best else ""
        values = [figure(trial.metrics[key]) if trial.trained and key in trial.metrics else "" for key in shown]
        state = trial.status if trial.status != "finished" else shown_duration(trial.seconds)
        table.add_row(mark, trial.name, *values, Text(state, style=_STYLES[trial.status]), trial.run_id or "")
    return table


def print_sweep(outcome: SweepOutcome, console: Console, *, errors: Console, best: str | None = None) -> None:
    """Print how a sweep ended: its trials, what its budget left undone, its failures, and where its page is.

    `best` is the run id of the selected trial, if one was selected; else of several trials the best one is marked.
    """
    if best is None and len(outcome.trials) > 1:
        found = best_of(outcome.trials, outcome.metric, outcome.mode)
        best = None if found is None else found.run_id
    console.print(results_table(outcome.trials, metric=outcome.metric, best=best))
    for trial in outcome.trials:
        if trial.status == "failed":
            errors.print(f"{trial.name} failed: {trial.error}", style="red", highlight=False, soft_wrap=True)
    if outcome.stopped is not None:
        console.print(outcome.stopped, style="yellow", highlight=False, soft_wrap=True)
    if outcome.page is not None:
        console.print(f"comparison: {outcome.page}", highlight=False, soft_wrap=True)


def live_table(trials: Sequence[TrialResult], *, metric: str, rows: int, size: int | None = None) -> Table:
    """Return the table of a sweep that runs; where there is not room for all trials, those with the latest news."""
    rows, columns = max(rows, 1), ("trial", "", "epoch", "loss", metric, "time", "left")
    table = Table(*(Column(_line(name)) for name in columns), title=_title(trials, size), title_justify="left")
    for trial in _newest(trials, rows):
        progress, metrics = trial.progress, {**trial.progress.metrics, **trial.metrics}
        loss = metrics.get("loss", metrics.get("val_loss_epoch"))
        trains = trial.status == "running" and progress.phase == TRAINING
        table.add_row(
            _line(trial.name),
            _state(trial),
            f"{progress.epoch}/{progress.max_epochs}" if progress.max_epochs else "",
            "" if loss is None else figure(loss),
            figure(metrics[metric]) if metric in metrics else "",
            shown_duration(trial.seconds) if trial.seconds else "",
            shown_duration(progress.seconds_left) if trains and progress.seconds_left else "",
        )
    if len(trials) > rows:
        table.add_row(_line(f"and {len(trials) - rows} more", "dim"))
    return table


def _line(text: str, style: str = "") -> Text:
    """Text that is cut where there is no room, so that a trial is one line.

    It is said of each cell: a column of which it is said keeps its width, and rich narrows the numbers instead.
    """
    return Text(text, style, no_wrap=True)


def _title(trials: Sequence[TrialResult], size: int | None) -> str:
    counts = Counter(trial.status for trial in trials)
    ended = sum(counts[status] for status in ENDED)
    others = [f"{counts[status]} {status}" for status in ("reused", "pruned", "failed") if counts[status]]
    return ", ".join([f"Sweep: {ended} of {max(size or 0, len(trials))} trials", *others])


def _newest(trials: Sequence[TrialResult], rows: int) -> list[TrialResult]:
    """As many as there is room for, in their order: those at work, then the last that ended, then those that wait."""
    ended = [trial for trial in trials if trial.status in ENDED]
    chosen = [trial for trial in trials if trial.status == "running"] + ended[::-1]
    chosen += [trial for trial in trials if trial.status in ("paused", "waiting")]
    kept = {trial.fingerprint for trial in chosen[:rows]}
    return [trial for trial in trials if trial.fingerprint in kept]


def _state(trial: TrialResult) -> RenderableType:
    if trial.status == "running" and trial.progress.phase == TRAINING:
        return ProgressBar(total=1.0, completed=trial.progress.fraction, width=_BAR)
    if trial.caching:
        done, total = trial.progress.step, trial.progress.steps_per_epoch
        told = Table.grid(padding=(0, 1))
        told.add_row(ProgressBar(total=total, completed=done, width=_BAR), _line(f"caching {done}/{total}", "cyan"))
        return told
    word = trial.progress.phase if trial.status == "running" else trial.status
    return _line(word, _STYLES[trial.status])


class _Lines:
    """A line for each change of a trial's state, for each of its epochs, and now and then while images are decoded."""

    def __init__(self, console: Console, metric: str) -> None:
        self._console = console
        self._metric = metric
        self._told: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._cached_at = 0.0
        self._seen: dict[str, TrialResult] = {}

    def __call__(self, trials: Sequence[TrialResult]) -> None:
        for trial in trials:
            if self._seen.get(trial.fingerprint) is trial and not trial.caching:
                continue  # each change makes another one
            self._seen[trial.fingerprint] = trial
            line = self._caching(trial) if trial.caching else self._line(trial)
            left = trial.progress.seconds_left if line.startswith("epoch") else None
            if trial.note and trial.note not in line:
                self._tell(trial, trial.note, self._notes)
            self._tell(trial, line, self._told, f", {shown_duration(left)} left" if left else "")

    def _caching(self, trial: TrialResult) -> str:
        told, now = self._told.get(trial.fingerprint, ""), time.monotonic()
        if told.startswith(CACHING) and now - self._cached_at < _SECONDS_BETWEEN:
            return ""
        self._cached_at = now
        return f"{CACHING}, {trial.progress.step} of {trial.progress.steps_per_epoch}"

    def _tell(self, trial: TrialResult, line: str, told: dict[str, str], rest: str = "") -> None:
        if line and told.get(trial.fingerprint) != line:
            told[trial.fingerprint] = line
            self._console.print(f"{trial.name}: {line}{rest}", highlight=False, soft_wrap=True)

    def _line(self, trial: TrialResult) -> str:
        progress = trial.progress
        if trial.status == "running" and progress.phase == TRAINING:
            score = progress.metrics.get(self._metric)
            value = "" if score is None else f", {self._metric} {figure(score)}"
            known = progress.validated and "val_loss_epoch" in progress.metrics
            return f"epoch {progress.validated}/{progress.max_epochs}{value}" if known else ""
        if trial.status == "running":
            return progress.phase
        if trial.status == "failed":
            return f"failed: {trial.error}"
        if trial.status in ("pruned", "stopped"):
            return f"{trial.status}: {trial.note}"
        if trial.trained:
            return f"{trial.status}, {self._metric} {figure(trial.metrics.get(self._metric, math.nan))}"
        return ""
