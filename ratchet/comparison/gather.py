"""What is compared: the trials of a sweep, best first, with their curves and what the winners see, read from MLflow."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ratchet.registry.pages import run_page
from ratchet.registry.tracking import client
from ratchet.settings import Mode
from ratchet.training.examples import EXAMPLES_FILE, Example, read_examples
from ratchet.training.results import SweepOutcome, TrialResult
from ratchet.training.run import logged_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_TRAINING = "loss_epoch"
LOSSES = ("val_loss_epoch", _TRAINING)

Curve = tuple[tuple[float, float], ...]
"""Epochs, a part of one where trials are validated within it, and the values there."""

_WINNERS = 3
_AT_ONCE = 8


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class ComparedTrial(_Value):
    """One trial: `value` is that of its exported weights, of a trial that did not come to its end the last it had.

    `curves` are by metric, each value with its epoch; only the best have `examples`.
    """

    result: TrialResult
    value: float | None
    curves: dict[str, Curve] = {}
    address: str | None = None
    examples: tuple[Example, ...] = ()


class Comparison(_Value):
    """The trials, best first; those without a value last. `logarithmic` are the keys that were searched so."""

    title: str
    experiment: str
    metric: str
    mode: Mode
    trials: tuple[ComparedTrial, ...]
    stopped: str | None = None
    logarithmic: tuple[str, ...] = ()


def gather(
    outcome: SweepOutcome, *, title: str, experiment: str, experiment_id: str, logarithmic: Sequence[str] = ()
) -> Comparison:
    """Read what the page shows: some requests for each trial."""
    store = client()
    metrics = tuple(dict.fromkeys((outcome.metric, *LOSSES)))

    def compared(result: TrialResult) -> ComparedTrial:
        if result.run_id is None:
            return ComparedTrial(result=result, value=None)
        curves = _curves({metric: logged_rows(store, result.run_id, metric) for metric in metrics}, result)
        _, last = curves[outcome.metric][-1] if curves[outcome.metric] else (0.0, math.nan)
        value = result.metrics.get(outcome.metric, math.nan) if result.trained else last
        return ComparedTrial(
            result=result,
            value=value if math.isfinite(value) else None,
            curves=curves,
            address=run_page(experiment_id, result.run_id),
        )

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        trials = list(pool.map(compared, outcome.trials))
    trials.sort(key=lambda trial: _rank(trial, outcome))
    winners = [trial for trial in trials if trial.result.trained and trial.value is not None][:_WINNERS]
    seen = {trial.result.fingerprint: _examples(store, str(trial.result.run_id)) for trial in winners}
    trials = [trial.model_copy(update={"examples": seen.get(trial.result.fingerprint, ())}) for trial in trials]
    return Comparison(
        title=title,
        experiment=experiment,
        metric=outcome.metric,
        mode=outcome.mode,
        trials=tuple(trials),
        stopped=outcome.stopped,
        logarithmic=tuple(logarithmic),
    )


def _rank(trial: ComparedTrial, outcome: SweepOutcome) -> tuple[bool, float, float]:
    """The trained ones by their value, then the others by how far they came."""
    if trial.value is None:
        return True, 0.0, 0.0
    epochs = 0.0 if trial.result.trained else 1_000_000 - trial.curves[outcome.metric][-1][0]
    return False, epochs, -trial.value if outcome.mode == "max" else trial.value


def _curves(rows: Mapping[str, Sequence[Metric]], result: TrialResult) -> dict[str, Curve]:
    """Values by epoch. The last that a trained one has logged is that of its exported weights, and of no epoch."""
    ends = rows[_TRAINING]  # a value at the last step of each epoch; steps count from 0
    return {
        metric: tuple(
            ((row.step + 1) / (ends[0].step + 1) if ends else float(number), row.value)
            for number, row in enumerate(found[:-1] if result.trained and metric != _TRAINING else found, 1)
        )
        for metric, found in rows.items()
    }


def _examples(store: MlflowClient, run_id: str) -> tuple[Example, ...]:
    """What the trial saw in the images of all trials; none where an older Ratchet wrote its report."""
    folder, file = "report", f"report/{EXAMPLES_FILE}"
    if file not in {entry.path for entry in store.list_artifacts(run_id, folder)}:
        return ()
    with tempfile.TemporaryDirectory(prefix="comparison-") as scratch:
        return read_examples(Path(store.download_artifacts(run_id, file, scratch)))
