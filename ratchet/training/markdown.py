"""The trials of a sweep as a table in Markdown, for the pages of MLflow and Prefect."""

from __future__ import annotations

from collections.abc import Callable

from ratchet.training.results import SweepOutcome, best_of


def trials_table(outcome: SweepOutcome, *, link: Callable[[str], str]) -> str:
    """A row for each trial, the best one marked, and above them what the budget left undone; `link` addresses a run."""
    best = best_of(outcome.trials, outcome.metric, outcome.mode)
    lines = [outcome.stopped, ""] if outcome.stopped else []
    lines += [f"|  | trial | {outcome.metric} | state | run |", "|---|---|---:|---|---|"]
    for trial in outcome.trials:
        value = f"{trial.metrics[outcome.metric]:.4f}" if trial.trained and outcome.metric in trial.metrics else ""
        run = f"[{trial.run_id[:8]}]({link(trial.run_id)})" if trial.run_id else ""
        why = trial.error or (trial.note if trial.status in ("pruned", "stopped") else None)
        state = f"{trial.status}: {why}" if why else trial.status
        lines.append(f"| {'★' if trial is best else ''} | {_cell(trial.name)} | {value} | {_cell(state)} | {run} |")
    return "\n".join(lines)


def _cell(words: str) -> str:
    """Keep foreign words from being read as markup, or from ending a cell."""
    return " ".join(words.replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())
