"""Boundary counts: the bands are those of the definition, and an edge that moved costs what it should."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ratchet.data import Sample
from ratchet.evaluation.boundary import count_bands, inner_band, inner_bands
from ratchet.evaluation.scoring import BATCH, score_models
from ratchet.evaluation.served import ModelCard, SilentModel


def eroded(mask: np.ndarray, distance: int) -> np.ndarray:
    """Erosion by a 3 x 3 square, `distance` times, with nothing outside the frame: the paper's own way."""
    for _ in range(distance):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.all([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)
    return mask


def boundary_counts(truth: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
    return count_bands(*(inner_bands(mask, classes=classes) for mask in (truth, predicted)))


@pytest.mark.parametrize("distance", [1, 2, 5, 40])
def test_the_band_is_the_mask_without_its_erosion(distance: int) -> None:
    random = np.random.default_rng(distance)
    mask = np.kron(random.random((6, 5)) < 0.7, np.ones((8, 9))).astype(bool)
    assert np.array_equal(inner_band(mask, distance), mask & ~eroded(mask, distance))


def test_equal_masks_have_no_errors_and_an_empty_one_no_band() -> None:
    mask = np.zeros((50, 50), int)
    mask[10:40, 10:40] = 1
    tp, fp, fn = boundary_counts(mask, mask, classes=2)
    assert fp.tolist() == fn.tolist() == [0, 0]
    assert tp[1] == 0
    assert tp[0] == 30 * 30 - 28 * 28  # 2 % of the diagonal is one pixel


def test_a_shifted_edge_costs_the_boundary_far_more_than_the_area() -> None:
    truth, moved = np.zeros((200, 200), int), np.zeros((200, 200), int)
    truth[20:180, 20:180], moved[23:183, 20:180] = 1, 1
    tp, fp, fn = boundary_counts(truth, moved, classes=1)
    area = (truth & moved).sum() / (truth | moved).sum()
    assert area > 0.96
    assert tp[0] / (tp[0] + fp[0] + fn[0]) < 0.75


def test_the_width_follows_the_diagonal() -> None:
    mask = np.ones((100, 300), int)
    distance = round(0.02 * math.hypot(100, 300))
    assert boundary_counts(mask, mask, classes=1)[0, 0] == 100 * 300 - (100 - 2 * distance) * (300 - 2 * distance)


def test_the_largest_of_many_classes_is_found_with_one_of_them_resized_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("background", *(f"class {number}" for number in range(39)))
    model = SilentModel(ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=names))
    logits = torch.randn(40, 16, 16, generator=torch.Generator().manual_seed(0)).round(
        decimals=1
    )  # so that some are equal
    logits[7, 3, 3], logits[9, 5, 5] = float("nan"), float("inf")
    resize, sizes = torch.nn.functional.interpolate, list[int]()
    planes = resize(logits[:, None], size=(50, 30), mode="bilinear", align_corners=False)[:, 0]

    def noted(*given: Any, **named: Any) -> torch.Tensor:
        sizes.append((found := resize(*given, **named)).numel())
        return found

    monkeypatch.setattr(torch.nn.functional, "interpolate", noted)
    assert torch.equal(model.decide(logits, (50, 30)), planes.max(dim=0).indices.to(torch.uint8))
    assert max(sizes) == 50 * 30


def test_the_bands_of_one_image_are_held_at_a_time(tmp_path: Path) -> None:
    side, classes = 200, 40
    Image.fromarray(np.zeros((side, side, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.full((side, side), 3, dtype=np.uint8)).save(tmp_path / "mask.png")
    samples = [Sample(str(number), tmp_path / "image.png", tmp_path / "mask.png", "gate") for number in range(BATCH)]
    names = ("background", *(f"class {number}" for number in range(classes)))
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=names)
    tracemalloc.start()
    try:
        score_models({"challenger": SilentModel(card)}, samples, {0: 0, 3: 3}, metric="boundary_iou")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BATCH * classes * side * side / 2
