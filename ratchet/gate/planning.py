"""What a gate set can show: the smallest detectable difference, the images needed, and how worn it is."""

from __future__ import annotations

import math
from statistics import NormalDist

_DIGITS = 6  # planning figures are rounded, so that a machine's last bit of log() does not show


def smallest_detectable(*, line: float, standard_error: float, alpha: float, power: float) -> float:
    """The true difference that is proven to be above `line` with probability `power`.

    line + (z(1 - alpha) + z(power)) · SE: the normal approximation of a one-sided test (Chow, Shao & Wang, Sample Size
    Calculations in Clinical Research, 2008, section 3.2).
    """
    return round(line + _reach(alpha, power) * standard_error, _DIGITS)


def images_needed(
    *, images: int, estimate: float, line: float, standard_error: float, alpha: float, power: float
) -> int | None:
    """How many images like these would prove the estimate with probability `power`; None if it is not above the line.

    Rounded up to two digits, as no more of it can be known:
    n · ((z(1 - alpha) + z(power)) · SE / (estimate - line))², as SE shrinks with √n.
    """
    distance = estimate - line
    if not distance > 0:
        return None
    needed = math.ceil(round(images * (_reach(alpha, power) * standard_error / distance) ** 2, _DIGITS))
    unit: int = 10 ** max(0, len(str(needed)) - 2)
    return -(-needed // unit) * unit


def _reach(alpha: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)


def risk_of_luck(*, alpha: float, uses: int) -> float:
    """The most that the chance of one among `uses` challengers, none above the line, getting through can be: 1 - (1 - alpha)ᵏ.

    Šidák (JASA 62, 1967); by Bonferroni it is under k · alpha however the tries depend on each other.
    """
    return float(round(1 - (1 - alpha) ** uses, _DIGITS))


def reuse_note(*, alpha: float, uses: int, risk: float, line: float = 0.0) -> str | None:
    """The warning when a gate set was used so often that luck may have promoted one with a chance above `risk`.

    `alpha` bounds the chance for a challenger whose true difference is not above `line`: no other is spoken of.

    Every challenger judged on the same images is one more draw in the same lottery, and tuning by the verdicts fits
    the model to these images (Dwork et al., Science 349, 2015; Blum & Hardt, ICML 2015).
    """
    chance = risk_of_luck(alpha=alpha, uses=uses)
    if not chance > risk:
        return None
    what = "no better" if line == 0 else f"not better by {line:g}" if line > 0 else f"worse by {-line:g} or more"
    return (
        f"this gate set has now judged {uses} challengers: the chance that luck promoted at least one that was {what} "
        f"may be as high as {chance:.0%} (1 - {1 - alpha:.4g}^{uses}). Collect a new gate set"
    )
