"""The words and figures of a verdict that its page, its Markdown and its tables have in common."""

from __future__ import annotations

from collections.abc import Iterable

from ratchet.errors import PolicyError
from ratchet.gate.comparison import TOO_FEW, line_told
from ratchet.gate.evidence import Cost
from ratchet.gate.load import load_policy
from ratchet.gate.policy import Policy
from ratchet.gate.verdict import Check, Verdict

SIGNS = {"passed": "✓", "undecided": "?", "failed": "✗"}
MARKS = {state: f"{sign} {state}" for state, sign in SIGNS.items()}


def policy_name(policy: Policy) -> str:
    """The policy's name, and whether a rule of it was changed."""
    try:
        changed = load_policy(policy.name) != policy
    except PolicyError:  # one of somebody else's own
        changed = False
    return f"{policy.name}, changed" if changed else policy.name


def parties(verdict: Verdict) -> str:
    """Who was judged against whom: `v3 against v2`."""
    champion = "no champion" if verdict.champion is None else f"v{verdict.champion.version}"
    return f"v{verdict.challenger.version} against {champion}"


def worst_first(checks: Iterable[Check]) -> list[Check]:
    """The failed checks, the undecided ones, the passed ones."""
    return sorted(checks, key=lambda check: ("failed", "undecided", "passed").index(check.state))


def rule(check: Check) -> str:
    """The rule as people write it."""
    return check.rule.replace("_", "-")


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def figures(verdict: Verdict) -> list[tuple[str, str]]:
    """What a reader looks for first: label and figure."""
    metric, champion = verdict.policy.metric_title, verdict.champion
    found = [(f"{metric}, challenger v{verdict.challenger.version}", number(verdict.challenger_score))]
    if champion is not None:
        found.append((f"{metric}, champion v{champion.version}", number(verdict.champion_score)))
    if verdict.interval is not None:
        found.append(("difference", verdict.interval.estimate_told or "none"))
        confidence = f"{100 * verdict.interval.confidence:.4g} %"
        found.append((f"at least, with {confidence} confidence", verdict.interval.low_told or "unknown"))
    if (gain := provable(verdict)) is not None:
        found.append((provable_told(verdict), number(gain, sign=True)))
    found.append(("gate images", f"{verdict.n_images:,}"))
    if (images := deciding(verdict)) is not None:
        found.append(("gate images that would decide", f"about {images:,}"))
    return found


def provable_told(verdict: Verdict) -> str:
    """What `provable` is. A smaller difference may be proven as well, by luck."""
    line = "zero" if verdict.interval is None else line_told(verdict.interval.line)
    return (
        f"true difference that would be proven to be above {line} with {100 * verdict.policy.power:.4g} % probability"
    )


def provable(verdict: Verdict) -> float | None:
    """The smallest true difference that this gate set proves with the policy's power.

    None where its images are too few to prove any, or do not tell, since both models answer alike.
    """
    shown = verdict.interval
    if shown is None or shown.low is None or not shown.standard_error or shown.images < verdict.policy.min_images:
        return None
    overall = (check for check in verdict.checks if check.interval is not None and check.slice == "all")
    return None if any(TOO_FEW in check.why for check in overall) else verdict.smallest_detectable


def deciding(verdict: Verdict) -> int | None:
    """The gate images that would decide; None where that is not known, as of a check that has so many and is undecided."""
    undecided = (check.interval for check in verdict.checks if check.undecided and check.interval is not None)
    known = all(shown.images_needed is not None and shown.images_needed > shown.images for shown in undecided)
    return verdict.images_needed if known else None


def number(value: float | None, *, sign: bool = False) -> str:
    """A score or a difference with four digits."""
    return "none" if value is None else f"{value:{'+' if sign else ''}.4f}"


def cost_figures(cost: Cost | None) -> list[tuple[str, str, float | None]]:
    """What a model costs to run: label, unit and figure; None: not measured."""
    cost = cost or Cost()
    samples = sorted(cost.latency_ms)
    median = samples[len(samples) // 2] if samples else None
    return [
        ("median latency", "ms", median),
        ("p95 latency", "ms", cost.p95),
        ("peak memory", "MB", cost.memory_mb),
        ("size on disk", "MB", cost.size_mb),
    ]


def facts(verdict: Verdict) -> list[tuple[str, str]]:
    """What the verdict was made from, by content."""
    context, policy = verdict.context, verdict.policy
    refs = {"challenger": context.challenger, "champion": context.champion, "anchor": context.anchor}
    found = [(role, f"v{ref.version} {ref.digest}") for role, ref in refs.items() if ref is not None]
    found += [("gate set", context.gate_set), ("training data", context.data or "not recorded")]
    found += [("code", context.code or "not recorded"), ("verdict", verdict.digest)]
    found += [(f"counts of {role}", digest) for role, digest in verdict.counts.items()]
    found += [("measured", note) for note in verdict.evidence.notes]
    found += [("policy", f"{policy.name}: {policy.model_dump_json()}")]
    return [*found, ("computed with", ", ".join(f"{name} {used}" for name, used in context.versions.items()))]
