"""Cases in which the scores decide: gains and losses, slices, figures that are not there."""

from __future__ import annotations

import numpy as np
from conformance_cases import TRUTH, Arguments, better, case, edit, given, model

from ratchet.evaluation.counts import ImageCounts

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
