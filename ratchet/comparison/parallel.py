"""Parallel coordinates: an axis for each key that varies, and one for what came out; a line for each trial."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratchet.comparison.drawing import Scale, group, line, padded, short, shown, stroke, svg, text
from ratchet.comparison.gather import ComparedTrial

_WIDTH, _HEIGHT = 1040, 330
_SIDE, _TOP, _BOTTOM = 90, 44, 24
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
    axes = [_axis(key, [trial.result.point.get(key, "") for _, trial in valued], key in logarithmic) for key in keys]
    axes.append(_numbers(metric, [trial.value or 0.0 for _, trial in valued], log=False))
    columns = [_SIDE + index * (_WIDTH - 2 * _SIDE) / (len(axes) - 1) for index in range(len(axes))]
    parts = [_drawn(axis, x, last=axis is axes[-1]) for axis, x in zip(axes, columns, strict=True)]
    for index in reversed(range(len(valued))):
        rank, trial = valued[index]
        places = [(x, axis.place(index)) for axis, x in zip(axes, columns, strict=True)]
        kind = "" if trial.result.trained else "unfinished"
        title = f"{trial.result.name}: {metric} {shown(trial.value or 0.0)} ({trial.result.status})"
        parts.insert(0, group(rank, title, stroke(_curve(places)), kind=kind))
    return svg(_WIDTH, _HEIGHT, f"what varies, and {metric}", "".join(parts))


def _axis(key: str, values: Sequence[str], log: bool) -> _Axis:
    title = key.lstrip("+").split(".")[-1]
    numbers = [_number(value) for value in values]
    if None not in numbers and (log or len(set(numbers)) > _FEW):
        found = [number for number in numbers if number is not None]
        return _numbers(title, found, log=log)
    return _words(title, values)


def _numbers(title: str, values: Sequence[float], *, log: bool) -> _Axis:
    low, high = (min(values), max(values)) if log else padded(values)
    scale = Scale(low, high, _HEIGHT - _BOTTOM, _TOP, log=log)
    return _Axis(title, lambda index: scale(values[index]), [(scale(tick), shown(tick)) for tick in scale.ticks()])


def _words(title: str, values: Sequence[str]) -> _Axis:
    """Each value has its place, numbers in their order; the trials of one value lie side by side, the best on top."""
    known = list(dict.fromkeys(values))
    if all(_number(value) is not None for value in known):
        known.sort(key=lambda value: -(_number(value) or 0.0))
    room = (_HEIGHT - _BOTTOM - _TOP) / len(known)
    centre = {value: _TOP + room * (index + 0.5) for index, value in enumerate(known)}
    members = {value: [index for index, other in enumerate(values) if other == value] for value in known}

    def place(index: int) -> float:
        same = members[values[index]]
        band = min(_BAND, 0.7 * room)
        offset = 0.0 if len(same) == 1 else same.index(index) / (len(same) - 1) - 0.5
        return centre[values[index]] + band * offset

    return _Axis(title, place, [(centre[value], _label(value)) for value in known])


def _drawn(axis: _Axis, x: float, *, last: bool) -> str:
    parts = [line(x, _TOP - 6, x, _HEIGHT - _BOTTOM + 6, "axis"), text(x, _TOP - 20, axis.title, kind="title")]
    side, anchor = (10, "start") if last else (-10, "end")
    for y, words in axis.ticks:
        parts += [
            line(x - 3, y, x + 3, y, "axis"),
            text(x + side, y + 4, short(words), kind="tick halo", anchor=anchor),
        ]
    return "".join(parts)


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
