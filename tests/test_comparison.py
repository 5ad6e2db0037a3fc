"""The page that compares trials: one file that needs nothing else, safe whatever the trials are called."""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from conftest import TINY
from mlflow.entities import Metric

from ratchet.comparison import ComparedTrial, Comparison, draw_page, gather
from ratchet.comparison.drawing import Scale, fitted, short, spread
from ratchet.config import compose_space
from ratchet.page_parts import figure
from ratchet.registry.ranking import INFINITE, as_logged
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.training.board import Board
from ratchet.training.examples import Example
from ratchet.training.parent import PAGE, SweepRun
from ratchet.training.plan import plan_sweep
from ratchet.training.results import Status, SweepOutcome, TrialResult
from ratchet.training.run import last_values, validations


def trial(rank: int, *, status: Status = "finished", name: str | None = None, epochs: int = 5) -> ComparedTrial:
    value = 0.9 - rank / 100
    result = TrialResult(
        name=name or f"trial {rank}",
        fingerprint=str(rank),
        status=status,
        run_id=f"{rank:032x}",
        metrics={"val_iou": value, "test_iou": value} if status == "finished" else {},
        seconds=60,
        note="too bad" if status == "pruned" else None,
        point={"backbone.model.arch": "unet" if rank % 2 else "fpn", "optimizer.lr": repr(0.001 * (rank + 1))},
    )
    curve = tuple((float(epoch), value * epoch / epochs) for epoch in range(1, epochs + 1))
    return ComparedTrial(result=result, value=value, curves={"val_iou": curve, "val_loss_epoch": curve})


def comparison(trials: list[ComparedTrial], *, logarithmic: tuple[str, ...] = ()) -> Comparison:
    return Comparison(
        title=f"{len(trials)} trials",
        experiment="tests",
        metric="val_iou",
        mode="max",
        trials=tuple(trials),
        logarithmic=logarithmic,
    )


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, value or "") for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "iframe", "object")


@pytest.mark.parametrize("count", [1, 2, 12, 128])
def test_the_page_is_one_small_file_that_loads_nothing(count: int) -> None:
    page = draw_page(comparison([trial(rank) for rank in range(count)], logarithmic=("optimizer.lr",)))
    addresses = _Addresses()
    addresses.feed(page)
    assert all(address.startswith("data:") for tag, address in addresses.found if tag != "a")
    assert "@import" not in page
    assert "url(" not in page
    assert len(page) < 1_000_000
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 3  # the metric, the loss, what varies
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing
    assert all(f"trial {rank}" in page for rank in range(count))


def test_a_name_or_an_error_is_never_read_as_markup() -> None:
    evil = "<script>alert('x')</script>&amp;\"'"
    page = draw_page(comparison([trial(0, name=evil), trial(1, name=evil, status="pruned")]))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(drawing)


def test_a_pruned_trial_has_its_last_value_and_a_cross_where_it_ended() -> None:
    page = draw_page(comparison([trial(0), trial(1, status="pruned", epochs=2)]))
    assert "A cross is where a trial was stopped" in page
    assert "too bad" in page
    assert page.count('class="end"') == 2  # in both curves
    assert '<td class="n last">0.8900' in page


def test_numbers_that_were_drawn_are_rounded_on_their_axis() -> None:
    drawn = [trial(0), trial(1)]
    rates = ["0.0029106359131330704", "0.00021742528410889162"]
    drawn = [
        t.model_copy(update={"result": t.result.model_copy(update={"point": {"optimizer.lr": rate}})})
        for t, rate in zip(drawn, rates, strict=True)
    ]
    even, logarithmic = (draw_page(comparison(drawn, logarithmic=keys)) for keys in ((), ("optimizer.lr",)))
    assert ">0.002911<" in even
    assert ">0.001<" in logarithmic
    assert not any(rate in page for rate in rates for page in (even, logarithmic))


def test_a_run_opens_beside_the_page_and_it_is_said_where_it_does_not() -> None:
    linked = trial(0).model_copy(update={"address": "http://mlflow/#/runs/1"})
    page = draw_page(comparison([linked, trial(1)]))
    assert '<a href="http://mlflow/#/runs/1" target=_blank rel=noopener>' in page
    assert "opens no links" in page
    assert "opens no links" not in draw_page(comparison([trial(0), trial(1)]))


def test_the_coloured_trials_have_the_numbers_of_the_table_at_their_lines() -> None:
    page = draw_page(comparison([trial(rank) for rank in range(8)]))
    assert "</i>8<td class=name>trial 7" in page
    assert ">6 trial 5</text>" in page
    assert ">7 trial 6</text>" not in page
    varied = page.split("What made the difference")[1]
    assert re.findall(r'class="name halo"[^>]*>(\d+)</text>', varied) == list("123456")


def test_the_best_lies_above_the_others_where_lines_cross() -> None:
    for drawing in re.findall(r"<svg.*?</svg>", draw_page(comparison([trial(rank) for rank in range(3)])), re.S):
        ranks = re.findall(r'data-t="(\d)"[^>]*><title>[^<]*</title><path class="line"', drawing)
        assert ranks == ["2", "1", "0"]


def test_every_value_has_room_for_its_name() -> None:
    encoders = [f"timm-encoder-{rank:02}" for rank in range(30)]
    trials = [
        one.model_copy(update={"result": one.result.model_copy(update={"point": {"backbone.encoder": encoder}})})
        for one, encoder in zip(map(trial, range(30)), encoders, strict=True)
    ]
    drawing = re.findall(r"<svg.*?</svg>", draw_page(comparison(trials)), re.S)[-1]
    labels = re.findall(r'x="([\d.]+)" y="([\d.]+)" text-anchor="end">timm', drawing)
    heights = sorted(float(y) for _, y in labels)
    assert len(heights) == 30
    assert all(after - before > 13 for before, after in itertools.pairwise(heights))
    assert all(float(x) > 7 * len(encoders[0]) for x, _ in labels)


def test_one_trial_that_diverged_does_not_make_the_others_one_line() -> None:
    diverged = trial(2).model_copy(update={"value": 3e5, "curves": {"val_iou": ((1.0, 3e5),)}})
    page = draw_page(comparison([trial(0), trial(1), diverged]))
    assert page.count(">10</text>") == 2  # among the curves, and at the axis of what came out
    assert fitted([0.2, 0.3, 0.4, 3e5], 100, 0).log
    assert not fitted([0.0, 0.3, 0.4, 3e5], 100, 0).log
    assert not fitted([0.2, 0.3, 0.9], 100, 0).log


def test_names_that_differ_at_their_ends_still_do_where_they_are_cut() -> None:
    rates = ("0.00291", "0.00292")
    cut = [short(f"unet timm-efficientnet-b3 batch_size=16 lr={rate}") for rate in rates]
    for name, rate in zip(cut, rates, strict=True):
        assert name.startswith("unet timm-…")
        assert name.endswith(f" lr={rate}")
        assert len(name) == 34


def test_a_sweep_without_any_value_still_has_its_page() -> None:
    failed = ComparedTrial(
        result=TrialResult(name="a", fingerprint="1", status="failed", error="no memory"), value=None
    )
    page = draw_page(comparison([failed]))
    assert "No trial finished" in page
    assert "no memory" in page
    assert "<svg" not in page


def test_trials_that_finished_without_a_number_are_not_said_not_to_have_finished() -> None:
    diverged = TrialResult(name="a", fingerprint="1", status="finished", metrics={"val_iou": math.nan})
    page = draw_page(comparison([trial(0, status="pruned"), ComparedTrial(result=diverged, value=None)]))
    assert "No finished trial has a finite val_iou." in page
    assert "No trial finished" not in page


def logged(status: Status, values: dict[str, list[tuple[int, float]]]) -> TrialResult:
    """A trial whose run holds these values, each with its step; a reused one's metrics are what the run has last."""
    run_id = client().create_run(ensure_experiment("tests")).info.run_id
    client().log_batch(run_id, [Metric(key, value, 0, step) for key, rows in values.items() for step, value in rows])
    metrics = last_values(client().get_run(run_id)) if status == "reused" else {}
    return TrialResult(name=status, fingerprint=run_id, status=status, run_id=run_id, metrics=metrics)


def gathered(*results: TrialResult, metric: str = "val_iou") -> Comparison:
    outcome = SweepOutcome(trials=results, metric=metric, mode="max")
    return gather(outcome, title="tests", experiment="tests", experiment_id=ensure_experiment("tests"))


@pytest.mark.usefixtures("home")
def test_an_infinite_loss_is_infinite_again_and_is_not_drawn() -> None:
    losses = [(8, 0.7), (17, math.inf), (26, 0.5), (27, math.inf)]
    trial = logged("reused", {"loss_epoch": losses[:3], "val_loss_epoch": losses, "val_iou": losses})
    comparison = gathered(trial, metric="val_loss_epoch")
    assert trial.metrics["val_loss_epoch"] == math.inf
    assert comparison.trials[0].value is None
    assert validations(str(trial.run_id), "val_loss_epoch") == [value for _, value in losses]
    page = draw_page(comparison)
    assert "<td class=n>inf<" in page
    assert "0000000000" not in page
    assert math.isinf(as_logged(-INFINITE))
    assert as_logged(1e300) == 1e300


@pytest.mark.usefixtures("home")
def test_curves_are_drawn_at_the_epochs_of_their_values() -> None:
    losses = [(8, 0.7), (17, 0.6), (26, 0.5), (35, 0.4), (44, 0.3)]
    every_second = logged("reused", {"loss_epoch": losses, "val_iou": [(17, 0.1), (35, 0.2), (45, 0.2)]})
    half_way = logged("pruned", {"loss_epoch": losses[:2], "val_iou": [(4, 0.1), (8, 0.3)]})
    begun = logged("failed", {"val_iou": [(8, 0.05)]})  # killed before the epoch's loss was logged
    comparison = gathered(begun, half_way, every_second)
    assert [trial.result.status for trial in comparison.trials] == ["reused", "pruned", "failed"]
    found = [trial.curves["val_iou"] for trial in comparison.trials]
    assert found == [((2, 0.1), (4, 0.2)), ((5 / 9, 0.1), (1, 0.3)), ((1, 0.05),)]
    assert [epoch for epoch, _ in comparison.trials[0].curves["loss_epoch"]] == [1, 2, 3, 4, 5]
    assert "reused, epoch 4: val_iou 0.2" in draw_page(comparison)


@pytest.mark.usefixtures("home")
def test_a_metric_of_the_exported_weights_alone_has_no_curve() -> None:
    trial = logged("reused", {"loss_epoch": [(8, 0.7), (17, 0.6)], "test_iou": [(18, 0.4)]})
    page = draw_page(gathered(trial, metric="test_iou"))
    assert "test_iou by epoch" not in page
    assert "loss_epoch by epoch" in page
    assert "<td class=n>0.4000" in page


def test_the_best_are_seen_side_by_side_on_the_same_images() -> None:
    def seen(names: str, by: str) -> tuple[Example, ...]:
        return tuple(
            Example(
                name=name,
                iou=0.5,
                image="data:i",
                truth="data:t",
                prediction=f"data:{by}-{name}",
                classes=("rust", "<crack>") if by == "1" else (),  # an older Ratchet named none
            )
            for name in names
        )

    trials = [
        trial(rank).model_copy(update={"examples": seen(names, str(rank))})
        for rank, names in enumerate(("ab", "b", ""))
    ]
    section = draw_page(comparison(trials)).split("What the best ones see")[1]
    head, *rows = re.findall(r"<tr>(.*?)</tr>", section, re.S)
    assert "trial 0" in head
    assert "trial 1" in head
    assert "trial 2" not in head
    assert "2 trial 1, val_iou <b>0.8900</b>" in head
    assert '<i style="background:rgb(86, 180, 233)"></i>&lt;crack&gt;' in section
    pictures = [re.findall(r'src="data:([^"]+)"', row) for row in rows]
    assert pictures == [["i", "t", "0-a"], ["i", "t", "0-b", "1-b"]]
    assert "What the best ones see" not in draw_page(comparison([trial(0)]))


@pytest.mark.parametrize(("low", "high", "log"), [(0, 1, False), (-3, 4e5, False), (1e-4, 1e-2, True), (2, 3, True)])
def test_an_axis_has_a_few_round_ticks_between_its_ends(low: float, high: float, log: bool) -> None:
    scale = Scale(low, high, 100, 0, log=log)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(low <= tick <= high and 0 <= scale(tick) <= 100 for tick in ticks)


@pytest.mark.parametrize("ends", [(0.98765, 0.98769), (-1e-7, 2e-7), (1234567, 1234569)])
def test_the_ticks_of_a_tight_range_can_be_told_apart(ends: tuple[float, float]) -> None:
    labels = [words for _, words in Scale(*ends, 100, 0).labels()]
    assert len(set(labels)) == len(labels) > 2


def test_the_ticks_of_many_powers_of_ten_have_room() -> None:
    assert 2 < len(Scale(1e-7, 3e30, 100, 0, log=True).labels()) <= 10


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (0.91234, "0.9123"),
        (-12.5, "-12.5000"),
        (0.0000234567, "2.346e-05"),
        (1234567.0, "1.235e+06"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_a_value_keeps_its_digits_however_small_and_gets_no_more_than_it_has(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_labels_keep_their_distance_and_their_order() -> None:
    found = spread([50.0, 51.0, 10.0, 99.0, 98.0], 10.0, 100.0)
    assert found.index(min(found)) == 2
    ordered = sorted(found)
    assert all(after - before >= 9.999 for before, after in itertools.pairwise(ordered))
    assert max(found) <= 100.0


@pytest.mark.usefixtures("stored_home")
def test_a_page_that_could_not_be_written_is_none_and_those_of_long_ago_go(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_sweep(compose_space([*TINY, "optimizer.lr=0.1,0.2"]))
    outcome = Board(plan, lambda _: None).outcome(None, begun=0)
    folder = plan.config.core.home / "sweeps"
    for name, page in (("old", PAGE), ("own", "notes.txt")):
        (folder / name).mkdir(parents=True)
        (folder / name / page).touch()
        os.utime(folder / name / page, (time.time() - 100 * 86400,) * 2)
    with SweepRun.of(plan, {}) as sweep_run:
        with monkeypatch.context() as patch:
            patch.setattr("ratchet.training.parent.draw_page", lambda _: "half\udcff")  # cannot be encoded
            assert sweep_run._write_page(outcome) is None
        assert not list(folder.glob(f"{plan.digest}/*"))
        page = sweep_run._write_page(outcome)
    assert page is not None
    assert page.is_file()
    assert sorted(path.name for path in folder.iterdir()) == sorted([plan.digest, "own"])
