"""The interval chart of the HTML page: plain elements that follow the window's width and the reader's colour scheme."""

from __future__ import annotations

from html import escape

from ratchet.gate.intervals import ends_told, interval_range, interval_rows
from ratchet.gate.verdict import Interval, Verdict
from ratchet.page_parts import round_ticks

_TICKS = 6


def interval_chart(verdict: Verdict) -> str:
    """Challenger - champion, one row for each comparison; empty when nothing was compared (a first model)."""
    rows = interval_rows(verdict)
    if not rows:
        return ""
    ends = interval_range([interval for _, _, interval in rows])
    body = "".join(_row(label, state, interval, ends) for label, state, interval in rows)
    ticks = "".join(
        f'<span style="left:{_place(tick, ends):.2f}%">{_tick(tick)}</span>' for tick in round_ticks(*ends, _TICKS)
    )
    return f"<div class=chart>{body}<div class=axis>{ticks}</div></div>"


def _row(label: str, state: str, interval: Interval, ends: tuple[float, float]) -> str:
    marks = [f'<i class=zero style="left:{_place(0.0, ends):.2f}%"></i>']
    text = "no number"
    if interval.estimate is not None:
        low, high = (ends[i] if end is None else end for i, end in enumerate((interval.low, interval.high)))
        open_ends = " open-low" * (interval.low is None) + " open-high" * (interval.high is None)
        left, right = _place(low, ends), _place(high, ends)
        marks += [f'<i class="bar{open_ends}" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>']
        marks += [f'<i class=dot style="left:{_place(interval.estimate, ends):.2f}%"></i>']
        text = f"<b>{interval.estimate_told}</b> <span>{ends_told(interval)}</span>"
    marks += [f'<i class=line style="left:{_place(interval.line, ends):.2f}%"></i>']
    return (
        f'<div class="row {state}"><div class=label>{escape(label)}</div>'
        f"<div class=track>{''.join(marks)}</div><div class=text>{text}</div></div>"
    )


def _place(value: float, ends: tuple[float, float]) -> float:
    """Where a value lies between both ends, in per cent."""
    return 100 * (value - ends[0]) / (ends[1] - ends[0])


def _tick(value: float) -> str:
    return f"{value:+.3g}" if abs(value) > 1e-12 else "0"  # noqa: PLR2004
