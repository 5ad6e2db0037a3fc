"""What a policy would have decided over a model's past versions, all scored on today's gate set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.evaluation.counts import ImageCounts, score
from ratchet.gate.digests import Metadata
from ratchet.gate.evidence import Evidence
from ratchet.gate.judge import judge
from ratchet.gate.policy import Policy
from ratchet.gate.verdict import Context, ModelRef, Verdict


@dataclass(frozen=True)
class PastVersion:
    """A version, its counts on today's gate set, and whatever evidence about it is still at hand."""

    ref: ModelRef
    counts: ImageCounts
    evidence: Evidence | None = None


def backtest(
    policy: Policy,
    history: Sequence[PastVersion],
    *,
    model: str,
    gate_set: str,
    metadata: Metadata | None = None,
) -> tuple[Verdict, ...]:
    """Judge each version, oldest first, against the champion that this policy would have had by then.

    The anchor is the best-scoring champion so far. Versions may have been trained or selected on images that are in
    today's gate set: without the leak rule and its evidence, old scores may flatter. Raises what `judge` raises.
    """
    champion: PastVersion | None = None
    anchor: PastVersion | None = None
    verdicts: list[Verdict] = []
    for one in history:
        context = Context(
            model=model,
            challenger=one.ref,
            champion=champion.ref if champion else None,
            anchor=anchor.ref if anchor else None,
            gate_set=gate_set,
            earlier_uses=len(verdicts),
        )
        verdict = judge(
            policy=policy,
            challenger=one.counts,
            champion=champion.counts if champion else None,
            anchor=anchor.counts if anchor else None,
            context=context,
            metadata=metadata,
            evidence=one.evidence,
        )
        verdicts.append(verdict)
        if verdict.passed:
            champion = one
            anchor = one if anchor is None or _score(policy, one) > _score(policy, anchor) else anchor
    return tuple(verdicts)


def _score(policy: Policy, version: PastVersion) -> float:
    return score(policy.metric, version.counts, average=policy.average)
