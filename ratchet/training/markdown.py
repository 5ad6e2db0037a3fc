"""The trials of a sweep as a table in Markdown, for the pages of MLflow and Prefect."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from ratchet.duration import shown_duration
from ratchet.gate.markdown import cell
from ratchet.page_parts import figure
from ratchet.training.progress import CACHING
from ratchet.training.results import SweepOutcome, TrialResult

_SHOWN = ("val_iou", "val_loss_epoch", "test_iou")


def trial_table(
    trials: Sequence[TrialResult], *, metric: str, best: str | None, link: Callable[[str], str | None]
) -> str:
    """A row for each trial, that of the run `best` with a star; `link` gives a run's address, None where there is none."""
    shown = list(dict.fromkeys((metric, *_SHOWN)))
    timed = any(trial.seconds for trial in trials)
    columns = [*shown, "time"] if timed else shown
    lines = [f"| | trial | {' | '.join(columns)} | state |", f"|---|---|{'---:|' * len(columns)}---|"]
    for trial in trials:
        known = trial.progress.metrics | trial.metrics
        values = [figure(known[key]) if key in known else "" for key in shown]
        if timed:
            values.append(shown_duration(trial.seconds) if trial.seconds else "")
        mark = "★" if best is not None and trial.run_id == best else ""
        lines.append(f"| {mark} | {_name(trial, link)} | {' | '.join(values)} | {cell(_state(trial))} |")
    return "\n".join(lines)


def short_trial_table(
    outcome: SweepOutcome, *, best: str | None, link: Callable[[str], str | None], room: int, rest: str
) -> str:
    """All trials, if that takes at most `room` characters; else as many of the best as fit, and that `rest` has the others."""
    whole = trial_table(outcome.trials, metric=outcome.metric, best=best, link=link)
    if len(whole) <= room:
        return whole
    sign = 1.0 if outcome.mode == "max" else -1.0

    def worth(trial: TrialResult) -> float:
        value = sign * trial.metrics.get(outcome.metric, math.nan)
        return value if trial.trained and math.isfinite(value) else -math.inf

    ordered = sorted(outcome.trials, key=worth, reverse=True)
    heading, rule, *lines = trial_table(ordered, metric=outcome.metric, best=best, link=link).split("\n")
    room -= len(heading) + len(rule) + len(rest) + 40
    kept = sum(end <= room for end in itertools.accumulate(len(line) + 1 for line in lines))
    return "\n".join([heading, rule, *lines[:kept], "", f"The best {kept} of {len(lines)}; {rest} has all."])


def _name(trial: TrialResult, link: Callable[[str], str | None]) -> str:
    address = link(trial.run_id) if trial.run_id is not None else None
    return cell(trial.name) if address is None else f"[{cell(trial.name)}]({address})"


def _state(trial: TrialResult) -> str:
    if trial.status == "running" and trial.progress.max_epochs:
        return f"epoch {trial.progress.epoch} of {trial.progress.max_epochs}"
    if trial.caching:
        return f"{CACHING}: {trial.progress.step} of {trial.progress.steps_per_epoch}"
    why = trial.error or (trial.note if trial.status in ("pruned", "stopped") else None)
    return f"{trial.status}: {why}" if why else trial.status
