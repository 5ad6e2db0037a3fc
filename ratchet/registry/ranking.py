"""Which of some runs is the best, and what to tell when there is none: pure functions, for every back end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ratchet.errors import ExperimentNotFoundError, MetricNotLoggedError, NoFinishedRunError, RegistryError
from ratchet.registry.values import BestRun

CANDIDATES = 20  # runs whose model is looked at, best first, before a selection gives up
INFINITE = 1.7976931348623157e308  # as which MLflow stores infinity
_SHOWN = 20


@dataclass(frozen=True)
class RunFacts:
    """As much of a run as a selection judges by; `metrics` are the last logged values."""

    status: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    def has(self, tags: Mapping[str, str] | None) -> bool:
        """Whether it carries all of these tags."""
        return all(self.tags.get(key) == value for key, value in (tags or {}).items())


def as_logged(value: float) -> float:
    """A metric's value that MLflow gave back, as it was before it was stored."""
    return math.copysign(math.inf, value) if abs(value) >= INFINITE else value


def rank(runs: Iterable[BestRun], mode: Literal["min", "max"]) -> list[BestRun]:
    """Best first: by the metric, then by fewer parameters (unknown: last), then by the earlier start, then by run id.

    Runs whose value is not finite are left out.
    """
    sign = 1.0 if mode == "min" else -1.0
    finite = [run for run in runs if math.isfinite(as_logged(run.value))]
    return sorted(
        finite,
        key=lambda run: (
            sign * run.value,
            math.inf if run.parameters is None else run.parameters,
            run.started,
            run.run_id,
        ),
    )


def checked_mode(mode: str) -> Literal["min", "max"]:
    """The mode, if it is one. Raises `RegistryError`."""
    if mode == "min":
        return "min"
    if mode == "max":
        return "max"
    raise RegistryError(f"{mode!r} is not a mode: use 'min' or 'max'")


def no_such_experiment(name: str, where: str, there: Iterable[str], *, deleted: bool = False) -> RegistryError:
    """The error that lists the experiments that there are."""
    state = "was deleted from" if deleted else "is not on"
    listed = ", ".join(sorted(there)[:_SHOWN]) or "none"
    return ExperimentNotFoundError(f"the experiment {name!r} {state} {where}: there are {listed}")


def no_run_to_choose(
    experiment: str, runs: Sequence[RunFacts], metric: str, tags: Mapping[str, str] | None, *, newest: int | None = None
) -> RegistryError:
    """The error that tells what the runs did log, or how they ended; `newest`: they are so many, of more."""
    of = "" if newest is None else f"among the newest {newest:,}: "
    finished = [run for run in runs if run.status == "FINISHED" and run.has(tags)]
    if not finished:
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.status for run in runs).items())
        filtered = f" with the tags {dict(tags)}" if tags else ""
        return NoFinishedRunError(
            f"{experiment!r} has no finished run{filtered} to choose from: {of}there are {states or 'no runs'}"
        )
    counts = Counter(key for run in finished for key, value in run.metrics.items() if math.isfinite(as_logged(value)))
    listed = ", ".join(f"{key} ({count})" for key, count in counts.most_common(_SHOWN))
    return MetricNotLoggedError(
        f"no finished run of {experiment!r} has a finite last value of {metric!r}: "
        f"{of}there are {listed or 'no finite metrics at all'}"
    )


def no_model_in_any(
    experiment: str, metric: str, model_path: str, looked_at: int, troubles: Sequence[str]
) -> RegistryError:
    """The error that says what is wrong with the models of the best runs."""
    return NoFinishedRunError(
        f"none of the {looked_at} best runs of {experiment!r} by {metric!r} holds a model {model_path!r} that can be "
        f"used: {'; '.join(troubles[:5]) or 'their files cannot be registered'}"
    )
