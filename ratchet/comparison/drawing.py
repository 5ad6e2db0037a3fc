"""What the page's charts share: scales with round ticks, numbers as text, and labels that do not lie on each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median_low

from ratchet.page_parts import round_ticks

COLOURED = 6
"""The best trials have colours of their own; the others are grey, so that a sweep of many can be read too."""

_TICKS = 7
_MOST_POWERS = 10
_FAR = 30  # times the median: from there on, a value presses the others together
_BEGINNING, _LONGEST = 10, 34  # characters
_LETTER = 8  # pixels, in the widest of the fonts that a browser may take
_SMALLEST = 0.85  # of a chart's size: its text has 12 pixels, and is not read below 10


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
            some = whole[:: math.ceil(len(whole) / _MOST_POWERS) or 1]
            return some if len(whole) > 2 else inside or [self.low, self.high]  # noqa: PLR2004
        return round_ticks(self.low, self.high, _TICKS)

    def labels(self) -> list[tuple[float, str]]:
        """Where each tick is, and its number: in four digits, or in as many as tell the ticks apart."""
        ticks = self.ticks()
        digits = next(n for n in range(4, 18) if len({f"{tick:.{n}g}" for tick in ticks}) == len(set(ticks)))
        return [(self(tick), f"{tick:.{digits}g}") for tick in ticks]


def padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """The ends of an axis: a little beyond the values; around a single one."""
    low, high = min(values), max(values)
    margin = share * (high - low) or abs(low) * share or share
    return low - margin, high + margin


def fitted(values: Sequence[float], start: float, end: float) -> Scale:
    """An axis for a metric: logarithmic where one value far above the others would make them one line."""
    if min(values) > 0 and max(values) > _FAR * median_low(values):
        return Scale(min(values), max(values), start, end, log=True)
    return Scale(*padded(values), start, end)


def shown(value: float) -> str:
    """A number in at most four digits."""
    return f"{value:.4g}"


def short(text: str) -> str:
    """A name that fits beside a chart; of a longer one its beginning and its end, where trials differ."""
    return text if len(text) <= _LONGEST else f"{text[:_BEGINNING]}…{text[_BEGINNING + 1 - _LONGEST :]}"


def room(labels: Iterable[str]) -> float:
    """The pixels that the longest of some labels may take."""
    return _LETTER * max(map(len, labels), default=0)


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


def pointer(x: float, y: float, height: float, words: str) -> str:
    """Words beside the end of a line, which is at (x, y); they may be moved to another height."""
    lead = f'<path class="lead" d="M{x + 6:.1f} {y:.1f}L{x + 14:.1f} {height:.1f}"/>'
    return lead + text(x + 17, height + 4, words, kind="name halo", anchor="start")


def stroke(path: str) -> str:
    """A line, with a wider one that nobody sees but the mouse."""
    return f'<path class="line" d="{path}"/><path class="touch" d="{path}"/>'


def svg(width: float, height: float, label: str, body: str) -> str:
    """The frame; it takes the width that it is given, and is scrolled where its text would be too small to be read."""
    least = f'style="--least: {_SMALLEST * width:.0f}px"'
    frame = f'<svg {least} viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return f"<div class=scroll>{frame}{body}</svg></div>"
