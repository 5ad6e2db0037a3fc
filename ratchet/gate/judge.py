"""The gate itself: a policy, two models' counts on the same images and the evidence in, a verdict out.

How a verdict comes about:

- `promote` when every check passes.
- `inconclusive` when the only checks that fail are comparisons whose interval still holds the line to beat (or rest on
  too few images): more images could decide. The verdict says how many, as far as the estimate can tell.
- `reject` when any other check fails: a floor, a comparison whose interval lies wholly at or under the line, a leak, a
  model that does not serve, a bound that is broken, a rule without its data, a score that is not a number.

What cannot be judged at all raises, and so promotes nothing: no images (EmptyGateSetError), counts of other images,
classes, masks or metric version (CountsMismatchError), counts that are none (InvalidCountsError).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import CountsMismatchError, EmptyGateSetError, PolicyError
from ratchet.evaluation.counts import METRIC_VERSION, ImageCounts, class_scores, score, unmeasured
from ratchet.gate import contrasts, rules
from ratchet.gate.bootstrap import Resampled, resample
from ratchet.gate.comparison import Compared, anchor_check, check_differences, main_line, no_data, resamples_for
from ratchet.gate.digests import Metadata, counts_digest, metadata_digest
from ratchet.gate.evidence import Evidence
from ratchet.gate.planning import reuse_note, smallest_detectable
from ratchet.gate.policy import Policy
from ratchet.gate.verdict import Check, ClassScore, Context, Decision, Interval, Rule, Verdict


@dataclass(frozen=True)
class _Case:
    """All that one judgement is made from."""

    policy: Policy
    challenger: ImageCounts
    champion: ImageCounts | None
    anchor: ImageCounts | None
    context: Context
    metadata: Metadata
    evidence: Evidence

    @property
    def compares(self) -> bool:
        """Whether there is another model that the policy asks about: the champion, or the anchor while production is empty."""
        return self.champion is not None or (self.anchor is not None and self.policy.anchor is not None)

    @property
    def roles(self) -> dict[str, ImageCounts]:
        """The counts that there are, by the model's role."""
        all_roles = {"challenger": self.challenger, "champion": self.champion, "anchor": self.anchor}
        return {role: counts for role, counts in all_roles.items() if counts is not None}


def judge(
    *,
    policy: Policy,
    challenger: ImageCounts,
    champion: ImageCounts | None = None,
    context: Context,
    anchor: ImageCounts | None = None,
    metadata: Metadata | None = None,
    evidence: Evidence | None = None,
) -> Verdict:
    """Judge the challenger by the policy; the same inputs give the same verdict, to the last bit, on any machine.

    `champion` is None for a first model only; `anchor` are the counts of the best version ever in production, which may
    be the champion's own; `metadata` maps column → image name → value.

    Raises EmptyGateSetError, CountsMismatchError, InvalidCountsError; PolicyError when the context and the counts
    disagree on which models there are.
    """
    needed = contrasts.needed_metadata(policy, challenger.names, metadata or {})
    case = _Case(policy, challenger, champion, anchor, context, needed, evidence or Evidence())
    _refuse_what_cannot_be_judged(case)
    with_champion = champion is not None
    checks = [rules.different(context)] if with_champion else []
    # What does not serve is scored as finding nothing, so its checks come first: they are the reason.
    checks += rules.serves(policy, case.evidence, with_champion=with_champion)
    checks += [rules.scored(policy, counts, role=role) for role, counts in case.roles.items()]
    checks += rules.floors(policy, challenger, first=not case.compares)
    overall: Interval | None = None
    comparable = all(c.passed for c in checks if c.rule == "scored")
    if champion is not None:
        compared, overall = _compare(case, champion, comparable=comparable)
        checks += compared
    elif anchor is not None and case.compares:
        checks.append(_compare_with_anchor(case, anchor, comparable=comparable))
    if policy.leak:
        checks += rules.leak(challenger.names, case.evidence, with_champion=with_champion)
    checks += rules.budget(policy, case.evidence, with_champion=with_champion)
    return _verdict(case, tuple(checks), overall)


def _refuse_what_cannot_be_judged(case: _Case) -> None:
    if not case.challenger.names:
        raise EmptyGateSetError("The gate set has no images: give it some that nothing was trained or selected on.")
    if (case.champion is None) != (case.context.champion is None):
        raise PolicyError("The context and the counts disagree on whether there is a champion: give both, or neither.")
    for role, counts in case.roles.items():
        if counts.metric_version != METRIC_VERSION:
            raise CountsMismatchError(
                f"The {role} was counted by metric version {counts.metric_version}, this is version {METRIC_VERSION}: "
                "score it again."
            )
        contrasts.check_comparable(case.challenger, counts, role=role)


def _compare(case: _Case, champion: ImageCounts, *, comparable: bool) -> tuple[list[Check], Interval | None]:
    """The rules on differences, all over the same resamples, and the interval over the whole gate set."""
    policy = case.policy
    groups, reason = contrasts.find_groups(policy, case.challenger.names, case.metadata)
    reason = reason if comparable else "a model has no score to compare"
    if reason:
        return [no_data(rule, "all", reason) for rule in _comparing(policy)], None
    found = contrasts.find_differences(policy, case.challenger, champion, anchor=case.anchor, metadata=case.metadata)
    return check_differences(policy, found, _resample(policy, found.contrasts, groups, slices=found.slices))


def _compare_with_anchor(case: _Case, anchor: ImageCounts, *, comparable: bool) -> Check:
    """The rule on the best version that ever was in production, while nothing is there."""
    groups, reason = contrasts.find_groups(case.policy, case.challenger.names, case.metadata)
    reason = reason if comparable else "a model has no score to compare"
    if reason:
        return no_data("anchor", "all", reason)
    contrast = contrasts.overall(case.policy, case.challenger, anchor)
    (resampled,) = _resample(case.policy, [contrast], groups)
    return anchor_check(case.policy, Compared(contrast, resampled))


def _resample(
    policy: Policy,
    compared: Sequence[contrasts.Contrast],
    groups: NDArray[np.intp] | None,
    *,
    slices: Sequence[contrasts.Contrast] = (),
) -> tuple[Resampled, ...]:
    return resample(
        [contrast.pair for contrast in compared],
        metric=policy.metric,
        resamples=resamples_for(policy, slices, groups),
        seed=policy.seed,
        groups=groups,
    )


def _comparing(policy: Policy) -> list[Rule]:
    rules_on_differences: tuple[Rule, ...] = ("superiority", "non_inferiority", "anchor")
    return [rule for rule in rules_on_differences if getattr(policy, rule) is not None]


def _verdict(case: _Case, checks: tuple[Check, ...], overall: Interval | None) -> Verdict:
    policy, outcome = case.policy, _outcome(checks)
    images = len(case.challenger.names)
    detectable = None
    if overall is not None and overall.standard_error is not None:
        alpha = 1 - overall.confidence
        detectable = smallest_detectable(
            line=overall.line, standard_error=overall.standard_error, alpha=alpha, power=policy.power
        )
    digests = {role: counts_digest(counts) for role, counts in case.roles.items()}
    return Verdict(
        outcome=outcome,
        context=case.context,
        policy=policy,
        checks=checks,
        challenger_score=_score(policy, case.challenger),
        champion_score=None if case.champion is None else _score(policy, case.champion),
        class_scores=tuple(_class_scores(case)),
        interval=overall,
        smallest_detectable=detectable,
        images_needed=_images_needed(checks, images) if outcome == "inconclusive" else None,
        n_images=images,
        metric_version=METRIC_VERSION,
        counts=digests | ({"metadata": metadata_digest(case.metadata)} if case.metadata else {}),
        evidence=case.evidence,
        notes=tuple(_notes(case)),
    )


def _outcome(checks: Sequence[Check]) -> Decision:
    failed = [check for check in checks if not check.passed]
    if not failed:
        return "promote"
    return "inconclusive" if all(check.undecided for check in failed) else "reject"


def _images_needed(checks: Sequence[Check], images: int) -> int | None:
    """Gate images that would settle every undecided check, slices growing with the whole; None if no number would."""
    total = 0
    for shown in (check.interval for check in checks if check.undecided):
        if shown is None or shown.images_needed is None:
            return None
        total = max(total, math.ceil(images * shown.images_needed / shown.images))
    return total


def _class_scores(case: _Case) -> Iterator[ClassScore]:
    metric = case.policy.metric
    mine, theirs = (
        {} if counts is None or unmeasured(metric, counts) else class_scores(metric, counts)
        for counts in (case.challenger, case.champion)
    )
    for name, value in mine.items():
        yield ClassScore(name=name, challenger=rules.finite(value), champion=rules.finite(theirs.get(name)))


def _score(policy: Policy, counts: ImageCounts) -> float | None:
    return (
        None
        if unmeasured(policy.metric, counts)
        else rules.finite(score(policy.metric, counts, average=policy.average))
    )


def _notes(case: _Case) -> list[str]:
    policy, notes = case.policy, []
    if case.champion is None and case.context.anchor is not None and case.compares:
        notes.append(
            f"production is empty: v{case.context.anchor.version}, the best version that ever was in it, is compared with"
        )
    elif case.champion is None:
        skipped = _comparing(policy)
        what = f": {', '.join(skipped)} had nothing to compare with" if skipped else ""
        notes.append(f"first model: there is no champion{what}; floor, leak, serves and budget decide, as far as asked")
    elif _comparing(policy):
        line, alpha = main_line(policy)
        if policy.superiority is None and policy.non_inferiority is None and policy.anchor is not None:
            line, alpha = -policy.anchor.margin, 1 - policy.anchor.confidence
        note = reuse_note(alpha=alpha, uses=case.context.earlier_uses + 1, risk=policy.reuse_risk, line=line)
        notes += [note] if note else []
    return [*notes, *case.evidence.notes]
