"""The curves of all trials in one chart, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ratchet.comparison.drawing import (
    COLOURED,
    Scale,
    fitted,
    group,
    line,
    pointer,
    room,
    short,
    shown,
    spread,
    stroke,
    svg,
    text,
)
from ratchet.comparison.gather import ComparedTrial, Curve

_LEFT, _TOP, _BOTTOM = 52, 12, 30
_APART = 15
_FEW_DOTS = 400
_MOST_POINTS = 200


def curves(trials: Sequence[ComparedTrial], metric: str, *, width: float, height: float, labels: bool) -> str:
    """One line for each trial that has the metric, the best on top.

    With `labels`, the coloured ones have their names, and the numbers that the table has for them.
    """
    drawn = [(rank, trial, _points(trial.curves.get(metric, ()))) for rank, trial in enumerate(trials)]
    drawn = [entry for entry in drawn if entry[2]]
    if not drawn:
        return ""
    names = {rank: f"{rank + 1} {short(trial.result.name)}" for rank, trial, _ in drawn if labels and rank < COLOURED}
    y = fitted([value for _, _, points in drawn for _, value in points], height - _BOTTOM, _TOP)
    left = max(_LEFT, 12 + room(words for _, words in y.labels()))
    right = width - (24 + room(names.values()) if names else 14)
    first, last = min(points[0][0] for _, _, points in drawn), max(points[-1][0] for _, _, points in drawn)
    x = Scale(min(first, 1), max(last, 2), left, right)
    dots = sum(len(points) for _, _, points in drawn) <= _FEW_DOTS
    lines = [_line(rank, trial, points, metric, x, y, dots=dots) for rank, trial, points in reversed(drawn)]
    frame = _frame(x, y, right if names else width)
    return svg(width, height, f"{metric} by epoch", frame + "".join(lines) + _names(drawn, names, x, y))


def _points(curve: Curve) -> Sequence[tuple[float, float]]:
    """Epochs with their finite values, no more than can be seen."""
    finite = [(epoch, value) for epoch, value in curve if math.isfinite(value)]
    step = math.ceil(len(finite) / _MOST_POINTS)
    return [*finite[:-1:step], finite[-1]] if step > 1 else finite


def _frame(x: Scale, y: Scale, right: float) -> str:
    parts = []
    for at, words in y.labels():
        parts += [line(x.start, at, right, at, "grid"), text(x.start - 8, at + 4, words, anchor="end")]
    whole = sorted({round(tick) for tick in x.ticks() if tick >= 1} | {1})
    parts += [text(x(tick), y.start + 18, str(tick)) for tick in whole]
    return "".join(parts)


def _line(
    rank: int,
    trial: ComparedTrial,
    points: Sequence[tuple[float, float]],
    metric: str,
    x: Scale,
    y: Scale,
    *,
    dots: bool,
) -> str:
    places = [(x(epoch), y(value)) for epoch, value in points]
    body = stroke("M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in places)) if len(places) > 1 else ""
    marks = zip(points, places, strict=True) if dots or len(places) == 1 else []
    for (epoch, value), (px, py) in marks:
        title = f"{trial.result.name}, epoch {shown(epoch)}: {metric} {shown(value)}"
        body += f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"><title>{_escaped(title)}</title></circle>'
    if trial.result.status in ("pruned", "stopped", "failed"):
        px, py = places[-1]
        body += f'<path class="end" d="M{px - 4:.1f} {py - 4:.1f}l8 8m0 -8l-8 8"/>'
    return group(rank, f"{trial.result.name} ({trial.result.status})", body)


def _names(
    drawn: Sequence[tuple[int, ComparedTrial, Sequence[tuple[float, float]]]],
    names: Mapping[int, str],
    x: Scale,
    y: Scale,
) -> str:
    """A name beside the end of the line of each rank that has one; those that end at the same epoch share the room there."""
    named = [(rank, trial.result.name, points[-1]) for rank, trial, points in drawn if rank in names]
    parts = []
    for epoch in sorted({last for _, _, (last, _) in named}):
        here = [(rank, name, y(value)) for rank, name, (last, value) in named if last == epoch]
        heights = spread([end for _, _, end in here], _APART, y.start)
        for (rank, name, end), height in zip(here, heights, strict=True):
            parts.append(group(rank, name, pointer(x(epoch), end, height, names[rank])))
    return "".join(parts)


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")
