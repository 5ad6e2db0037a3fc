"""Cases in which the images decide: too few, of other days, of other models; first models; the anchor."""

from __future__ import annotations

import numpy as np
from conformance_cases import TRUTH, Arguments, better, case, edit, given, model

from ratchet.errors import CountsMismatchError, EmptyGateSetError, InvalidCountsError, PolicyError
from ratchet.gate import (
    ModelRef,
)

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


FORMER = {"anchor": ModelRef(version=1, digest="z")}

# --- first model -----------------------------------------------------------------------------------------------------


@case("reject", "the difference is -0.06")
def an_empty_production_that_had_a_better_one() -> Arguments:
    return given(
        model(0.70, 1), None, {"anchor": {"margin": 0.02}, "floor": 0.3}, anchor=model(0.76, 3), context=FORMER
    )


@case("promote", "production is empty, and v1 was the best that ever was in it")
def an_empty_production_that_had_a_worse_one() -> Arguments:
    return given(
        model(0.76, 1), None, {"anchor": {"margin": 0.02}, "floor": 0.3}, anchor=model(0.70, 3), context=FORMER
    )


@case("reject", "no data: the gate set's metadata has no column 'part'")
def an_empty_production_and_groups_that_nobody_recorded() -> Arguments:
    rules = {"anchor": {"margin": 0.02}, "floor": 0.3, "group_by": "part"}
    return given(model(0.76, 1), None, rules, anchor=model(0.70, 3), context=FORMER)


@case("reject", "there is nothing to judge it by")
def an_empty_production_and_a_policy_without_floor_and_anchor() -> Arguments:
    rules = {"anchor": None, "floor": None}
    return given(model(0.29, 1), None, rules, anchor=model(0.76, 3), context=FORMER)


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
