"""The page of a judgement: which gate images it shows, in what colours, and that it never grows too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance_cases import given
from exported_models import BEST, Brightness, export
from PIL import Image

from ratchet.data import Sample
from ratchet.evaluation.pictures import palette
from ratchet.evaluation.scoring import score_models
from ratchet.evaluation.served import ModelCard, ServedModel, SilentModel
from ratchet.gate import judge
from ratchet.judgement import page
from ratchet.judgement.page import SHOWN, extremes, write_page


def test_the_images_that_changed_most_come_first_and_those_that_did_not_are_left_out() -> None:
    champion = np.full(40, 0.5)
    challenger = champion.copy()
    challenger[[3, 7, 11]] = 0.1, 0.3, 0.2
    challenger[20:35] = np.linspace(0.6, 0.9, 15)
    worsened, improved = extremes(challenger, champion)
    assert worsened == [3, 11, 7]
    assert improved == list(range(34, 34 - SHOWN, -1))


@pytest.mark.parametrize("images", [1, 2, 5, 100])
def test_a_first_model_shows_its_worst_and_its_best_and_no_image_twice(images: int) -> None:
    scores = np.random.default_rng(0).random(images)
    worst, best = extremes(scores, None)
    shown = [*worst, *best]
    assert len(set(shown)) == len(shown) == min(images, 2 * SHOWN)
    assert worst[0] == scores.argmin()
    assert images == 1 or best[0] == scores.argmax()


def test_every_class_has_a_colour_of_its_own() -> None:
    assert len(set(palette(30))) == 30
    assert palette(2) == palette(30)[:2]


@pytest.mark.slow
def test_the_page_stays_small_with_pictures_that_compress_badly(tmp_path: Path) -> None:
    random, samples = np.random.default_rng(0), []
    mask = np.zeros((400, 600), dtype=np.uint8)
    mask[100:300, 100:300] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for number in range(24):
        path = tmp_path / f"{number}.png"
        noise = random.integers(0, 120, (400, 600, 3)) + 100 * mask[:, :, None]
        Image.fromarray(noise.astype(np.uint8)).save(path, compress_level=1)
        samples.append(Sample(str(number), path, tmp_path / "mask.png", "gate"))
    thresholds = {"champion": BEST - 0.05, "challenger": BEST}
    models = {role: ServedModel(export(tmp_path / role, Brightness(value))) for role, value in thresholds.items()}
    counts = score_models(models, samples, {0: 0, 1: 1})
    verdict = judge(**given(counts["challenger"], counts["champion"], {"floor": None}))
    write_page(tmp_path / "report.html", verdict, models, samples, {0: 0, 1: 1}, counts)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<figure>") >= 4 * SHOWN
    assert 500_000 < len(html.encode()) < 3_000_000


def test_the_pictures_that_wait_for_the_page_are_small_ones(tmp_path: Path) -> None:
    side, images = 600, 2 * SHOWN
    Image.fromarray(np.full((side, side, 3), 90, dtype=np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.full((side, side), 1, dtype=np.uint8)).save(tmp_path / "mask.png")
    samples = [Sample(str(number), tmp_path / "image.png", tmp_path / "mask.png", "gate") for number in range(images)]
    card = ModelCard(
        input_height=32, input_width=32, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "foreground")
    )
    models = {"challenger": SilentModel(card)}
    strips = [page._strip(sample, models, {0: 0, 1: 1}) for sample in samples]
    shown = [picture for strip in strips for picture in strip.values()]
    assert len(shown) == 3 * images
    assert max(max(picture.size) for picture in shown) < side
