"""Reads Hydra's sweep overrides: `a,b`, `choice(…)`, `range(…)`, `glob(…)`, and `interval(…)` with its tag `log`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep

from ratchet.errors import ConfigError
from ratchet.space import Choice, Dimension, Interval, Origin, Space

requested: ContextVar[list[tuple[list[str], Origin]]] = ContextVar("requested")
"""What `hydra_plugins.ratchet_sweeper` was asked to sweep: the overrides, and where they are composed from."""


_OWN_KEYS = {"_target_", "params", "max_batch_size"}  # the last is that of Hydra's own, and nothing to Ratchet


def read_space(overrides: Sequence[Override], origin: Origin) -> Space:
    """Turn parsed overrides into a space; as for Hydra, of two with the same key the later one holds.

    Raises `ConfigError`.
    """
    found: dict[str, str | Choice | Interval] = {}
    for override in overrides:
        text = override.input_line or ""
        found[override.get_key_element()] = _dimension(override) if override.is_sweep_override() else text
    return Space(overrides=found, origin=origin)


def require_own_sweeper(node: Mapping[str, Any]) -> None:
    """Raise `ConfigError` at keys of `hydra.sweeper` that are another sweeper's."""
    if others := sorted(set(map(str, node)) - _OWN_KEYS):
        raise ConfigError(
            f"hydra.sweeper takes params only, not {', '.join(others)}: n_trials is sweep.max_trials here, sampler "
            "sweep.sampler, n_jobs sweep.parallel, direction retrain.mode, and storage RATCHET_STUDY_STORAGE."
        )


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """What `hydra.sweeper.params` sweep, as it would be typed."""
    return [f"{key}={'null' if value is None else value}" for key, value in params.items()]


def _dimension(override: Override) -> Dimension:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return _interval(override, value)
    if isinstance(value, Sweep) and value.tags:
        raise ConfigError(f"{override.input_line}: tags are for interval(…) only. Leave {sorted(value.tags)} out.")
    shuffled = isinstance(value, ChoiceSweep | RangeSweep) and value.shuffle
    if isinstance(value, ChoiceSweep | RangeSweep):
        value.shuffle = False  # Hydra's order is another one each time, and the sweep would be another one too
    values = tuple(override.sweep_string_iterator())
    if isinstance(value, ChoiceSweep | RangeSweep) and shuffled:
        value.shuffle = True  # it may be read again
        values = tuple(random.Random(override.input_line).sample(values, len(values)))
    if not values:
        raise ConfigError(f"{override.input_line}: there is nothing to choose from.")
    if len(set(values)) < len(values):
        raise ConfigError(f"{override.input_line}: a value occurs twice.")
    ordered = isinstance(value, RangeSweep) and not shuffled
    return Choice(values=values, ordered=ordered)


def _interval(override: Override, sweep: IntervalSweep) -> Interval:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    unknown = sorted(sweep.tags - {"log"})
    if unknown:
        raise ConfigError(f"{override.input_line}: there is no tag {', '.join(unknown)}; an interval takes `log` only.")
    if low is None or high is None or not low < high or (log and not low > 0):
        needs = "0 < low < high" if log else "low < high"
        raise ConfigError(f"{override.input_line}: interval(low, high) needs {needs}.")
    return Interval(low=low, high=high, log=log, integer=isinstance(low, int) and isinstance(high, int))
