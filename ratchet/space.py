"""What a sweep varies, as plain values: lists of choices, and intervals to search in."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.settings import TrialConfig

Point = dict[str, str]
"""One trial's place in a space: for each varied key, its value as Hydra's grammar writes it."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Choice(_Value):
    """A few values, as Hydra writes them; `ordered` where they are the steps of a range."""

    kind: Literal["choice"] = "choice"
    values: tuple[str, ...]
    ordered: bool = False


class Interval(_Value):
    """The numbers from `low` to `high`, both included; `log` where their logarithms are drawn evenly."""

    kind: Literal["interval"] = "interval"
    low: float
    high: float
    log: bool = False
    integer: bool = False

    def text(self, number: float) -> str:
        """Write a number, so that it is read as the same one."""
        return str(round(number)) if self.integer else repr(float(number))


Dimension = Choice | Interval


class Origin(_Value):
    """Where the tree is composed from: its top file, and folders that the command line gave in Ratchet's place, or added."""

    config_name: str = "config"
    config_path: str | None = None
    search_path: tuple[str, ...] = ()


class Space(_Value):
    """A sweep's overrides in their order: those that are fixed, as they were typed, and those that vary, by key."""

    overrides: dict[str, str | Choice | Interval]
    origin: Origin = Origin()

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """What varies."""
        return {key: value for key, value in self.overrides.items() if not isinstance(value, str)}

    @property
    def endless(self) -> bool:
        """Whether it has an interval, so that it cannot be tried in full."""
        return any(isinstance(dimension, Interval) for dimension in self.dimensions.values())

    @property
    def combinations(self) -> int:
        """How many points its grid has."""
        return math.prod(len(_ends(dimension)) for dimension in self.dimensions.values())

    @property
    def size(self) -> int | None:
        """How many points it has; None: it is endless."""
        return None if self.endless else self.combinations

    def at(self, point: Mapping[str, str]) -> list[str]:
        """The overrides of one trial."""
        return [value if isinstance(value, str) else f"{key}={point[key]}" for key, value in self.overrides.items()]

    def grid(self) -> Iterator[Point]:
        """Every combination, the last key varying fastest; of an interval its two ends."""
        values = [_ends(dimension) for dimension in self.dimensions.values()]
        return (dict(zip(self.dimensions, combination, strict=True)) for combination in itertools.product(*values))

    def point(self, number: int) -> Point:
        """One combination of `grid`, by its place in it."""
        found: Point = {}
        for key, dimension in reversed(self.dimensions.items()):
            number, place = divmod(number, len(_ends(dimension)))
            found[key] = _ends(dimension)[place]
        return dict(reversed(found.items()))

    def samples(self) -> Iterator[Point]:
        """The first point, and from there each value of each key once: enough to see that all can be composed."""
        first = next(self.grid())
        yield first
        for key, dimension in self.dimensions.items():
            yield from ({**first, key: value} for value in _ends(dimension)[1:])

    @property
    def digest(self) -> str:
        """A hash (hex) of what varies and how; of the rest, the configurations tell more than the overrides do."""
        varied = {key: dimension.model_dump() for key, dimension in self.dimensions.items()}
        return hashlib.sha256(json.dumps(varied, sort_keys=True).encode()).hexdigest()


class Composed(_Value):
    """What overrides came to: the configuration of each point; where `space` is to be searched, of one for each value.

    `size` is the number of trials that the overrides ask for, of a grid also those that `sweep.max_trials` leaves out;
    None where only time bounds a search.
    """

    configs: tuple[TrialConfig, ...]
    points: tuple[Point, ...]
    size: int | None
    space: Space | None = None


def _ends(dimension: Dimension) -> tuple[str, ...]:
    if isinstance(dimension, Choice):
        return dimension.values
    return dimension.text(dimension.low), dimension.text(dimension.high)
