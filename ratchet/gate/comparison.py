"""The rules on differences: superiority, non-inferiority with Holm's correction over slices, and the anchor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.gate.bootstrap import Resampled, effective_units, least_resamples
from ratchet.gate.contrasts import Contrast, Differences
from ratchet.gate.planning import images_needed
from ratchet.gate.policy import Policy
from ratchet.gate.rules import finite
from ratchet.gate.verdict import Check, Interval, Rule

MOST_RESAMPLES = 100_000
TOO_FEW = "rests on too few independent images to judge"


@dataclass(frozen=True)
class Compared:
    """One contrast after resampling."""

    contrast: Contrast
    resampled: Resampled

    @property
    def units(self) -> int:
        """Independent images, or groups of images, that the difference rests on."""
        return min(self.contrast.images, self.resampled.units)


def resamples_for(policy: Policy, slices: Sequence[Contrast], groups: NDArray[np.intp] | None) -> int:
    """How many resamples the policy's slices need: with many of them, the level of the first is below 1 in 10,000.

    What would take more than `MOST_RESAMPLES` is in too few images to be judged at any price.
    """
    rule = policy.non_inferiority
    if rule is None or not slices:
        return policy.resamples
    pairs = [contrast.pair if groups is None else contrast.pair.grouped(groups) for contrast in slices]
    level = (1 - rule.confidence) / len(slices)
    needed = [least_resamples(level, effective_units(pair, policy.metric)) for pair in pairs]
    return max([policy.resamples, *(number for number in needed if number is not None and number <= MOST_RESAMPLES)])


def interval(policy: Policy, compared: Compared, *, line: float, alpha: float, least: int) -> Interval:
    """The figures of one comparison at one-sided level `alpha`, ready for a verdict."""
    resampled, images = compared.resampled, compared.contrast.images
    needed: int | None = None
    if resampled.standard_error is not None and images:
        needed = images_needed(
            images=images,
            estimate=resampled.estimate,
            line=line,
            standard_error=resampled.standard_error,
            alpha=alpha,
            power=policy.power,
        )
    return Interval(
        estimate=finite(resampled.estimate),
        low=finite(resampled.low(alpha)),
        high=finite(resampled.high(alpha)),
        standard_error=resampled.standard_error,
        confidence=round(1 - alpha, 12),
        line=line,
        images=images,
        effective=round(resampled.effective, 6),
        # `least` counts what is independent: with groups of them, so many more images.
        images_needed=None if needed is None else max(needed, math.ceil(least * images / max(compared.units, 1))),
    )


def difference(policy: Policy, compared: Compared, *, rule: Rule, line: float, alpha: float, least: int) -> Check:
    """Passes when the lower end is above the line; undecided while the line is inside the interval; fails below it.

    Fewer than `least` images leave it undecided too. A difference that is not a number fails: more images would not
    mend it.
    """
    shown = interval(policy, compared, line=line, alpha=alpha, least=least)
    few = compared.units < least
    passed = not few and shown.low is not None and shown.low > line
    below = shown.high is not None and shown.high <= line
    return Check(
        rule=rule,
        slice=compared.contrast.name,
        passed=passed,
        undecided=not passed and shown.estimate is not None and (few or not below),
        observed=shown.low,
        required=f"> {line_told(line)} with {100 * shown.confidence:.4g} % confidence",
        why=_why(shown, few=f"{compared.units} of {least}" if few else "", resamples=compared.resampled.resamples),
        interval=shown,
    )


def _why(shown: Interval, *, few: str, resamples: int) -> str:
    if shown.estimate is None:
        return "the difference is not a number: a class has no pixel in the truth or in a prediction"
    measured = f"the difference is {shown.estimate_told}"
    if few:
        return f"{measured}, but it {TOO_FEW} ({few} needed)"
    if shown.low is None or shown.high is None:
        cause = f"{shown.effective:.1f} effective images and {resamples} resamples bound nothing at this confidence"
        return f"{measured}, but a class is in too few images, or few of them carry it ({cause})"
    between = f"{measured}, between {shown.low_told} and {shown.high_told}"
    if shown.low > shown.line:
        return f"{between}: above {line_told(shown.line)}"
    if shown.high <= shown.line:
        return f"{between}: not above {line_told(shown.line)}"
    advice = "a few more images would tell"  # the plan is by the normal distribution, the interval by what is wider
    if shown.images_needed is None:
        advice = "the estimate itself is not"
    elif shown.images_needed > shown.images:
        advice = f"about {shown.images_needed:,} images would tell"
    return f"{between}: too wide to tell whether it is above {line_told(shown.line)}; {advice}"


def line_told(value: float) -> str:
    """A line that a difference is to be above, as people read it."""
    return f"{value:+g}" if value else "zero"


def slice_checks(policy: Policy, parts: Sequence[Compared]) -> list[Check]:
    """Non-inferiority of each slice, by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    The m slices are taken by p-value; the i-th smallest is tested at alpha / (m - i + 1), and after the first that
    fails none passes. So the chance that any slice is wrongly called not inferior is at most alpha, however the
    slices depend on each other.
    """
    rule = policy.non_inferiority
    if rule is None:
        return []
    alpha, line = 1 - rule.confidence, -rule.margin
    p_values = [part.resampled.p_value(line) for part in parts]
    levels: dict[int, float] = {}
    level, stopped = alpha, False
    for step, i in enumerate(sorted(range(len(parts)), key=lambda i: (p_values[i], i))):
        level = level if stopped else alpha / (len(parts) - step)
        stopped = stopped or p_values[i] > level
        levels[i] = level
    return [
        difference(policy, part, rule="non_inferiority", line=line, alpha=levels[i], least=rule.min_images)
        for i, part in enumerate(parts)
    ]


def check_differences(
    policy: Policy, found: Differences, resampled: Sequence[Resampled]
) -> tuple[list[Check], Interval]:
    """The checks of every rule on differences, and the interval over the whole gate set.

    `resampled` belongs to `found.contrasts`, in their order.
    """
    overall, *rest = (Compared(contrast, result) for contrast, result in zip(found.contrasts, resampled, strict=True))
    checks = _overall_checks(policy, overall)
    if policy.anchor is not None:
        checks.append(anchor_check(policy, rest.pop(0) if found.anchor is not None else None))
    checks += slice_checks(policy, rest)
    checks += [no_data("non_inferiority", name, why) for name, why in found.missing.items()]
    line, alpha = main_line(policy)
    return checks, interval(policy, overall, line=line, alpha=alpha, least=policy.min_images)


def no_data(rule: Rule, name: str, reason: str) -> Check:
    """The check of a rule that has nothing to judge by: it fails."""
    return Check(rule=rule, slice=name, passed=False, required="data to judge by", why=f"no data: {reason}")


def _overall_checks(policy: Policy, compared: Compared) -> list[Check]:
    least, checks = policy.min_images, []
    if (better := policy.superiority) is not None:
        line, alpha = better.min_gain, 1 - better.confidence
        checks.append(difference(policy, compared, rule="superiority", line=line, alpha=alpha, least=least))
    if (same := policy.non_inferiority) is not None and same.overall:
        line, alpha = -same.margin, 1 - same.confidence
        checks.append(difference(policy, compared, rule="non_inferiority", line=line, alpha=alpha, least=least))
    return checks


def anchor_check(policy: Policy, compared: Compared | None) -> Check:
    """The rule on the best version that ever was in production; None: it is not known."""
    if compared is None or policy.anchor is None:
        return no_data("anchor", "all", "the best version ever in production was not scored")
    line, alpha = -policy.anchor.margin, 1 - policy.anchor.confidence
    return difference(policy, compared, rule="anchor", line=line, alpha=alpha, least=policy.min_images)


def main_line(policy: Policy) -> tuple[float, float]:
    """The line to beat over the whole gate set, and the level: superiority's, else non-inferiority's, else zero."""
    if policy.superiority is not None:
        return policy.superiority.min_gain, 1 - policy.superiority.confidence
    if policy.non_inferiority is not None:
        return -policy.non_inferiority.margin, 1 - policy.non_inferiority.confidence
    return 0.0, 0.05
