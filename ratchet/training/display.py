"""A sweep on a terminal: one live table, or plain lines where the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ratchet.training.sweep import OnProgress, TrialResult

_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "paused": "yellow",
    "finished": "green",
    "reused": "blue",
    "failed": "red",
}
_ENDED = ("finished", "reused", "failed")


@contextmanager
def show_sweep(console: Console) -> Iterator[OnProgress]:
    """Show what `run_sweep` reports, while the block runs."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda trials: live.update(_live_table(trials))


def results_table(trials: Sequence[TrialResult], *, metric: str = "val_iou", best: str | None = None) -> Table:
    """Return a table of the trials as they ended, their notes below; `best` is the run id of the selected one."""
    shown = list(dict.fromkeys([metric, "val_iou", "val_loss_epoch", "test_iou", "test_dice"]))
    notes = "\n".join(f"{trial.name}: {trial.note}" for trial in trials if trial.note)
    table = Table("", "trial", *shown, "time", "run", title="Trials", title_justify="left")
    table.caption, table.caption_justify = notes or None, "left"
    for trial in trials:
        mark = "★" if trial.run_id is not None and trial.run_id == best else ""
        values = [f"{trial.metrics[key]:.4f}" if key in trial.metrics else "" for key in shown]
        state = trial.status if trial.status != "finished" else _clock(trial.seconds)
        table.add_row(mark, trial.name, *values, Text(state, style=_STYLES[trial.status]), trial.run_id or "")
    return table


def _live_table(trials: Sequence[TrialResult]) -> Table:
    ended = sum(trial.status in _ENDED for trial in trials)
    table = Table(
        "trial",
        "",
        "epoch",
        "loss",
        "val_iou",
        "time",
        "left",
        title=f"Sweep: {ended} of {len(trials)} trials",
        title_justify="left",
    )
    for trial in trials:
        progress, metrics = trial.progress, {**trial.progress.metrics, **trial.metrics}
        loss = metrics.get("loss", metrics.get("val_loss_epoch"))
        table.add_row(
            trial.name,
            _state(trial),
            f"{progress.epoch}/{progress.max_epochs}" if progress.max_epochs else "",
            "" if loss is None else f"{loss:.4f}",
            f"{metrics['val_iou']:.4f}" if "val_iou" in metrics else "",
            _clock(trial.seconds) if trial.seconds else "",
            _clock(trial.seconds * (1 / progress.fraction - 1))
            if trial.status == "running" and progress.fraction
            else "",
        )
    return table


def _state(trial: TrialResult) -> RenderableType:
    if trial.status == "running" and trial.progress.phase == "training":
        return ProgressBar(total=1.0, completed=trial.progress.fraction, width=20)
    if trial.status == "waiting" and trial.progress.steps_per_epoch:
        return Text(f"{trial.progress.phase} {trial.progress.step}/{trial.progress.steps_per_epoch}", style="cyan")
    word = trial.progress.phase if trial.status == "running" else trial.status
    return Text(word, style=_STYLES[trial.status])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class _Lines:
    """A line for each change of a trial's state, and for each of its epochs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def __call__(self, trials: Sequence[TrialResult]) -> None:
        for trial in trials:
            self._tell(trial, trial.note or "", self._notes)
            self._tell(trial, self._line(trial), self._told)

    def _tell(self, trial: TrialResult, line: str, told: dict[str, str]) -> None:
        if line and told.get(trial.fingerprint) != line:
            told[trial.fingerprint] = line
            self._console.print(f"{trial.name}: {line}", highlight=False, soft_wrap=True)

    def _line(self, trial: TrialResult) -> str:
        if trial.status == "running" and trial.progress.phase == "training":
            progress = trial.progress
            value = progress.metrics.get("val_iou", float("nan"))
            return (
                f"epoch {progress.validated}/{progress.max_epochs}, val_iou {value:.4f}" if progress.validated else ""
            )
        if trial.status == "running" or (trial.status == "waiting" and trial.progress.steps_per_epoch):
            return trial.progress.phase
        if trial.status == "failed":
            return f"failed: {trial.error}"
        if trial.status in ("finished", "reused"):
            return f"{trial.status}, val_iou {trial.metrics.get('val_iou', float('nan')):.4f}"
        return ""
