"""The verdict on two models' counts: promote, reject, inconclusive, and what is never judged at all."""

import re

import numpy as np
import pytest
from conformance_cases import given, model

from ratchet.errors import CountsMismatchError, EmptyGateSetError, InvalidCountsError, PolicyError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Context, ModelRef, Policy, Superiority, Verdict, judge, load_policy
from ratchet.gate.rules import beside
from ratchet.gate.verdict import Interval

TRUTH = 7_000


def counts(images: int, quality: float, seed: int, classes: tuple[str, ...] = ("cat", "dog")) -> ImageCounts:
    """A model of this mean IoU; images are as hard for one as for another."""
    shape = (images, len(classes))
    hard, own = (np.random.default_rng(s).normal(size=shape) for s in (0, seed))
    iou = np.clip(quality + 0.15 * (np.sqrt(0.85) * hard + np.sqrt(0.15) * own), 0.01, 0.99)
    tp = np.minimum((iou * 9_000).astype(np.int64), TRUTH)
    fp = np.maximum((tp / iou).astype(np.int64) - TRUTH, 0)
    return ImageCounts(tuple(f"{i:04}.png" for i in range(images)), classes, tp, fp, TRUTH - tp)


def context(*, first: bool = False, **changes: object) -> Context:
    champion = None if first else ModelRef(version=1, digest="a")
    values = {"model": "pets", "challenger": ModelRef(version=2, digest="b"), "champion": champion, "gate_set": "g"}
    return Context.model_validate(values | changes)


def verdict_of(challenger: ImageCounts, champion: ImageCounts | None, policy: Policy | None = None) -> Verdict:
    policy = policy or Policy(floor=0.3, resamples=2_000)
    return judge(policy=policy, challenger=challenger, champion=champion, context=context(first=champion is None))


def test_a_proven_gain_is_promoted() -> None:
    verdict = verdict_of(counts(200, 0.75, 1), counts(200, 0.70, 2))
    assert verdict.passed
    assert verdict.outcome == "promote"
    assert verdict.interval is not None
    assert verdict.interval.low is not None
    assert 0 < verdict.interval.low < 0.05
    assert "v1 has" in verdict.sentence


def test_a_proven_loss_is_rejected() -> None:
    verdict = verdict_of(counts(200, 0.65, 1), counts(200, 0.70, 2))
    assert verdict.outcome == "reject"
    assert not verdict.passed


def test_a_gain_that_luck_could_explain_is_inconclusive_and_says_how_many_images_would_tell() -> None:
    verdict = verdict_of(counts(40, 0.712, 1), counts(40, 0.70, 2))
    assert verdict.outcome == "inconclusive"
    assert verdict.images_needed is not None
    assert verdict.images_needed > 40
    assert verdict.smallest_detectable is not None
    assert verdict.smallest_detectable > 0.012


def test_a_tie_is_rejected() -> None:
    same = counts(100, 0.7, 1)
    verdict = verdict_of(same, same)
    assert verdict.outcome == "reject"
    assert verdict.interval is not None
    assert verdict.interval.estimate == 0


def test_a_score_under_the_floor_is_rejected_though_it_is_better() -> None:
    verdict = verdict_of(counts(200, 0.5, 1), counts(200, 0.4, 2), Policy(floor=0.8, resamples=1_000))
    assert verdict.outcome == "reject"
    assert [check.rule for check in verdict.checks if not check.passed] == ["floor"]


def test_a_first_model_is_judged_by_the_floor_and_the_verdict_says_so() -> None:
    verdict = verdict_of(counts(30, 0.7, 1), None)
    assert verdict.passed
    assert "first model" in verdict.notes[0]
    assert "first model" in verdict.sentence


def test_a_first_model_under_a_policy_without_a_floor_is_rejected() -> None:
    verdict = verdict_of(counts(30, 0.7, 1), None, Policy(floor=None))
    assert verdict.outcome == "reject"
    assert "no floor" in verdict.sentence


def test_a_gain_below_min_gain_is_not_promoted() -> None:
    policy = Policy(floor=0.1, superiority=Superiority(min_gain=0.2), resamples=1_000)
    assert verdict_of(counts(200, 0.75, 1), counts(200, 0.7, 2), policy).outcome == "reject"


def test_the_champion_itself_is_rejected_as_already_in_production() -> None:
    same = counts(50, 0.7, 1)
    ref = ModelRef(version=2, digest="b")
    verdict = judge(policy=Policy(), challenger=same, champion=same, context=context(champion=ref))
    assert verdict.outcome == "reject"
    assert "already in production" in verdict.sentence


def test_a_copy_of_the_champion_under_a_new_version_is_rejected_as_the_same_files() -> None:
    copy = ModelRef(version=1, digest="b")
    better = counts(200, 0.9, 1)
    verdict = judge(policy=Policy(), challenger=better, champion=counts(200, 0.7, 2), context=context(champion=copy))
    assert verdict.outcome == "reject"
    assert "same files as v1" in verdict.sentence


def test_a_class_that_no_gate_image_holds_is_rejected_and_named_with_what_to_do() -> None:
    good = counts(100, 0.8, 1)
    tp, fn = good.tp.copy(), good.fn.copy()
    tp[:, 1] = fn[:, 1] = 0
    verdict = verdict_of(ImageCounts(good.names, good.classes, tp, good.fp, fn), None)
    assert verdict.outcome == "reject"
    assert "'dog'" in verdict.sentence
    for remedy in ("gate.txt", "datamodule.gate_size", "datamodule.idx_to_class"):
        assert remedy in verdict.sentence


def test_an_output_that_is_not_finite_is_rejected_whatever_the_score() -> None:
    good = counts(100, 0.8, 1)
    bad = np.zeros(100, dtype=np.int64)
    bad[7] = 3
    broken = ImageCounts(good.names, good.classes, good.tp, good.fp, good.fn, nonfinite=bad)
    verdict = verdict_of(broken, counts(100, 0.6, 2))
    assert verdict.outcome == "reject"
    assert "0007.png" in verdict.sentence


def test_too_few_images_are_inconclusive_however_large_the_gain() -> None:
    verdict = verdict_of(counts(8, 0.9, 1), counts(8, 0.5, 2))
    assert verdict.outcome == "inconclusive"
    assert "8 of 20" in verdict.sentence


def test_an_empty_gate_set_raises() -> None:
    with pytest.raises(EmptyGateSetError):
        verdict_of(counts(0, 0.7, 1), counts(0, 0.7, 2))


def test_other_images_raise_and_name_one() -> None:
    champion = counts(50, 0.7, 2)
    moved = ImageCounts((*champion.names[:-1], "new.png"), champion.classes, champion.tp, champion.fp, champion.fn)
    with pytest.raises(CountsMismatchError, match=r"0049\.png"):
        verdict_of(counts(50, 0.7, 1), moved)


def test_relabelled_classes_raise() -> None:
    with pytest.raises(CountsMismatchError, match="classes differ"):
        verdict_of(counts(50, 0.7, 1), counts(50, 0.7, 2, classes=("dog", "cat")))


def test_other_masks_raise_and_name_the_image() -> None:
    champion = counts(50, 0.7, 2)
    fn = champion.fn.copy()
    fn[3, 0] += 1
    with pytest.raises(CountsMismatchError, match=r"0003\.png"):
        verdict_of(counts(50, 0.7, 1), ImageCounts(champion.names, champion.classes, champion.tp, champion.fp, fn))


def test_counts_of_another_metric_version_raise() -> None:
    old = counts(50, 0.7, 2)
    old = ImageCounts(old.names, old.classes, old.tp, old.fp, old.fn, metric_version=0)
    with pytest.raises(CountsMismatchError, match="metric version"):
        verdict_of(counts(50, 0.7, 1), old)


def test_a_champion_in_the_context_without_counts_raises() -> None:
    with pytest.raises(PolicyError, match="champion"):
        judge(policy=Policy(), challenger=counts(50, 0.7, 1), context=context())


@pytest.mark.parametrize("value", [-1, 0.5])
def test_what_cannot_be_counts_raises(value: float) -> None:
    array = np.full((1, 1), value, dtype=np.int64 if value == -1 else np.float64)
    with pytest.raises(InvalidCountsError):
        ImageCounts(("a",), ("x",), array, np.ones((1, 1), int), np.ones((1, 1), int))  # type: ignore[arg-type]


def test_the_json_of_a_verdict_reads_back_to_the_same_verdict_and_digest() -> None:
    verdict = verdict_of(counts(60, 0.75, 1), counts(60, 0.7, 2))
    again = Verdict.from_json(verdict.to_json())
    assert again == verdict
    assert again.digest == verdict.digest


def test_the_same_inputs_give_the_same_digest_and_another_seed_another() -> None:
    first, second = (verdict_of(counts(60, 0.72, 1), counts(60, 0.7, 2)) for _ in range(2))
    other = verdict_of(counts(60, 0.72, 1), counts(60, 0.7, 2), Policy(floor=0.3, resamples=2_000, seed=1))
    assert first.digest == second.digest != other.digest


def test_many_challengers_on_one_gate_set_are_warned_about() -> None:
    challenger, champion = counts(60, 0.75, 1), counts(60, 0.7, 2)
    fresh = judge(policy=Policy(), challenger=challenger, champion=champion, context=context(earlier_uses=12))
    worn = judge(policy=Policy(), challenger=challenger, champion=champion, context=context(earlier_uses=13))
    assert not fresh.notes
    assert "14 challengers" in worn.notes[0]


@pytest.mark.parametrize("lots", [22, 40])
def test_many_slices_are_resampled_as_often_as_their_level_needs(lots: int) -> None:
    images = 12 * lots
    metadata = {"lot": {f"{i:04}.png": f"L{i // 12:02}" for i in range(images)}}
    rules = {
        "non_inferiority": {"margin": 0.02, "columns": ["lot"], "classes": False, "overall": True},
        "resamples": 10_000,
    }
    verdict = judge(
        **given(
            model(0.95, 1, images, ("cat",)),
            model(0.70, 2, images, ("cat",)),
            rules | {"anchor": None},
            metadata=metadata,
        )
    )
    assert verdict.outcome == "promote", verdict.sentence


def test_a_loss_against_the_best_version_ever_is_not_told_as_one_against_the_champion() -> None:
    refs = {"anchor": ModelRef(version=1, digest="z"), "champion": ModelRef(version=5, digest="a")}
    rules = {"anchor": {"margin": 0.01}, "non_inferiority": None}
    verdict = judge(**given(model(0.76, 1), model(0.70, 2), rules, anchor=model(0.84, 3), context=refs))
    assert [check.rule for check in verdict.checks if not check.passed] == ["anchor"]
    assert "against v1, the best that ever was in production, the difference is -" in verdict.sentence


def test_a_figure_beside_a_bound_is_shown_on_its_side_of_it() -> None:
    for value, bound, form in (
        (0.49996, 0.5, ".4f"),
        (1.2003, 1.2, ".4g"),
        (0.0010004, 0.001, ".3g"),
        (-0.00001, 0, "+.4f"),
    ):
        shown = float(beside(value, bound, form))
        assert (shown > bound, shown < bound) == (value > bound, value < bound)
    assert (beside(0.51, 0.5, ".4f"), beside(0.5, 0.5, ".4f"), beside(0.1, 0.0, "+.4f")) == (
        "0.5100",
        "0.5000",
        "+0.1000",
    )
    tp = np.array([[49_996]])
    found = ImageCounts(("a",), ("cat",), tp, tp * 0, 100_000 - tp)
    (check,) = (c for c in judge(**given(found, None, {"floor": 0.5, "anchor": None})).checks if c.rule == "floor")
    assert (check.passed, check.why) == (False, "IoU is 0.49996, but must be at least 0.5")


@pytest.mark.parametrize(
    ("value", "line", "low", "high"),
    [
        (-0.08442, 0.0, "-0.0845", "-0.0844"),
        (0.00002, 0.0, "+0.00002", "+0.0001"),
        (-0.00002, 0.0, "-0.0001", "-0.00002"),
        (0.0, 0.0, "+0.0000", "+0.0000"),
        (0.1, 0.05, "+0.1000", "+0.1000"),
        (-0.02999996, -0.03, "-0.02999996", "-0.0299"),
        (5e-17, 0.0, "+0.00000000000000005", "+0.0001"),
        (None, 0.0, None, None),
    ],
)
def test_an_end_of_an_interval_is_rounded_outwards_and_shown_on_its_side_of_the_line(
    value: float | None, line: float, low: str | None, high: str | None
) -> None:
    shown = Interval(
        estimate=value,
        low=value,
        high=value,
        standard_error=None,
        confidence=0.95,
        line=line,
        images=100,
        effective=80,
        images_needed=None,
    )
    assert (shown.low_told, shown.high_told) == (low, high)


SCORES_ONLY = {"leak": False, "serves": None, "budget": None, "anchor": None, "resamples": 1_000}


def test_the_images_that_would_tell_are_more_than_there_are() -> None:
    told = []
    for seed in range(60):
        truth = np.full((100, 1), 6_000)
        truth[:6] *= 60
        random = np.random.default_rng(seed)
        hard = random.normal(0, 0.08, truth.shape)
        mine, theirs = (
            (truth * np.clip(quality + hard + random.normal(0, 0.02, truth.shape), 0, 1)).astype(np.int64)
            for quality in (0.72, 0.7)
        )
        names = tuple(map(str, range(100)))
        counts = [ImageCounts(names, ("cat",), tp, tp * 0, truth - tp) for tp in (mine, theirs)]
        rules = SCORES_ONLY | {"superiority": {"min_gain": 0.005, "confidence": 0.99}, "non_inferiority": None}
        for check in judge(**given(*counts, rules)).checks:
            if check.undecided and check.interval is not None:
                told += [check.why]
                number = re.search(r"about ([\d,]+) images would tell", check.why)
                assert number is None or int(number[1].replace(",", "")) > 100
    assert any("a few more images" in why for why in told)


def test_a_gate_set_that_is_worn_out_is_told_by_every_policy_that_compares() -> None:
    uses = {"context": {"earlier_uses": 1_000}}
    for preset in ("default", "strict", "permissive"):
        policy = load_policy(preset).model_dump() | SCORES_ONLY
        notes = judge(**given(model(0.9, 1), model(0.7, 2), policy, **uses)).notes
        assert any("Collect a new gate set" in note for note in notes), preset
