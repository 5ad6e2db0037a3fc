"""The interval picture: every difference that a verdict rests on, with its bounds and the line it had to beat."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ratchet.evaluation.pictures import drawable
from ratchet.gate.intervals import ends_told, interval_range, interval_rows
from ratchet.gate.verdict import Interval, Verdict

# Colours that the colour-blind can tell apart (Okabe and Ito 2008); the marks before the labels say the same.
COLOURS = {"passed": "#009E73", "undecided": "#E69F00", "failed": "#D55E00", "measured": "#0072B2"}
_INK, _FAINT = "#1f2328", "#8c959f"


def interval_figure(verdict: Verdict) -> Figure | None:
    """Draw challenger - champion, one row each; None when nothing was compared (a first model)."""
    rows = interval_rows(verdict)
    if not rows:
        return None
    figure = Figure(figsize=(8.4, 1.0 + 0.31 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ends = interval_range([interval for _, _, interval in rows])
    for place, (_, outcome, interval) in enumerate(rows):
        _draw(axes, place, interval, COLOURS[outcome], ends)
    axes.axvline(0, color=_FAINT, linewidth=0.8, zorder=0)
    labels = [drawable(label) for label, _, _ in rows]
    axes.set_yticks(range(len(rows)), labels, parse_math=False)  # a class may have any name
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(ends)
    axes.set_xlabel(f"difference of {verdict.policy.metric_title}, challenger minus champion; black: the line to beat")
    _frame(axes)
    return figure


def _draw(axes: Axes, place: int, interval: Interval, colour: str, ends: tuple[float, float]) -> None:
    if interval.estimate is None:
        text = "no number"
    else:
        low = ends[0] if interval.low is None else interval.low
        high = ends[1] if interval.high is None else interval.high
        axes.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot([interval.estimate], [place], "o", color=colour, markersize=6)
        text = f"{interval.estimate_told}  ({ends_told(interval)})"
    axes.plot([interval.line] * 2, [place - 0.34, place + 0.34], color=_INK, linewidth=1.6)
    axes.annotate(
        text,
        (1.01, place),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8.5,
        color=_INK,
        family="monospace",
    )


def _frame(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(length=0, labelsize=9, colors=_INK)
    axes.grid(axis="x", color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.label.set(fontsize=8.5, color="#57606a")


def interval_png(verdict: Verdict) -> bytes | None:
    """The interval picture as a PNG; None when nothing was compared."""
    figure = interval_figure(verdict)
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()
