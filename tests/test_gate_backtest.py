"""A backtest: each version against the champion that the policy itself would have had."""

import numpy as np
import pytest

from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import ModelRef, PastVersion, Policy, Verdict, backtest

TRUTH = np.random.default_rng(0).integers(500, 2_000, (100, 2))


def past(number: int, quality: float) -> PastVersion:
    share = np.clip(np.random.default_rng(number).normal(quality, 0.05, TRUTH.shape), 0, 1)
    tp = (TRUTH * share).astype(np.int64)
    counts = ImageCounts(tuple(map(str, range(100))), ("cat", "dog"), tp, tp * 0, TRUTH - tp)
    return PastVersion(ModelRef(version=number, digest=f"d{number}"), counts)


HISTORY = [past(1, 0.6), past(2, 0.65), past(3, 0.62), past(4, 0.7)]


def run(policy: dict[str, object]) -> tuple[Verdict, ...]:
    values = {"floor": 0.3, "resamples": 1_000} | policy
    return backtest(Policy.model_validate(values), HISTORY, model="m", gate_set="g")


def champions(verdicts: tuple[Verdict, ...]) -> list[int | None]:
    return [verdict.champion.version if verdict.champion else None for verdict in verdicts]


def test_the_champion_is_the_last_version_that_the_policy_promoted() -> None:
    verdicts = run({})
    assert [verdict.outcome for verdict in verdicts] == ["promote", "promote", "reject", "promote"]
    assert champions(verdicts) == [None, 1, 2, 2]


def test_another_policy_has_another_past() -> None:
    assert champions(run({"floor": 0.64})) == [None, None, 2, 2]
    assert champions(run({"superiority": {"min_gain": 0.08}})) == [None, 1, 1, 1]


@pytest.mark.parametrize(("margin", "outcome"), [(0.02, "reject"), (0.2, "promote")])
def test_the_anchor_is_the_best_champion_so_far(margin: float, outcome: str) -> None:
    loose = {"superiority": None, "non_inferiority": {"margin": 0.2, "classes": False, "overall": True}}
    verdict = run(loose | {"anchor": {"margin": margin}})[2]
    assert verdict.outcome == outcome
    assert verdict.context.anchor == ModelRef(version=2, digest="d2")


def test_every_version_is_one_more_use_of_the_gate_set() -> None:
    assert [verdict.context.earlier_uses for verdict in run({})] == [0, 1, 2, 3]
