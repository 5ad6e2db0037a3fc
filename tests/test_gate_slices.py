"""Non-inferiority in slices: which images are in one, what is averaged there, and Holm's correction over them."""

import tracemalloc

import numpy as np
import pytest

from ratchet.errors import PolicyError
from ratchet.evaluation.counts import ImageCounts, Summands
from ratchet.gate import Context, ModelRef, NonInferiority, Policy, Verdict, judge, load_policy
from ratchet.gate.bootstrap import Pair, resample
from ratchet.gate.contrasts import slices


def counts(seed: int, images: int = 120, classes: int = 2, quality: float = 0.7) -> ImageCounts:
    truth = np.random.default_rng(0).integers(200, 2_000, (images, classes))
    share = np.clip(np.random.default_rng(seed).normal(quality, 0.08, (images, classes)), 0, 1)
    tp = (truth * share).astype(np.int64)
    names, labels = tuple(f"{i:03}" for i in range(images)), tuple("abcdefghijklmnopqrst"[:classes])
    return ImageCounts(names, labels, tp, np.zeros_like(tp), truth - tp)


def judged(rule: NonInferiority, challenger: ImageCounts, champion: ImageCounts, **rest: object) -> Verdict:
    policy = Policy(superiority=None, floor=0.1, non_inferiority=rule, resamples=4_000)
    models = {"challenger": ModelRef(version=2, digest="b"), "champion": ModelRef(version=1, digest="a")}
    context = Context.model_validate({"model": "m", "gate_set": "g", **models})
    return judge(policy=policy, challenger=challenger, champion=champion, context=context, **rest)  # type: ignore[arg-type]


def confidences(verdict: Verdict) -> list[float]:
    return sorted(check.interval.confidence for check in verdict.checks if check.interval and check.slice != "all")


def test_holms_levels_are_alpha_over_m_down_to_alpha_when_all_slices_pass() -> None:
    verdict = judged(NonInferiority(margin=0.1), counts(1, classes=4), counts(2, classes=4))
    assert verdict.passed
    assert confidences(verdict) == pytest.approx([1 - 0.05 / m for m in (1, 2, 3, 4)])


def test_many_slices_take_no_more_memory_than_the_images_in_them() -> None:
    one, other = counts(1, images=4_000, classes=20), counts(2, images=4_000, classes=20)
    lots = {"lot": {name: str(number % 100) for number, name in enumerate(one.names)}}
    tracemalloc.start()
    try:
        judged(NonInferiority(margin=0.1, classes=False, columns=("lot",)), one, other, metadata=lots)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300e6  # all images in each of the slices would be a gigabyte


def test_a_slice_is_resampled_as_if_the_other_images_were_zeros() -> None:
    random = np.random.default_rng(0)
    whole = Pair(*(Summands(*random.integers(1, 500, (3, 60, 2)).astype(float)) for _ in range(2)))
    keep, groups = np.arange(60) % 3 == 0, np.arange(60) // 4
    zeros = Pair(
        *(
            Summands(*(np.where(keep[:, None], part, 0.0) for part in side))
            for side in (whole.challenger, whole.champion)
        )
    )
    for grouped in (None, groups):
        part, padded = (
            resample([p], metric="iou", resamples=500, seed=1, groups=grouped)[0] for p in (whole.only(keep), zeros)
        )
        assert np.array_equal(part.for_low, padded.for_low)
        assert (part.estimate, part.effective, part.units) == (padded.estimate, padded.effective, padded.units)


def test_after_the_first_slice_that_fails_none_passes() -> None:
    champion = counts(2, classes=4)
    challenger = counts(1, classes=4)
    tp = challenger.tp.copy()
    tp[:, 1:] = champion.tp[:, 1:] - champion.tp[:, 1:] // 10
    worse = ImageCounts(challenger.names, challenger.classes, tp, challenger.fp, challenger.tp + challenger.fn - tp)
    verdict = judged(NonInferiority(margin=0.03), worse, champion)
    outcome = {check.slice: check.passed for check in verdict.checks if check.rule == "non_inferiority"}
    assert outcome == {"class: a": True, "class: b": False, "class: c": False, "class: d": False}
    assert confidences(verdict) == pytest.approx([1 - 0.05 / 3] * 3 + [1 - 0.05 / 4])


def test_a_check_passes_exactly_when_its_interval_is_above_the_line() -> None:
    for seed in range(1, 12):
        verdict = judged(NonInferiority(margin=0.004), counts(seed, classes=6), counts(30, classes=6))
        for check in verdict.checks:
            if check.interval is not None:
                assert check.interval.low is not None
                assert check.passed == (check.interval.low > check.interval.line)


@pytest.mark.slow
def test_the_chance_that_any_equal_slice_is_wrongly_passed_is_at_most_alpha() -> None:
    wrong = 0
    margin = 0.02
    for trial in range(150):
        champion = counts(1_000 + trial, images=60, classes=5)
        challenger = counts(5_000 + trial, images=60, classes=5, quality=0.7 - margin)
        verdict = judged(NonInferiority(margin=margin), challenger, champion)
        wrong += any(check.passed for check in verdict.checks if check.rule == "non_inferiority")
    assert wrong / 150 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_sizes_are_thirds_of_the_images_with_objects() -> None:
    one = counts(1, images=100)
    one.tp[:10], one.fn[:10], one.fp[:10] = 0, 0, 5
    policy = Policy(non_inferiority=NonInferiority(classes=False, sizes=True))
    parts, missing = slices(policy, one, one, {})
    assert not missing
    assert [(part.name, part.images) for part in parts] == [
        ("size: small", 30),
        ("size: medium", 30),
        ("size: large", 30),
    ]
    area = [part.pair.challenger.tp.sum() + part.pair.challenger.fn.sum() for part in parts]
    assert area == sorted(area)


def test_a_slice_is_averaged_over_the_classes_that_it_holds() -> None:
    one, other = counts(1), counts(2)
    for model in (one, other):
        model.tp[:60, 1] = model.fn[:60, 1] = 0
    metadata = {"site": {name: "x" if i < 60 else "y" for i, name in enumerate(one.names)}}
    rule = NonInferiority(margin=0.1, classes=False, columns=("site",))
    verdict = judged(rule, one, other, metadata=metadata)
    assert verdict.passed, verdict.sentence
    assert [check.slice for check in verdict.checks if check.rule == "non_inferiority"] == ["site: x", "site: y"]


def test_only_the_columns_that_the_policy_reads_are_in_the_verdicts_digest() -> None:
    one, other = counts(1), counts(2)
    site = {name: "xy"[i % 2] for i, name in enumerate(one.names)}
    rule = NonInferiority(margin=0.1, classes=False, columns=("site",))
    few = judged(rule, one, other, metadata={"site": site})
    more = judged(rule, one, other, metadata={"site": site | {"not in the gate set": "z"}, "camera": {"000": "k"}})
    changed = judged(rule, one, other, metadata={"site": site | {"000": "y"}})
    assert few.digest == more.digest != changed.digest


@pytest.mark.parametrize("metric", ["dice", "recall"])
def test_every_per_class_metric_is_judged_by_the_same_rules(metric: str) -> None:
    policy = Policy.model_validate(
        {"metric": metric, "floor": 0.1, "non_inferiority": {"margin": 0.05}, "resamples": 2_000}
    )
    models = {"challenger": ModelRef(version=2, digest="b"), "champion": ModelRef(version=1, digest="a")}
    context = Context.model_validate({"model": "m", "gate_set": "g", **models})
    verdict = judge(policy=policy, challenger=counts(1, quality=0.8), champion=counts(2), context=context)
    assert verdict.passed, verdict.sentence


def test_pixel_accuracy_has_no_classes_to_slice_by() -> None:
    with pytest.raises(PolicyError, match="pixel_accuracy"):
        load_policy({"metric": "pixel_accuracy", "non_inferiority": {"classes": True}})


def test_a_column_that_is_called_as_a_slice_is_takes_none_away() -> None:
    one = counts(1, images=90)
    rule = NonInferiority(classes=False, sizes=True, columns=("size",))
    sites = {name: ("small", "large", "huge")[number % 3] for number, name in enumerate(one.names)}
    parts, missing = slices(Policy(non_inferiority=rule), one, one, {"size": sites})
    assert not missing
    names = [part.name for part in parts]
    assert names == ["size: small", "size: medium", "size: large", "size: huge", "size: large", "size: small"]


def with_false_positives(one: ImageCounts, column: int, pixels: int) -> ImageCounts:
    """The same model with false positives of one class in every image that does not show it."""
    fp = one.fp.copy()
    fp[one.tp[:, column] + one.fn[:, column] == 0, column] = pixels
    return ImageCounts(one.names, one.classes, one.tp, fp, one.fn)


def showing(column_images: int, images: int, seed: int) -> ImageCounts:
    """Two classes, of which the second is in the first so many images only."""
    one = counts(seed, images=images)
    one.tp[column_images:, 1] = one.fn[column_images:, 1] = 0
    return one


@pytest.mark.parametrize("pixels", [0, 30, 3_000])
def test_a_class_in_two_images_is_not_judged_whatever_is_wrongly_found_in_the_others(pixels: int) -> None:
    models = [with_false_positives(showing(2, 60, seed), 1, pixels) for seed in (1, 1)]
    verdict = judged(NonInferiority(margin=0.2, classes=False, overall=True), *models)
    (check,) = (check for check in verdict.checks if check.rule == "non_inferiority")
    assert (check.passed, check.undecided) == (False, True)


@pytest.mark.parametrize("pixels", [0, 1, 30])
def test_images_count_for_a_class_by_what_they_show_and_not_by_what_is_wrongly_found(pixels: int) -> None:
    models = [with_false_positives(showing(40, 240, seed), 1, pixels) for seed in (1, 1)]
    metadata = {"patient": {name: f"p{number // 8}" for number, name in enumerate(models[0].names)}}
    policy = Policy(
        superiority=None,
        floor=0.0,
        non_inferiority=NonInferiority(margin=0.5, overall=False, min_images=10),
        group_by="patient",
        resamples=2_000,
    )
    refs = {"challenger": ModelRef(version=2, digest="b"), "champion": ModelRef(version=1, digest="a")}
    context = Context.model_validate({"model": "m", "gate_set": "g", **refs})
    verdict = judge(policy=policy, challenger=models[0], champion=models[1], context=context, metadata=metadata)
    (check,) = (check for check in verdict.checks if check.slice == "class: b")
    assert (check.passed, check.undecided) == (False, True)
    assert "5 of 10 needed" in check.why


@pytest.mark.parametrize("pixels", [0, 300])
def test_a_slice_of_images_that_show_nothing_is_told_and_never_passes(pixels: int) -> None:
    champion, challenger = counts(1), counts(2)
    for model, found in ((champion, 5), (challenger, pixels)):
        model.tp[90:] = model.fn[90:] = 0
        model.fp[90:] = found
    metadata = {"product": {name: "clean" if i >= 90 else "scratched" for i, name in enumerate(champion.names)}}
    rule = NonInferiority(margin=0.2, classes=False, columns=("product",))
    checks = {c.slice: c for c in judged(rule, challenger, champion, metadata=metadata).checks}
    assert checks["product: scratched"].interval is not None
    assert not checks["product: clean"].passed
    assert "nothing to find" in checks["product: clean"].why


def test_with_groups_the_images_that_would_decide_are_told_as_images() -> None:
    one, other = counts(1, images=18, classes=1), counts(2, images=18, classes=1, quality=0.5)
    policy = Policy(floor=0.0, group_by="patient", min_images=20, resamples=2_000)
    refs = {"challenger": ModelRef(version=2, digest="b"), "champion": ModelRef(version=1, digest="a")}
    context = Context.model_validate({"model": "m", "gate_set": "g", **refs})
    metadata = {"patient": {name: f"p{number // 3}" for number, name in enumerate(one.names)}}
    verdict = judge(policy=policy, challenger=one, champion=other, context=context, metadata=metadata)
    assert verdict.images_needed == 60  # 20 groups of three
