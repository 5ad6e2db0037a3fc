"""The rules on plain figures: floor, leak, serves, budget, and whether the scores are there at all."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ratchet.evaluation.counts import ImageCounts, class_scores, score, unmeasured
from ratchet.gate.evidence import Cost, Evidence
from ratchet.gate.policy import Budget, Policy
from ratchet.gate.verdict import Check, Context, Rule


def finite(value: float | None) -> float | None:
    """The value, or None for NaN, infinity and nothing."""
    return value if value is not None and math.isfinite(value) else None


def beside(value: float, bound: float, form: str) -> str:
    """The value in this form, or in as many digits more as show on which side of the bound it is."""
    head, kind = form[:-1].split("."), form[-1]
    for digits in range(int(head[1]), 17):
        shown = f"{value:{head[0]}.{digits}{kind}}"
        if _side(float(shown), bound) == _side(value, bound):
            break
    return shown


def _side(value: float, bound: float) -> int:
    return (value > bound) - (value < bound)


def scored(policy: Policy, counts: ImageCounts, *, role: str) -> Check:
    """Every class is in the truth, every output was finite, and the score is a number."""
    reason = unmeasured(policy.metric, counts)
    value = None if reason else finite(score(policy.metric, counts, average=policy.average))
    absent = [name for name, pixels in zip(counts.classes, _truth(counts), strict=True) if pixels == 0]
    bad = [] if counts.nonfinite is None else np.flatnonzero(counts.nonfinite).tolist()
    if not counts.classes:
        reason = "there is no foreground class"
    elif absent:
        reason = (
            f"no gate image holds the class {absent[0]!r} ({len(absent)} such): put images that show it into the gate set "
            "(gate.txt or test.txt, or a larger datamodule.gate_size or test_size), or leave the class out of "
            "datamodule.idx_to_class"
        )
    elif bad:
        reason = f"its output has NaN or infinite values on {len(bad)} images, the first is {counts.names[bad[0]]!r}"
    elif value is None and not reason:
        reason = f"its {policy.metric_title} is not a finite number"
    return Check(
        rule="scored",
        slice=role,
        passed=reason is None,
        observed=value,
        required=f"a finite {policy.metric_title} over every class",
        why=f"the {role} cannot be scored: {reason}" if reason else f"the {role} has {policy.metric_title} {value:.4f}",
    )


def _truth(counts: ImageCounts) -> list[int]:
    return [int(pixels) for pixels in (counts.tp + counts.fn).sum(axis=0)]


def different(context: Context) -> Check:
    """The challenger is another model than the champion."""
    challenger, champion = context.challenger, context.champion
    same = champion is not None and (challenger.version == champion.version or challenger.digest == champion.digest)
    why = f"v{challenger.version} is already in production" if same else f"v{challenger.version} is a new model"
    if same and champion is not None and champion.version != challenger.version:
        why = f"v{challenger.version} has the same files as v{champion.version}, which is in production"
    return Check(rule="different", passed=not same, required="not the model in production", why=why)


def floors(policy: Policy, counts: ImageCounts, *, first: bool) -> Iterator[Check]:
    """The score and each class's score against their least; a first model without a floor has nothing to pass."""
    measured = unmeasured(policy.metric, counts) is None and bool(counts.classes)
    if policy.floor is not None:
        value = score(policy.metric, counts, average=policy.average) if measured else math.nan
        yield _floor(policy.metric_title, "all", value, policy.floor)
    if policy.class_floor is not None:
        for name in counts.classes:
            value = class_scores(policy.metric, counts).get(name, math.nan) if measured else math.nan
            yield _floor(policy.metric_title, f"class: {name}", value, policy.class_floor)
    if first and policy.floor is None and policy.class_floor is None:
        why = "it is the first model and the policy has no floor: there is nothing to judge it by; set floor"
        yield Check(rule="floor", passed=False, required="a floor, as there is no champion", why=why)


def _floor(metric: str, name: str, value: float, least: float) -> Check:
    passed = value >= least  # False for NaN
    where = "" if name == "all" else f" of {name}"
    shown = beside(value, least, ".4f") if math.isfinite(value) else "not a number"
    why = f"{metric}{where} is {shown}, {'at least' if passed else 'but must be at least'} {least:g}"
    return Check(rule="floor", slice=name, passed=passed, observed=finite(value), required=f"≥ {least:g}", why=why)


def leak(names: tuple[str, ...], evidence: Evidence, *, with_champion: bool) -> Iterator[Check]:
    """No gate image was in the data that either model was trained or selected on."""
    found = evidence.leak
    for role in ("challenger", "champion") if with_champion else ("challenger",):
        seen = None if found is None else getattr(found, f"{role}_seen")
        looked_up = 0 if found is None else found.gate_images
        if seen is None:
            passed, why = False, f"what the {role} was trained on is not known: no content hashes were given"
        elif looked_up != len(names):
            passed, why = False, f"only {looked_up} of {len(names)} gate images were looked up"
        elif seen:
            passed, why = False, f"the {role} was trained or selected on {len(seen)} gate images, such as {seen[0]!r}"
        else:
            passed, why = True, f"none of {looked_up} gate images was in the {role}'s training or validation data"
        observed = None if seen is None else float(len(seen))
        yield Check(rule="leak", slice=role, passed=passed, observed=observed, required="0 images", why=why)


def serves(policy: Policy, evidence: Evidence, *, with_champion: bool) -> Iterator[Check]:
    """The exported model loads elsewhere, answers finite numbers of the right shape, agrees with the trained one."""
    rule, probe = policy.serves, evidence.serves
    if rule is None:
        if probe is not None and not (probe.loaded and probe.output_shape == probe.expected_shape):
            told = probe.error or f"its output has shape {probe.output_shape}, expected {probe.expected_shape}"
            why = f"it gave no usable answer when it was tried, so that it was not scored: {told}"
            yield Check(rule="serves", slice="answers", passed=False, required="a usable answer", why=why)
        return

    def check(name: str, passed: bool, why: str, observed: float | None = None) -> Check:
        return Check(rule="serves", slice=name, passed=passed, observed=observed, required=required[name], why=why)

    required = {
        "loads": "loads and answers in a fresh process",
        "finite": "finite output",
        "shape": "the expected output shape",
        "agrees": f"≤ {rule.max_difference:g} from the trained model",
        "signature": "the champion's signature",
    }
    if probe is None or not probe.loaded:
        why = "the exported model was not tried" if probe is None else f"it does not load and answer: {probe.error}"
        yield check("loads", False, why)
        return
    yield check("loads", True, "it loads and answers in a fresh process")
    yield check("finite", probe.finite is True, _said(probe.finite, "its output is finite", "its output is not finite"))
    fits = probe.output_shape is not None and probe.output_shape == probe.expected_shape
    yield check("shape", fits, f"its output has shape {probe.output_shape}, expected {probe.expected_shape}")
    gap = math.nan if probe.max_difference is None else probe.max_difference
    why = f"it differs from the trained model by {beside(gap, rule.max_difference, '.3g')}"
    if not math.isfinite(gap):
        why = "it could not be compared with the trained model: no answer of that came along, or none as finite"
    yield check("agrees", gap <= rule.max_difference, why, finite(gap))
    if rule.same_signature and with_champion:
        known = probe.signature is not None and probe.champion_signature is not None
        same = known and probe.signature == probe.champion_signature
        verb = "is" if same else "is not" if known else "could not be compared with"
        yield check("signature", same, f"its input and output signature {verb} the champion's")


def _said(value: bool | None, yes: str, no: str) -> str:
    return "it was not measured" if value is None else yes if value else no


def budget(policy: Policy, evidence: Evidence, *, with_champion: bool) -> Iterator[Check]:
    """p95 latency, peak memory and size against their bounds; ratios to the champion only where there is one."""
    rule = policy.budget
    if rule is None:
        return
    mine, theirs = _figures(evidence.challenger_cost, rule), _figures(evidence.champion_cost, rule)
    for name, unit in (("latency_p95", "ms"), ("memory", "MB"), ("size", "MB")):
        most = getattr(rule, f"{name}_{unit.lower()}")
        if most is not None:
            yield _within(name, mine[name], most, unit)
        times = getattr(rule, f"{name.removesuffix('_p95')}_ratio")
        if times is not None and with_champion:
            ratio = mine[name] / theirs[name] if theirs[name] > 0 else math.nan
            yield _within(f"{name} ratio", ratio, times, "times the champion's")


def _figures(cost: Cost | None, rule: Budget) -> dict[str, float]:
    """p95 latency, memory and size; NaN: not measured, or not often enough."""
    cost = cost or Cost()
    p95 = cost.p95 if len(cost.latency_ms) >= rule.min_samples else None
    figures = {"latency_p95": p95, "memory": cost.memory_mb, "size": cost.size_mb}
    return {name: math.nan if value is None else value for name, value in figures.items()}


def _within(name: str, value: float, most: float, unit: str) -> Check:
    passed = value <= most  # False for NaN
    shown = (
        f"is {beside(value, most, '.4g')} {unit}" if math.isfinite(value) else "was not measured, or not often enough"
    )
    rule: Rule = "budget"
    why = f"{name} {shown}; the most allowed is {most:g} {unit}"
    return Check(rule=rule, slice=name, passed=passed, observed=finite(value), required=f"≤ {most:g} {unit}", why=why)
