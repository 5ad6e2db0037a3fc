"""The comparisons of a verdict as rows of a picture: labels, states, intervals, figures, and the range of the axis."""

from __future__ import annotations

from ratchet.gate.verdict import Interval, Verdict
from ratchet.gate.wording import SIGNS


def interval_rows(verdict: Verdict) -> list[tuple[str, str, Interval]]:
    """What the picture shows, top to bottom: label with its mark, state and interval of each comparison."""
    names = {"superiority": "better than", "non_inferiority": "not worse than", "anchor": "not worse than"}
    champion = f"v{verdict.champion.version}" if verdict.champion else "champion"
    anchor = f"v{verdict.context.anchor.version}, the best ever" if verdict.context.anchor else "the best ever"
    rows: list[tuple[str, str, Interval]] = []
    for check in verdict.checks:
        if check.interval is not None:
            other = anchor if check.rule == "anchor" else champion
            label = f"{names[check.rule]} {other}" if check.slice == "all" else check.slice
            rows.append((f"{SIGNS[check.state]} {label}", check.state, check.interval))
    if verdict.interval is not None and not any(check.interval and check.slice == "all" for check in verdict.checks):
        rows.insert(0, (f"all, against {champion}", "measured", verdict.interval))
    return rows


def ends_told(interval: Interval) -> str:
    """Between what the difference lies."""
    return f"{interval.low_told or 'unbounded'} to {interval.high_told or 'unbounded'}"


def interval_range(intervals: list[Interval]) -> tuple[float, float]:
    """The ends of the axis: all bounds, estimates, lines and zero, and a little room."""
    ends = [end for i in intervals for end in (i.low, i.high, i.estimate, i.line, 0.0) if end is not None]
    width = max(max(ends) - min(ends), 1e-3)
    return min(ends) - 0.06 * width, max(ends) + 0.06 * width
