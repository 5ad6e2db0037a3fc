"""What the gate answers in every awkward case: a table of named cases, each with its outcome and its reason."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ratchet.errors import CountsMismatchError, EmptyGateSetError, GateError, InvalidCountsError, PolicyError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import (
    Context,
    Cost,
    Evidence,
    ModelRef,
    ServesEvidence,
    Verdict,
    find_leaks,
    judge,
    load_policy,
)

Arguments = dict[str, Any]
TRUTH = 6_000


@dataclass(frozen=True)
class Case:
    """One situation: what the gate is given, and what it must answer (an outcome, or an error) for which reason."""

    name: str
    arguments: Callable[[], Arguments]
    expected: str | type[GateError]
    reason: str


CASES: list[Case] = []


def case(expected: str | type[GateError], reason: str) -> Callable[[Callable[[], Arguments]], Callable[[], Arguments]]:
    def add(build: Callable[[], Arguments]) -> Callable[[], Arguments]:
        CASES.append(Case(build.__name__.replace("_", " "), build, expected, reason))
        return build

    return add


def model(quality: float, seed: int, images: int = 200, classes: tuple[str, ...] = ("cat", "dog")) -> ImageCounts:
    """A model of this mean IoU; images are as hard for one model as for another."""
    shape = (images, len(classes))
    hard, own = (np.random.default_rng(s).normal(size=shape) for s in (0, seed))
    iou = np.clip(quality + 0.15 * (np.sqrt(0.85) * hard + np.sqrt(0.15) * own), 0, 1)
    tp = (iou * TRUTH).astype(np.int64)
    return ImageCounts(tuple(f"{i:04}.png" for i in range(images)), classes, tp, np.zeros_like(tp), TRUTH - tp)


def given(
    challenger: ImageCounts, champion: ImageCounts | None, policy: dict[str, Any] | None = None, **rest: Any
) -> Arguments:
    """Arguments of `judge`: what the default policy asks of the scores, with fewer resamples, and what `policy` adds."""
    context: dict[str, Any] = {"model": "pets", "gate_set": "g", "challenger": ModelRef(version=2, digest="b")}
    context["champion"] = None if champion is None else ModelRef(version=1, digest="a")
    scores_only = {"leak": False, "serves": None, "budget": None, "resamples": 2_000}
    values = load_policy("default").model_dump() | scores_only | (policy or {})
    return {
        "policy": load_policy(values),
        "challenger": challenger,
        "champion": champion,
        "context": Context.model_validate(context | rest.pop("context", {})),
        **rest,
    }


def better(policy: dict[str, Any] | None = None, **rest: Any) -> Arguments:
    """A challenger that is clearly better, so that only what the case adds can stop it."""
    return given(model(0.76, 1), model(0.70, 2), policy, **rest)


def edit(counts: ImageCounts, **changes: Any) -> ImageCounts:
    return dataclasses.replace(counts, **changes)


# --- quality ---------------------------------------------------------------------------------------------------------


@case("promote", "at least")
def a_clear_gain() -> Arguments:
    return better()


@case("reject", "not above zero")
def a_clear_loss() -> Arguments:
    return given(model(0.64, 1), model(0.70, 2))


@case("inconclusive", "too wide to tell")
def an_equal_model_from_another_seed() -> Arguments:
    return given(model(0.70, 4), model(0.70, 2))


@case("inconclusive", "about .* images would tell")
def a_gain_that_luck_explains() -> Arguments:
    return given(model(0.712, 1, 40), model(0.70, 2, 40))


@case("reject", "not above zero")
def a_tie() -> Arguments:
    return given(model(0.70, 1), model(0.70, 1))


@case("reject", r"not above \+0.1")
def a_gain_below_min_gain() -> Arguments:
    return better({"superiority": {"min_gain": 0.1}})


@case("promote", "at least")
def a_champion_that_finds_nothing() -> Arguments:
    champion = model(0.70, 2)
    return given(model(0.70, 1), edit(champion, tp=champion.tp * 0, fn=champion.tp + champion.fn))


@case("reject", "IoU is 0.0000")
def two_models_that_find_nothing() -> Arguments:
    nothing = edit(model(0.70, 2), tp=np.zeros((200, 2), int), fn=np.full((200, 2), TRUTH))
    return given(nothing, nothing)


@case("reject", "must be at least 0.9")
def a_gain_under_the_floor() -> Arguments:
    return better({"floor": 0.9})


@case("reject", "class: cat is")
def a_class_under_its_floor() -> Arguments:
    challenger = model(0.85, 1)
    tp = challenger.tp.copy()
    tp[:, 0] = np.minimum(tp[:, 0], 4_000)
    return given(edit(challenger, tp=tp, fn=TRUTH - tp), model(0.70, 2), {"class_floor": 0.7, "non_inferiority": None})


@case("reject", "IoU is 0.0000")
def a_challenger_that_finds_nothing() -> Arguments:
    return given(edit(model(0.70, 2), tp=np.zeros((200, 2), int), fn=np.full((200, 2), TRUTH)), model(0.70, 2))


@case("reject", "on class: dog")
def a_class_that_got_worse_under_a_better_average() -> Arguments:
    challenger, champion = model(0.90, 1), model(0.70, 2)
    tp = challenger.tp.copy()
    tp[:, 1] = champion.tp[:, 1] * 9 // 10
    return given(edit(challenger, tp=tp, fn=TRUTH - tp), champion)


def sites(images: int = 200, small: int = 50) -> dict[str, dict[str, str]]:
    return {"site": {f"{i:04}.png": "Lyon" if i < small else "Oslo" for i in range(images)}}


BY_SITE = {"non_inferiority": {"margin": 0.03, "classes": False, "columns": ["site"]}}


@case("reject", "on site: Lyon")
def a_site_that_got_worse_under_a_better_average() -> Arguments:
    challenger, champion = model(0.82, 1), model(0.70, 2)
    tp = challenger.tp.copy()
    tp[:50] = champion.tp[:50] * 8 // 10
    return given(edit(challenger, tp=tp, fn=TRUTH - tp), champion, BY_SITE, metadata=sites())


@case("inconclusive", "3 of 10 needed")
def a_tiny_slice() -> Arguments:
    return better(BY_SITE, metadata=sites(small=3))


@case("reject", "no column 'site'")
def a_missing_slice() -> Arguments:
    return better(BY_SITE)


@case("reject", "have no 'site'")
def an_image_without_its_slice() -> Arguments:
    metadata = sites()
    del metadata["site"]["0007.png"]
    return better(BY_SITE, metadata=metadata)


@case("promote", "at least")
def every_site_is_better() -> Arguments:
    return better(BY_SITE, metadata=sites())


@case("reject", "on size: small")
def small_objects_that_are_lost() -> Arguments:
    challenger, champion = model(0.80, 1), model(0.70, 2)
    truth = np.full((200, 2), TRUTH)
    truth[:66] = 600
    scale = truth / TRUTH
    mine, theirs = (np.floor(counts.tp * scale).astype(np.int64) for counts in (challenger, champion))
    mine[:66] //= 2
    policy = {"non_inferiority": {"margin": 0.03, "classes": False, "sizes": True}}
    return given(edit(challenger, tp=mine, fn=truth - mine), edit(champion, tp=theirs, fn=truth - theirs), policy)


# --- figures that are not there --------------------------------------------------------------------------------------


def without_dogs(counts: ImageCounts) -> ImageCounts:
    keep = np.array([1, 0])
    return edit(counts, tp=counts.tp * keep, fn=counts.fn * keep)


@case("reject", "no gate image holds the class 'dog'")
def a_class_without_a_pixel_gives_no_score() -> Arguments:
    return given(without_dogs(model(0.76, 1)), without_dogs(model(0.70, 2)))


@case("reject", "no gate image holds the class 'dog'")
def a_first_model_with_a_class_without_a_pixel() -> Arguments:
    return given(without_dogs(model(0.76, 1)), None)


@case("inconclusive", "in too few images")
def a_class_in_two_images_only() -> Arguments:
    keep = np.ones((200, 2), int)
    keep[2:, 1] = 0
    challenger, champion = (edit(c, tp=c.tp * keep, fn=c.fn * keep) for c in (model(0.8, 1), model(0.7, 2)))
    return given(challenger, champion, {"non_inferiority": None})


@case("reject", "NaN or infinite values on 1 images")
def a_challenger_whose_output_is_not_finite_on_one_image() -> Arguments:
    bad = np.zeros(200, int)
    bad[9] = 4
    return given(edit(model(0.76, 1), nonfinite=bad), model(0.70, 2))


@case("reject", "champion cannot be scored")
def a_champion_whose_output_is_not_finite() -> Arguments:
    return given(model(0.76, 1), edit(model(0.70, 2), nonfinite=np.ones(200, int)))


@case("reject", "needs the counts `correct|needs the counts `pixels")
def a_metric_that_was_not_counted() -> Arguments:
    return better({"metric": "pixel_accuracy", "non_inferiority": None})


@case("reject", "needs the counts `boundary`")
def a_boundary_that_was_not_counted() -> Arguments:
    return better({"metric": "boundary_iou"})


@case("reject", "precision is 0.0000")
def a_challenger_without_predictions_has_no_free_precision() -> Arguments:
    silent = edit(model(0.70, 2), tp=np.zeros((200, 2), int), fn=np.full((200, 2), TRUTH))
    return given(silent, model(0.70, 2), {"metric": "precision"})


# --- few images, or few that matter ----------------------------------------------------------------------------------


@case("inconclusive", "1 of 20 needed")
def a_single_image() -> Arguments:
    return given(model(0.9, 1, 1), model(0.5, 2, 1))


@case("inconclusive", "8 of 20 needed")
def eight_images() -> Arguments:
    return given(model(0.9, 1, 8), model(0.5, 2, 8))


@case("inconclusive", "few of them carry it")
def one_huge_image_that_carries_the_gain() -> Arguments:
    challenger, champion = model(0.70, 1), model(0.70, 3)
    truth = np.full((200, 2), TRUTH)
    truth[0] *= 5_000
    mine, theirs = challenger.tp.copy(), champion.tp.copy()
    mine[0], theirs[0] = truth[0] * 9 // 10, truth[0] * 5 // 10
    return given(edit(challenger, tp=mine, fn=truth - mine), edit(champion, tp=theirs, fn=truth - theirs))


def parts(images: int, each: int) -> dict[str, dict[str, str]]:
    return {"part": {f"{i:04}.png": str(i // each) for i in range(images)}}


@case("inconclusive", "10 of 20 needed")
def two_hundred_pictures_of_ten_parts() -> Arguments:
    return better({"group_by": "part"}, metadata=parts(200, 20))


@case("reject", "no column 'part'")
def groups_that_nobody_recorded() -> Arguments:
    return better({"group_by": "part"})


@case(EmptyGateSetError, "no images")
def an_empty_gate_set() -> Arguments:
    return given(model(0.76, 1, 0), model(0.70, 2, 0))


# --- first model -----------------------------------------------------------------------------------------------------


@case("promote", "first model")
def a_first_model_over_the_floor() -> Arguments:
    return given(model(0.76, 1), None)


@case("reject", "must be at least 0.8")
def a_first_model_under_the_floor() -> Arguments:
    return given(model(0.70, 1), None, {"floor": 0.8})


@case("reject", "the policy has no floor")
def a_first_model_without_a_floor() -> Arguments:
    return given(model(0.76, 1), None, {"floor": None})


@case(PolicyError, "disagree on whether there is a champion")
def a_champion_that_could_not_be_scored() -> Arguments:
    champion = {"champion": ModelRef(version=1, digest="a")}
    return given(model(0.76, 1), None, context=champion)


# --- the same data, today --------------------------------------------------------------------------------------------


@case(CountsMismatchError, "other true pixels")
def a_champion_scored_on_yesterdays_masks() -> Arguments:
    champion = model(0.70, 2)
    return given(model(0.76, 1), edit(champion, fn=champion.fn + np.eye(200, 2, dtype=int)))


@case(CountsMismatchError, "metric version 0")
def a_champion_counted_by_another_metric_version() -> Arguments:
    return given(model(0.76, 1), edit(model(0.70, 2), metric_version=0))


@case(CountsMismatchError, "metric version 0")
def both_counted_by_another_metric_version() -> Arguments:
    return given(edit(model(0.76, 1), metric_version=0), edit(model(0.70, 2), metric_version=0))


@case(CountsMismatchError, "different images")
def a_champion_scored_on_other_images() -> Arguments:
    champion = model(0.70, 2)
    return given(model(0.76, 1), edit(champion, names=(*champion.names[:-1], "new.png")))


@case(CountsMismatchError, "order differs")
def a_champion_scored_in_another_order() -> Arguments:
    champion = model(0.70, 2)
    return given(model(0.76, 1), edit(champion, names=champion.names[::-1]))


@case(CountsMismatchError, "different images")
def a_champion_scored_on_half_of_the_images() -> Arguments:
    return given(model(0.76, 1), model(0.70, 2, 100))


@case(CountsMismatchError, "classes differ")
def relabelled_classes() -> Arguments:
    return given(model(0.76, 1), model(0.70, 2, classes=("dog", "cat")))


@case(CountsMismatchError, "classes differ")
def a_class_more() -> Arguments:
    return given(model(0.76, 1, classes=("cat", "dog", "eel")), model(0.70, 2))


@case(InvalidCountsError, "cannot be summed exactly")
def counts_too_large_to_be_exact() -> Arguments:
    challenger, champion = model(0.76, 1), model(0.70, 2)
    return given(*(edit(c, tp=c.tp << 40, fn=c.fn << 40) for c in (challenger, champion)))


@case(InvalidCountsError, "negative")
def negative_counts() -> Arguments:
    return given(edit(model(0.76, 1), fp=np.full((200, 2), -1)), model(0.70, 2))


@case("reject", "already in production")
def the_champion_itself() -> Arguments:
    return better(context={"challenger": ModelRef(version=1, digest="a")})


@case("reject", "same files as v1")
def a_copy_of_the_champion() -> Arguments:
    return better(context={"challenger": ModelRef(version=2, digest="a")})


# --- anchor ----------------------------------------------------------------------------------------------------------

DOWNHILL = {
    "superiority": None,
    "non_inferiority": {"margin": 0.03, "overall": True, "classes": False},
    "anchor": {"margin": 0.03},
}
BEST = {"anchor": ModelRef(version=1, digest="z"), "champion": ModelRef(version=5, digest="a")}


@case("promote", "difference is -0.01")
def a_small_loss_that_the_policy_allows() -> Arguments:
    return given(model(0.69, 1), model(0.70, 2), DOWNHILL, anchor=model(0.70, 2))


@case("reject", "not above -0.03")
def small_losses_that_add_up() -> Arguments:
    return given(model(0.69, 1), model(0.70, 2), DOWNHILL, anchor=model(0.76, 3), context=BEST)


@case("reject", "was not scored")
def an_anchor_that_was_not_scored() -> Arguments:
    return better({"anchor": {"margin": 0.02}})


# --- leak ------------------------------------------------------------------------------------------------------------

GATE_IMAGES = {f"{i:04}.png": f"sha-{i}" for i in range(200)}


def leak(challenger: set[str] | None, champion: set[str] | None, gate: dict[str, str] = GATE_IMAGES) -> Evidence:
    return Evidence(leak=find_leaks(gate_images=gate, challenger_training=challenger, champion_training=champion))


@case("promote", "at least")
def no_leak() -> Arguments:
    return better({"leak": True}, evidence=leak({"sha-x"}, {"sha-y"}))


@case("reject", r"challenger was trained or selected on 1 gate images, such as '0007\.png'")
def a_gate_image_under_another_name_in_the_training_data() -> Arguments:
    return better({"leak": True}, evidence=leak({"sha-x", "sha-7"}, set()))


@case("reject", "champion was trained or selected on 2 gate images")
def a_gate_image_in_the_champions_training_data() -> Arguments:
    return better({"leak": True}, evidence=leak({"sha-x"}, {"sha-7", "sha-8"}))


@case("reject", "challenger was trained")
def a_first_model_that_saw_the_gate_set() -> Arguments:
    return given(model(0.76, 1), None, {"leak": True}, evidence=leak({"sha-1"}, None))


@case("reject", "is not known")
def training_data_that_nobody_recorded() -> Arguments:
    return better({"leak": True}, evidence=leak(set(), None))


@case("reject", "is not known")
def a_leak_rule_without_evidence() -> Arguments:
    return better({"leak": True})


@case("reject", "only 3 of 200")
def a_leak_search_over_a_few_images() -> Arguments:
    few = dict(list(GATE_IMAGES.items())[:3])
    return better({"leak": True}, evidence=leak(set(), set(), few))


# --- serves ----------------------------------------------------------------------------------------------------------

SERVES: dict[str, Any] = {"serves": {"max_difference": 1e-3}}


def probe(**changes: Any) -> Evidence:
    good = {
        "loaded": True,
        "finite": True,
        "output_shape": (1, 3, 64, 64),
        "expected_shape": (1, 3, 64, 64),
        "max_difference": 1e-5,
        "signature": "f32[3,64,64]",
        "champion_signature": "f32[3,64,64]",
    }
    return Evidence(serves=ServesEvidence.model_validate(good | changes))


@case("promote", "at least")
def an_export_that_serves() -> Arguments:
    return better(SERVES, evidence=probe())


@case("reject", "was not tried")
def an_export_that_nobody_tried() -> Arguments:
    return better(SERVES)


@case("reject", "does not load and answer: timed out")
def an_export_that_does_not_load() -> Arguments:
    return better(SERVES, evidence=probe(loaded=False, error="timed out"))


@case("reject", "output is not finite")
def an_export_that_answers_nan() -> Arguments:
    return better(SERVES, evidence=probe(finite=False))


@case("reject", "has shape")
def an_export_of_another_output_shape() -> Arguments:
    return better(SERVES, evidence=probe(output_shape=(1, 1, 64, 64)))


@case("reject", "differs from the trained model by 0.2")
def an_export_that_is_not_the_trained_model() -> Arguments:
    return better(SERVES, evidence=probe(max_difference=0.2))


@case("reject", "could not be compared with the trained model")
def an_export_whose_difference_is_nan() -> Arguments:
    return better(SERVES, evidence=probe(max_difference=float("nan")))


@case("reject", "signature is not the champion's")
def an_export_with_another_signature() -> Arguments:
    return better(SERVES, evidence=probe(signature="f32[1,64,64]"))


@case("reject", "signature could not be compared")
def an_export_without_a_signature() -> Arguments:
    return better(SERVES, evidence=probe(signature=None))


@case("promote", "first model")
def a_first_export_has_no_signature_to_keep() -> Arguments:
    return given(model(0.76, 1), None, SERVES, evidence=probe(champion_signature=None))


@case("reject", "does not load")
def a_first_model_that_does_not_load() -> Arguments:
    return given(model(0.76, 1), None, SERVES, evidence=probe(loaded=False, error="no such file"))


# --- budget ----------------------------------------------------------------------------------------------------------


def costs(mine: Cost | None, theirs: Cost | None = None) -> Evidence:
    return Evidence(challenger_cost=mine, champion_cost=theirs)


def cost(latency: float = 10.0, samples: int = 40, memory: float | None = 500.0, size: float | None = 50.0) -> Cost:
    return Cost(latency_ms=(latency,) * samples, memory_mb=memory, size_mb=size)


@case("promote", "at least")
def a_model_within_budget() -> Arguments:
    return better({"budget": {"latency_ratio": 1.2, "size_mb": 60}}, evidence=costs(cost(11), cost(10)))


@case("reject", "latency_p95 is 30 ms")
def a_model_that_is_too_slow() -> Arguments:
    return better({"budget": {"latency_p95_ms": 20}}, evidence=costs(cost(30)))


@case("reject", "latency_p95 is 90 ms")
def a_model_that_is_slow_one_time_in_ten() -> Arguments:
    mine = Cost(latency_ms=(10.0,) * 36 + (90.0,) * 4)
    return better({"budget": {"latency_p95_ms": 20}}, evidence=costs(mine))


@case("reject", "latency_p95 ratio is 1.5")
def a_model_slower_than_the_champion() -> Arguments:
    return better({"budget": {"latency_ratio": 1.2}}, evidence=costs(cost(15), cost(10)))


@case("reject", "not measured, or not often enough")
def a_latency_measured_three_times() -> Arguments:
    return better({"budget": {"latency_p95_ms": 20}}, evidence=costs(cost(10, samples=3)))


@case("reject", "not measured")
def a_champion_whose_cost_is_not_known() -> Arguments:
    return better({"budget": {"memory_ratio": 1.2}}, evidence=costs(cost()))


@case("reject", "memory was not measured")
def a_memory_that_is_nan() -> Arguments:
    return better({"budget": {"memory_mb": 900}}, evidence=costs(cost(memory=float("nan"))))


@case("reject", "size ratio is 2")
def a_model_twice_as_large() -> Arguments:
    return better({"budget": {"size_ratio": 1.5}}, evidence=costs(cost(size=100), cost()))


@case("reject", "size is 100 MB")
def a_first_model_that_is_too_large() -> Arguments:
    return given(model(0.76, 1), None, {"budget": {"size_mb": 60}}, evidence=costs(cost(size=100)))


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("situation", CASES, ids=lambda situation: situation.name)
def test_the_gate_answers_as_the_table_says(situation: Case) -> None:
    if not isinstance(situation.expected, str):
        with pytest.raises(situation.expected, match=situation.reason):
            judge(**situation.arguments())
        return
    verdict = judge(**situation.arguments())
    assert verdict.outcome == situation.expected, verdict.sentence
    failed = [f"on {check.slice}: {check.why}" for check in verdict.checks if not check.passed]
    said = " ".join([verdict.sentence, *failed])
    assert re.search(situation.reason, said), said
    assert Verdict.from_json(verdict.to_json()).digest == verdict.digest


def test_the_table_is_large_and_its_names_are_unique() -> None:
    assert len({situation.name for situation in CASES}) == len(CASES) > 60


def test_no_awkward_case_leaves_a_rule_of_its_policy_without_a_check() -> None:
    for situation in CASES:
        if isinstance(situation.expected, str):
            verdict = judge(**situation.arguments())
            asked = {rule for rule in ("leak", "serves") if getattr(verdict.policy, rule)}
            if verdict.champion is not None:
                asked |= {
                    rule for rule in ("superiority", "non_inferiority", "anchor") if getattr(verdict.policy, rule)
                }
            assert asked <= {check.rule for check in verdict.checks}, situation.name
