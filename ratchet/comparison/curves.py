"""The curves of all trials in one chart, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratchet.comparison.drawing import COLOURED, Scale, group, line, padded, short, shown, spread, stroke, svg, text
from ratchet.comparison.gather import ComparedTrial, Curve

_LEFT, _TOP, _BOTTOM = 52, 12, 30
_LABELS = 240
_APART = 15
_FEW_DOTS = 400
_MOST_POINTS = 200


def curves(trials: Sequence[ComparedTrial], metric: str, *, width: float, height: float, labels: bool) -> str:
    """One line for each trial that has the metric, the best on top; with `labels`, the coloured ones have their names."""
    drawn = [(rank, trial, _points(trial.curves.get(metric, ()))) for rank, trial in enumerate(trials)]
    drawn = [entry for entry in drawn if entry[2]]
    if not drawn:
        return ""
    right = width - (_LABELS if labels else 14)
    first, last = min(points[0][0] for _, _, points in drawn), max(points[-1][0] for _, _, points in drawn)
    x = Scale(min(first, 1), max(last, 2), _LEFT, right)
    y = Scale(*padded([value for _, _, points in drawn for _, value in points]), height - _BOTTOM, _TOP)
    dots = sum(len(points) for _, _, points in drawn) <= _FEW_DOTS
    lines = [_line(rank, trial, points, metric, x, y, dots=dots) for rank, trial, points in reversed(drawn)]
    names = _names([entry for entry in drawn if entry[0] < COLOURED], x, y) if labels else ""
    return svg(
        width, height, f"{metric} by epoch", _frame(x, y, width if not labels else right) + "".join(lines) + names
    )


def _points(curve: Curve) -> Sequence[tuple[float, float]]:
    """Epochs with their finite values, no more than can be seen."""
    finite = [(epoch, value) for epoch, value in curve if math.isfinite(value)]
    step = math.ceil(len(finite) / _MOST_POINTS)
    return [*finite[:-1:step], finite[-1]] if step > 1 else finite


def _frame(x: Scale, y: Scale, right: float) -> str:
    parts = []
    for tick in y.ticks():
        parts += [
            line(x.start, y(tick), right, y(tick), "grid"),
            text(x.start - 8, y(tick) + 4, shown(tick), anchor="end"),
        ]
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


def _names(drawn: Sequence[tuple[int, ComparedTrial, Sequence[tuple[float, float]]]], x: Scale, y: Scale) -> str:
    """A name beside the end of each line; those that end at the same epoch share the room there."""
    parts = []
    for epoch in sorted({points[-1][0] for _, _, points in drawn}):
        here = [(rank, trial.result.name, y(points[-1][1])) for rank, trial, points in drawn if points[-1][0] == epoch]
        heights = spread([end for _, _, end in here], _APART, y.start)
        for (rank, name, end), height in zip(here, heights, strict=True):
            lead = f'<path class="lead" d="M{x(epoch) + 6:.1f} {end:.1f}L{x(epoch) + 14:.1f} {height:.1f}"/>'
            words = text(x(epoch) + 17, height + 4, short(name), kind="name halo", anchor="start")
            parts.append(group(rank, name, lead + words))
    return "".join(parts)


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")
