"""What the page's charts share: scales with round ticks, numbers as text, and labels that do not lie on each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ratchet.page_parts import round_ticks

COLOURED = 6
"""The best trials have colours of their own; the others are grey, so that a sweep of many can be read too."""

_TICKS = 7
_LONGEST = 34


@dataclass(frozen=True)
class Scale:
    """From values to pixels; `log` for positive values over several powers of ten."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where the value is."""
        low, high, at = (
            (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        share = 0.5 if high == low else (at - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends: 1, 2 or 5 times a power of ten apart; of a logarithm, 1, 2, 5 times powers."""
        if self.low == self.high:
            return [self.low]
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            fine = [times * 10.0**power for power in powers for times in (1, 2, 5)]
            inside = [tick for tick in fine if self.low <= tick <= self.high]
            whole = [tick for tick in inside if math.isclose(math.log10(tick), round(math.log10(tick)))]
            return whole if len(whole) > 2 else inside or [self.low, self.high]  # noqa: PLR2004
        return round_ticks(self.low, self.high, _TICKS)


def padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """The ends of an axis: a little beyond the values; around a single one."""
    low, high = min(values), max(values)
    margin = share * (high - low) or abs(low) * share or share
    return low - margin, high + margin


def shown(value: float) -> str:
    """A number in at most four digits."""
    return f"{value:.4g}"


def short(text: str) -> str:
    """A name that fits beside a chart."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def spread(places: Sequence[float], apart: float, end: float) -> list[float]:
    """Move labels down until they are `apart`, then up again where they left the chart at `end`; in the order given."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    found = list(places)
    for before, index in itertools.pairwise(order):
        found[index] = max(found[index], found[before] + apart)
    limit = end
    for index in reversed(order):
        found[index] = min(found[index], limit)
        limit = found[index] - apart
    return found


def text(x: float, y: float, words: str, *, kind: str = "tick", anchor: str = "middle") -> str:
    """A piece of text."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def group(rank: int, title: str, body: str, *, kind: str = "") -> str:
    """What belongs to the trial of a rank: it has the trial's colour, and its name where the mouse is."""
    colour = f"var(--t{rank})" if rank < COLOURED else "var(--other)"
    classes = " ".join(filter(None, ["trial", "" if rank < COLOURED else "other", kind]))
    return f'<g class="{classes}" data-t="{rank}" style="--c:{colour}"><title>{escape(title)}</title>{body}</g>'


def stroke(path: str) -> str:
    """A line, with a wider one that nobody sees but the mouse."""
    return f'<path class="line" d="{path}"/><path class="touch" d="{path}"/>'


def svg(width: float, height: float, label: str, body: str) -> str:
    """The frame; it takes the width that it is given."""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>'
