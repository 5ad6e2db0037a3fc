"""The pictures of a trial: the classes may have any name and be any number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.entities import Metric
from numpy.typing import NDArray
from PIL import Image

from ratchet.data.dataset import SegmentationDataset
from ratchet.data.samples import InputFormat, Sample
from ratchet.evaluation.counts import ImageCounts
from ratchet.evaluation.packed import PackedMasks
from ratchet.evaluation.pictures import drawable, palette
from ratchet.training.examples import EXAMPLES_FILE, read_examples
from ratchet.training.report import write_report


def report_on(classes: tuple[str, ...], tmp_path: Path) -> None:
    """Write the report on one image, all of the first class."""
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    Image.new("L", (32, 32), 1).save(tmp_path / "mask.png")
    form = InputFormat(32, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    sample = Sample("image", tmp_path / "image.png", tmp_path / "mask.png", "test")
    dataset = SegmentationDataset([sample], mask_values={1: 1}, input_format=form)
    masks = PackedMasks()
    masks.add(torch.tensor([0]), torch.ones((1, 32, 32), dtype=torch.uint8))
    tp = np.full((1, len(classes)), 100)
    counts = ImageCounts(("image",), classes, tp, tp // 4, tp // 4)
    history = [Metric(key, 0.5, 0, 8) for key in ("loss_epoch", "val_loss_epoch", "val_iou", "val_dice")]
    write_report(tmp_path, dataset=dataset, counts=counts, masks=masks, mean=form.mean, std=form.std, history=history)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_every_class_has_its_own_colour_and_its_name_as_it_is_written(tmp_path: Path) -> None:
    classes = ("rust_$_and_$\\mold", *(f"class {number}" for number in range(9)))
    report_on(classes, tmp_path)
    for picture in ("per_class_iou.png", "predictions.png"):
        drawn = np.unique(pixels(tmp_path / picture).reshape(-1, 3), axis=0).tolist()
        assert {*map(tuple, drawn)} >= {*palette(len(classes))}
    assert read_examples(tmp_path / EXAMPLES_FILE)[0].classes == classes


@pytest.mark.filterwarnings("error:Glyph")
def test_a_class_may_have_a_long_name_and_letters_that_the_font_lacks(tmp_path: Path) -> None:
    report_on(("划痕" * 20, "dent"), tmp_path)
    bar = (pixels(tmp_path / "per_class_iou.png") == palette(1)[0]).all(axis=2).any(axis=0)
    assert bar.sum() > 200


def test_text_is_drawn_in_the_letters_of_the_font_and_cut_to_a_length() -> None:
    assert drawable("Größe_µ$…") == "Größe_µ$…"
    assert drawable("dent 划") == "dent \\u5212"
    assert drawable("x" * 60) == "x" * 39 + "…"
    assert drawable("x" * 60, most=None) == "x" * 60


def test_examples_that_name_no_classes_are_read(tmp_path: Path) -> None:
    old = {"name": "a", "iou": 0.5, "image": "data:i", "truth": "data:t", "prediction": "data:p"}
    (tmp_path / EXAMPLES_FILE).write_text(json.dumps([old]))
    assert [example.classes for example in read_examples(tmp_path / EXAMPLES_FILE)] == [()]
