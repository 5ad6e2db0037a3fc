"""Parallel coordinates: an axis for each key that varies, and one for what came out; a line for each trial."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratchet.comparison.drawing import (
    COLOURED,
    Scale,
    fitted,
    group,
    line,
    padded,
    pointer,
    room,
    short,
    shown,
    spread,
    stroke,
    svg,
    text,
)
from ratchet.comparison.gather import ComparedTrial

_WIDTH = 1040
_TOP, _BOTTOM = 44, 24
_LOWEST = 262  # pixels of an axis
_APART = 14  # pixels between labels
_RANKS = 24  # pixels for the numbers behind the last axis
_FEW = 8  # values that have a place each, though they are numbers
_DIGITS = 8
_BAND = 26  # pixels over which the lines of one value spread, so that none hides another


@dataclass(frozen=True)
class _Axis:
    title: str
    place: Callable[[int], float]
    ticks: Sequence[tuple[float, str]]


def parallel(trials: Sequence[ComparedTrial], metric: str, logarithmic: Sequence[str]) -> str:
    """The chart; empty where nothing varies or no trial has a value. `trials` are best first."""
    valued = [(rank, trial) for rank, trial in enumerate(trials) if trial.value is not None]
    keys = list(dict.fromkeys(key for _, trial in valued for key in trial.result.point))
    if not keys:
        return ""
    values = {key: [trial.result.point.get(key, "") for _, trial in valued] for key in keys}
    words = {key: _words(values[key], log=key in logarithmic) for key in keys}
    bottom = _TOP + max(_LOWEST, _APART * max(map(len, words.values())))
    axes = [_axis(key, values[key], words[key], bottom, log=key in logarithmic) for key in keys]
    results = [trial.value or 0.0 for _, trial in valued]
    axes.append(_numbers(metric, results, fitted(results, bottom, _TOP)))
    title = room(short(axis.title) for axis in axes) / 2
    left = max(title, 20 + room(label for _, label in axes[0].ticks))
    right = max(title, 20 + _RANKS + room(label for _, label in axes[-1].ticks))
    columns = [left + index * (_WIDTH - left - right) / (len(axes) - 1) for index in range(len(axes))]
    parts = []
    for index in reversed(range(len(valued))):
        rank, trial = valued[index]
        places = [(x, axis.place(index)) for axis, x in zip(axes, columns, strict=True)]
        kind = "" if trial.result.trained else "unfinished"
        told = f"{trial.result.name}: {metric} {shown(trial.value or 0.0)} ({trial.result.status})"
        parts.append(group(rank, told, stroke(_curve(places)), kind=kind))
    parts += [_drawn(axis, x, bottom, last=axis is axes[-1]) for axis, x in zip(axes, columns, strict=True)]
    parts.append(_ranks(valued, axes[-1], columns[-1], bottom))
    return svg(_WIDTH, bottom + _BOTTOM, f"what varies, and {metric}", "".join(parts))


def _words(values: Sequence[str], *, log: bool) -> list[str]:
    """The values that have a place each, from top to bottom; none where they are numbers on a scale."""
    known = list(dict.fromkeys(values))
    numbers = {_number(value) for value in known}
    if None in numbers:
        return known
    return [] if log or len(numbers) > _FEW else sorted(known, key=lambda value: -(_number(value) or 0.0))


def _axis(key: str, values: Sequence[str], words: Sequence[str], bottom: float, *, log: bool) -> _Axis:
    title = key.lstrip("+").split(".")[-1]
    if words:
        return _choices(title, values, words, bottom)
    numbers = [float(value) for value in values]
    low, high = (min(numbers), max(numbers)) if log else padded(numbers)
    return _numbers(title, numbers, Scale(low, high, bottom, _TOP, log=log))


def _numbers(title: str, values: Sequence[float], scale: Scale) -> _Axis:
    return _Axis(title, lambda index: scale(values[index]), scale.labels())


def _choices(title: str, values: Sequence[str], words: Sequence[str], bottom: float) -> _Axis:
    """The trials of one value lie side by side, the best on top."""
    height = (bottom - _TOP) / len(words)
    centre = {value: _TOP + height * (index + 0.5) for index, value in enumerate(words)}
    members = {value: [index for index, other in enumerate(values) if other == value] for value in words}

    def place(index: int) -> float:
        same = members[values[index]]
        band = min(_BAND, 0.7 * height)
        offset = 0.0 if len(same) == 1 else same.index(index) / (len(same) - 1) - 0.5
        return centre[values[index]] + band * offset

    return _Axis(title, place, [(centre[value], short(_label(value))) for value in words])


def _drawn(axis: _Axis, x: float, bottom: float, *, last: bool) -> str:
    parts = [line(x, _TOP - 6, x, bottom + 6, "axis"), text(x, _TOP - 20, short(axis.title), kind="title")]
    side, anchor = (10 + _RANKS, "start") if last else (-10, "end")
    for y, words in axis.ticks:
        parts += [line(x - 3, y, x + 3, y, "axis"), text(x + side, y + 4, words, kind="tick halo", anchor=anchor)]
    return "".join(parts)


def _ranks(valued: Sequence[tuple[int, ComparedTrial]], axis: _Axis, x: float, bottom: float) -> str:
    """The coloured trials' numbers of the table, beside the ends of their lines."""
    ends = [(rank, trial.result.name, axis.place(index)) for index, (rank, trial) in enumerate(valued)][:COLOURED]
    heights = spread([end for _, _, end in ends], _APART, bottom)
    return "".join(
        group(rank, name, pointer(x, end, height, str(rank + 1)))
        for (rank, name, end), height in zip(ends, heights, strict=True)
    )


def _curve(places: Sequence[tuple[float, float]]) -> str:
    """A path that leaves and meets every axis level, so that it can be followed across."""
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
    for (x1, y1), (x2, y2) in itertools.pairwise(places):
        middle = (x1 + x2) / 2
        path += f"C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return path


def _label(value: str) -> str:
    """A value as it was written, but a number with as many digits as are read."""
    number = _number(value)
    return value if number is None or len(value) <= _DIGITS else shown(number)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
