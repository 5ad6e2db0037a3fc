"""What another policy would have decided on past judgements: their recorded counts are judged again, no model is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet.errors import GateError
from ratchet.evaluation.counts import ImageCounts, score, unmeasured
from ratchet.gate.contrasts import missing_values
from ratchet.gate.evidence import Evidence
from ratchet.gate.policy import Policy
from ratchet.gate.record import Record, judge_again
from ratchet.gate.verdict import ModelRef, Verdict


@dataclass(frozen=True)
class Ruling:
    """What the policy says of one record: its verdict, or why the record cannot tell."""

    champion: ModelRef | None
    verdict: Verdict | None
    unknown: str = ""

    @property
    def outcome(self) -> str:
        """promote, reject, inconclusive or unknown."""
        return "unknown" if self.verdict is None else self.verdict.outcome

    @property
    def why(self) -> str:
        """The reason, in a sentence."""
        return self.unknown if self.verdict is None else self.verdict.reason


@dataclass(frozen=True)
class Row:
    """One version: what was decided then, what the policy says against the same champion, and against its own."""

    then: Verdict
    same: Ruling
    own: Ruling


def backtest(policy: Policy, records: Sequence[Record]) -> tuple[Row, ...]:
    """Judge past records by a policy, oldest first.

    Its own champion is, at first, the one of the first record, then the last version that it would have promoted; its
    anchor is the best of those on the same images. A version can be judged against another champion than it was if
    some record holds that one's counts on the same gate set.
    """
    scored = _scored(records, policy.metric)
    champion = records[0].verdict.champion if records else None
    reigned = [] if champion is None else [champion]
    rows = []
    for record in records:
        same = _ask(policy, record)
        own = same
        if champion != record.verdict.champion or policy.anchor is not None:
            own = _ask_against(policy, record, champion, reigned, scored)
        if own.outcome == "promote":
            champion = record.verdict.challenger
            reigned.append(champion)
        rows.append(Row(record.verdict, same, own))
    return tuple(rows)


_Scored = Mapping[tuple[str, str], tuple[ImageCounts, Evidence | None]]
"""By a model's files and the gate set: its counts, and the evidence on it if it was the challenger."""


def _scored(records: Sequence[Record], metric: str) -> _Scored:
    """The counts that the metric can be read from."""
    found: dict[tuple[str, str], tuple[ImageCounts, Evidence | None]] = {}
    for record in records:
        context = record.verdict.context
        refs = {"champion": context.champion, "anchor": context.anchor, "challenger": context.challenger}
        for role, ref in refs.items():
            if ref is not None and role in record.counts and not unmeasured(metric, record.counts[role]):
                key, evidence = (ref.digest, context.gate_set), record.verdict.evidence
                if role == "challenger" or key not in found:
                    found[key] = record.counts[role], evidence if role == "challenger" else None
    return found


def _ask(policy: Policy, record: Record) -> Ruling:
    champion = record.verdict.champion
    try:
        verdict = judge_again(record, policy)
    except GateError as error:
        return Ruling(champion, None, str(error))
    gaps = dict(_gaps(policy, record))
    checks = tuple(
        check for check in verdict.checks if not {check.rule, check.slice, f"{check.rule} {check.slice}"} & gaps.keys()
    )
    if gaps and ("scored" in gaps or all(check.passed or check.undecided for check in checks)):
        return Ruling(champion, None, f"not recorded then: {'; '.join(dict.fromkeys(gaps.values()))}")
    return Ruling(champion, verdict.model_copy(update={"checks": checks}))


def _ask_against(
    policy: Policy, record: Record, champion: ModelRef | None, reigned: Sequence[ModelRef], scored: _Scored
) -> Ruling:
    """The same challenger against another champion, whose counts come from another record."""
    verdict = record.verdict
    gate_set = verdict.gate_set
    if champion is not None and (champion.digest, gate_set) not in scored:
        return Ruling(champion, None, f"v{champion.version} was not scored on these gate images")
    here = [ref for ref in reigned if (ref.digest, gate_set) in scored]
    counts = {role: table for role, table in record.counts.items() if role == "challenger"}
    evidence, anchor = verdict.evidence, None
    if champion is not None:
        counts["champion"], known = scored[champion.digest, gate_set]
        evidence = evidence if champion == verdict.champion else _with_champion(evidence, known)
    if here and policy.anchor is not None and not unmeasured(policy.metric, counts["challenger"]):
        anchor = max(
            here, key=lambda ref: score(policy.metric, scored[ref.digest, gate_set][0], average=policy.average)
        )
        counts["anchor"] = scored[anchor.digest, gate_set][0]
    context = verdict.context.model_copy(update={"champion": champion, "anchor": anchor})
    other = verdict.model_copy(update={"context": context, "evidence": evidence})
    return _ask(policy, replace(record, verdict=other, counts=counts))


def _with_champion(evidence: Evidence, known: Evidence | None) -> Evidence:
    """The evidence with what is known of another champion from the record in which it was the challenger.

    Its cost was measured in another run than the challenger's, so no ratio can be taken: it counts as not measured.
    """
    leak, serves = evidence.leak, evidence.serves
    if leak is not None:
        seen = None if known is None or known.leak is None else known.leak.challenger_seen
        leak = leak.model_copy(update={"champion_seen": seen})
    if serves is not None:
        signature = None if known is None or known.serves is None else known.serves.signature
        serves = serves.model_copy(update={"champion_signature": signature})
    return evidence.model_copy(update={"leak": leak, "serves": serves, "champion_cost": None})


def _gaps(policy: Policy, record: Record) -> Iterator[tuple[str, str]]:
    """What the policy asks and the record cannot answer: by the rule, the slice, or both, what was not recorded."""
    verdict, names = record.verdict, record.counts["challenger"].names
    evidence, against = verdict.evidence, verdict.champion is not None
    leak, serves = evidence.leak, evidence.serves
    if any(unmeasured(policy.metric, counts) for counts in record.counts.values()):
        yield "scored", policy.metric_title
    columns = policy.non_inferiority.columns if policy.non_inferiority else ()
    for column in {*columns, policy.group_by} - {None}:
        if against and missing_values(str(column), names, record.metadata):
            yield ("scored" if column == policy.group_by else str(column)), f"the metadata column {column!r}"
    if policy.anchor is not None and against and "anchor" not in record.counts:
        yield "anchor", "the scores of the anchor"
    for role in ("challenger", "champion") if policy.leak and against else ("challenger",) if policy.leak else ():
        if leak is None or getattr(leak, f"{role}_seen") is None:
            yield f"leak {role}", "what the models were trained on"
    if policy.serves is not None:
        if serves is None:
            yield "serves", "a trial of the export"
        elif against and policy.serves.same_signature and serves.champion_signature is None:
            yield "serves signature", "what the champion takes and gives"
    asked = policy.budget.model_dump(exclude_none=True) if policy.budget is not None else {}
    ratio = against and any(bound.endswith("_ratio") for bound in asked)
    sampled = [evidence.challenger_cost, *([evidence.champion_cost] if ratio else [])]
    timed = any(bound.startswith("latency") for bound in asked)
    if asked and any(cost is None or (timed and 0 < len(cost.latency_ms) < asked["min_samples"]) for cost in sampled):
        yield "budget", "the models' cost, measured together"
