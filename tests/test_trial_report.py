"""The pictures of a trial: the classes may have any name and be any number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mlflow.entities import Metric
from PIL import Image

from ratchet.data.dataset import SegmentationDataset
from ratchet.data.samples import InputFormat, Sample
from ratchet.evaluation.counts import ImageCounts
from ratchet.evaluation.packed import PackedMasks
from ratchet.evaluation.pictures import palette
from ratchet.training.report import write_report


def test_every_class_has_its_own_colour_and_its_name_as_it_is_written(tmp_path: Path) -> None:
    classes = ("rust_$_and_$\\mold", *(f"class {number}" for number in range(9)))
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
    with Image.open(tmp_path / "per_class_iou.png") as picture:
        drawn = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=2**24) or []}
    assert drawn >= set(palette(len(classes)))
