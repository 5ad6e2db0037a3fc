"""When production counts as worse: false alarms are as rare as promised, real losses are seen, and doubt is said."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import yaml
from exported_models import BEST, SIZE, Brightness, data_module, discs, export

from ratchet import MlflowModelManager
from ratchet.data.seen import SeenImages
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Policy, load_policy
from ratchet.judgement.judging import judge_version
from ratchet.monitoring.images import choose_images
from ratchet.monitoring.reading import judge_reading, take_reading
from ratchet.monitoring.values import MonitorSettings, Reading
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client

POLICY = Policy(resamples=1000)
PIXELS = 400


def counts(quality: list[tuple[int, float]], seed: int) -> ImageCounts:
    """Counts of images in groups: how many, and the share of each object's pixels that is hit, give or take."""
    random = np.random.default_rng(seed)
    share = np.concatenate([np.clip(random.normal(mean, 0.12, size), 0, 1) for size, mean in quality])
    truth = random.integers(PIXELS // 2, PIXELS * 2, len(share))
    tp = (share * truth).astype(np.int64)[:, None]
    missed = truth[:, None] - tp
    names = tuple(f"image-{index}" for index in range(len(share)))
    return ImageCounts(names, ("disc",), tp, missed // 2, missed)


def read(quality: list[tuple[int, float]], seed: int = 0, **settings: float) -> Reading:
    found = counts(quality, seed)
    fresh = np.arange(len(found.names)) < quality[0][0]
    return judge_reading(
        found, fresh, POLICY, MonitorSettings.model_validate(settings), model="m", version=3, data="abc"
    )


@pytest.mark.slow
def test_production_that_is_as_good_as_ever_is_seldom_called_worse() -> None:
    for fresh, reference in ((40, 200), (200, 40), (25, 25)):
        alarms = sum(
            read([(fresh, 0.7), (reference, 0.7)], seed, margin=0.0).state == "degraded" for seed in range(200)
        )
        assert alarms <= 20, (fresh, reference)  # 10 are expected at 95 %; more than 20 has a chance of 0.1 %


@pytest.mark.slow
def test_a_loss_of_twice_the_margin_is_seen() -> None:
    seen = sum(read([(60, 0.6), (200, 0.75)], seed, margin=0.05).state == "degraded" for seed in range(50))
    assert seen >= 45


def read_groups(seed: int, size: int = 20, groups: tuple[int, int] = (12, 25), **settings: float) -> Reading:
    """Images in groups that are all alike: whole groups are easy or hard, and none got worse."""
    random = np.random.default_rng(seed)
    quality = [(size, mean) for mean in random.normal(0.7, 0.1, sum(groups))]
    found = counts(quality, seed)
    fresh = np.arange(len(found.names)) < groups[0] * size
    columns = {"site": {name: f"site {index // size}" for index, name in enumerate(found.names)}}
    return judge_reading(
        found,
        fresh,
        Policy(resamples=1000, group_by="site"),
        MonitorSettings.model_validate(settings),
        model="m",
        version=3,
        data="abc",
        metadata=columns,
    )


@pytest.mark.slow
def test_where_images_come_in_groups_false_alarms_are_as_rare() -> None:
    alarms = sum(read_groups(seed, margin=0.0, min_images=12).state == "degraded" for seed in range(100))
    assert alarms <= 12  # 5 are expected; more than 12 has a chance of 0.1 %


def test_few_groups_conclude_nothing_however_many_images_they_have() -> None:
    reading = read_groups(0, groups=(10, 25))
    assert (reading.state, reading.images) == ("undecided", 200)
    assert "these are 10 groups by 'site', and 20 new groups are needed" in reading.sentence


def test_images_without_a_group_conclude_nothing() -> None:
    policy, found = POLICY.model_copy(update={"group_by": "site"}), counts([(50, 0.1), (100, 0.7)], seed=0)
    fresh = np.arange(150) < 50
    reading = judge_reading(found, fresh, policy, MonitorSettings(), model="m", version=3, data="abc")
    assert reading.state == "undecided"
    assert "no column 'site'" in reading.sentence


def test_a_loss_within_the_margin_is_healthy_and_the_sentence_tells_the_figures() -> None:
    reading = read([(100, 0.68), (200, 0.7)], margin=0.1)
    assert reading.state == "healthy"
    assert reading.change is not None
    assert reading.low is not None
    assert reading.high is not None
    assert reading.low < reading.change < reading.high
    assert "v3 of m: healthy: IoU 0." in reading.sentence
    assert "on 100 new images" in reading.sentence


def test_a_loss_beyond_the_margin_that_is_not_proven_is_undecided_and_not_healthy() -> None:
    readings = [read([(20, 0.65), (200, 0.75)], seed, margin=0.05) for seed in range(40)]
    for reading in readings:
        assert reading.low is not None
        assert reading.state != "healthy" or reading.low >= -0.05
    undecided = [reading for reading in readings if reading.state == "undecided"]
    assert undecided
    assert all("more images would tell" in reading.sentence for reading in undecided)


def test_few_new_images_conclude_nothing() -> None:
    reading = read([(10, 0.1), (200, 0.7)])
    assert reading.state == "undecided"
    assert "20 new images are needed" in reading.sentence


def test_no_new_image_is_no_reading_to_worry_about() -> None:
    reading = read([(0, 0.1), (200, 0.7)])
    assert (reading.state, reading.score, reading.images) == ("undecided", None, 0)
    assert "no labelled image came since its training" in reading.sentence


@pytest.mark.parametrize("false_positives", [0, 30])
def test_a_class_that_no_new_image_holds_leaves_it_undecided(false_positives: int) -> None:
    found = counts([(50, 0.7), (100, 0.7)], seed=0)
    old = (np.arange(150) >= 50)[:, None]
    both = ImageCounts(
        found.names,
        ("disc", "polygon"),
        np.hstack([found.tp, np.where(old, found.tp, 0)]),
        np.hstack([found.fp, np.where(old, found.fp, false_positives)]),
        np.hstack([found.fn, np.where(old, found.fn, 0)]),
    )
    reading = judge_reading(both, ~old[:, 0], POLICY, MonitorSettings(), model="m", version=3, data="abc")
    assert reading.state == "undecided"
    assert "lack a class" in reading.sentence
    assert set(reading.class_scores) == {"disc"}


def grown(root: Path, months: int = 2) -> frozenset[str]:
    """Twelve images a month, four of them for every split. The digests of the first month's for training."""
    discs(root, range(12 * months))
    for split, first in (("train", 0), ("val", 4), ("test", 8)):
        numbers = [12 * month + first + index for month in range(months) for index in range(4)]
        (root / f"{split}.txt").write_text("".join(f"disc{number:03}\n" for number in numbers))
    return frozenset(sha256((root / "images" / f"disc{n:03}.png").read_bytes()).hexdigest() for n in range(8))


def test_gate_images_that_came_after_the_promotion_are_new_and_no_reference(tmp_path: Path) -> None:
    seen = grown(tmp_path)
    judged = {f"disc{number:03}" for number in range(8, 12)}
    chosen = choose_images(data_module(tmp_path), seen=seen, judged=dict.fromkeys(judged | {"gone"}))
    assert {sample.name for sample in chosen.reference} == judged
    assert {sample.name for sample in chosen.fresh} == {f"disc{number:03}" for number in range(12, 24)}
    assert chosen.as_promoted


def test_gate_images_that_were_given_to_training_later_are_the_reference_still(tmp_path: Path) -> None:
    seen = grown(tmp_path)
    judged = {f"disc{number:03}" for number in range(8, 12)}
    lists = {split: (tmp_path / f"{split}.txt").read_text().split() for split in ("train", "test")}
    renewed = [name for name in lists["test"] if name not in judged]
    (tmp_path / "train.txt").write_text("\n".join([*lists["train"], *sorted(judged)]))
    (tmp_path / "test.txt").write_text("\n".join(renewed))
    chosen = choose_images(data_module(tmp_path), seen=seen, judged=dict.fromkeys(judged))
    assert {sample.name for sample in chosen.reference} == judged
    assert {sample.name for sample in chosen.fresh} == {f"disc{number:03}" for number in range(12, 24)}
    assert chosen.as_promoted


def test_where_files_were_renumbered_no_image_that_it_was_trained_on_is_the_reference(tmp_path: Path) -> None:
    seen, judged = grown(tmp_path, months=1), {f"disc{number:03}" for number in range(8, 12)}
    for folder in ("images", "masks"):
        trained, gate = (tmp_path / folder / f"disc{number:03}.png" for number in (0, 8))
        trained.rename(tmp_path / "spare.png")
        gate.rename(trained)
        (tmp_path / "spare.png").rename(gate)
    chosen = choose_images(data_module(tmp_path), seen=seen, judged=dict.fromkeys(judged))
    assert {sample.name for sample in chosen.reference} == judged - {"disc008"}
    assert [sample.name for sample in chosen.fresh] == ["disc000"]
    assert chosen.as_promoted
    chosen = choose_images(data_module(tmp_path), seen=seen, judged={"disc008": None})
    assert {sample.name for sample in chosen.reference} == judged - {"disc008"}
    assert not chosen.as_promoted
    data = data_module(tmp_path)
    every = frozenset(digest for split in data.samples for digest in data.image_digests(split).values())
    assert choose_images(data, seen=every, judged=dict.fromkeys(judged)).reference == ()
    found = counts([(50, 0.7)], seed=0)
    reading = judge_reading(
        found, np.full(50, True), POLICY, MonitorSettings(), model="m", version=3, data="abc", as_promoted=False
    )
    assert (
        reading.sentence
        == "v3 of m: undecided: it was trained on every image of the gate, so there is nothing to compare with"
    )


def test_new_images_under_the_names_of_the_gate_are_new_and_no_reference(tmp_path: Path) -> None:
    seen = grown(tmp_path, months=1)
    judged = data_module(tmp_path).image_digests("test")
    discs(tmp_path, range(108, 112), prefix="new")
    for folder in ("images", "masks"):
        for number in (8, 9, 10):  # one of four stays
            (tmp_path / folder / f"new{100 + number}.png").rename(tmp_path / folder / f"disc{number:03}.png")
        (tmp_path / folder / "disc011.png").rename(tmp_path / folder / "kept.png")
        (tmp_path / folder / "new111.png").rename(tmp_path / folder / "disc011.png")
    (tmp_path / "val.txt").write_text((tmp_path / "val.txt").read_text() + "kept\n")
    chosen = choose_images(data_module(tmp_path), seen=seen, judged=judged)
    assert [sample.name for sample in chosen.reference] == ["kept"]  # under another name, in another split
    assert {sample.name for sample in chosen.fresh} == set(judged)
    chosen = choose_images(data_module(tmp_path), seen=seen, judged=judged, least=2)
    assert (chosen.as_promoted, {sample.name for sample in chosen.reference}) == (False, set(judged))


@pytest.mark.parametrize("judged", [None, {"elsewhere": None}, {"elsewhere": "a digest"}])
def test_without_a_record_todays_gate_set_is_the_reference_and_the_reading_says_so(
    tmp_path: Path, judged: dict[str, str | None] | None
) -> None:
    chosen = choose_images(data_module(tmp_path), seen=grown(tmp_path), judged=judged)
    assert len(chosen.reference) == 8
    assert {sample.split for sample in chosen.fresh} == {"train", "val"}
    assert not chosen.as_promoted
    found = counts([(50, 0.7), (100, 0.7)], seed=0)
    reading = judge_reading(
        found, np.arange(150) < 50, POLICY, MonitorSettings(), model="m", version=3, data="abc", as_promoted=False
    )
    assert "is not recorded, or too few of them are left" in reading.sentence


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_champion_is_read_on_all_that_came_and_on_the_gate_images_of_its_promotion(tmp_path: Path) -> None:
    root, store, manager = tmp_path / "discs", client(), MlflowModelManager()
    seen = grown(root, months=1)
    node = {"_target_": "ratchet.data.FolderDataModule", "data_path": str(root), "idx_to_class": {1: "disc"}}
    node |= {"input_height": SIZE, "input_width": SIZE, "mean": [0.0] * 3, "std": [1.0] * 3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"datamodule": node, "gate": "permissive"}))
    model = export(tmp_path / "model", Brightness(BEST), seen=SeenImages(train=seen, val=frozenset()))
    first, _ = runs = [store.create_run(ensure_experiment("m")).info for _ in range(2)]
    for run in runs:
        store.log_artifact(run.run_id, str(tmp_path / "config.yaml"))
        store.log_artifacts(run.run_id, str(model), "deployment_model")
        manager.register_model(f"runs:/{run.run_id}/deployment_model", "m")
    judge_version(
        "m", 1, data=data_module(root), policy=load_policy({"resamples": 1000, "metric": "dice"}), manager=manager
    )
    manager.promote("m", 1)

    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    grown(moved, months=3)
    before = take_reading("m", MonitorSettings(min_images=12), manager=manager)
    assert before is not None
    assert before.images == 0
    there = take_reading("m", MonitorSettings(min_images=12), manager=manager, data_path=moved)
    assert there is not None
    grown(root, months=3)
    reading = take_reading("m", MonitorSettings(min_images=12), manager=manager)
    assert reading is not None
    assert (reading.images, reading.reference_images, reading.as_promoted) == (24, 4, True)
    told: list[tuple[int, int]] = []
    again = take_reading("m", MonitorSettings(min_images=12), manager=manager, on_image=lambda *done: told.append(done))
    assert again == reading
    assert told == []  # nothing is scored twice
    assert reading.metric == "dice"  # of the policy that promoted it, not of that which it was trained under

    shutil.rmtree(str(first.artifact_uri).removeprefix("file://"))  # as `mlflow gc` does
    reading = take_reading("m", MonitorSettings(min_images=12), manager=manager)
    assert reading is not None
    assert (reading.version, reading.reference_images, reading.as_promoted) == (1, 12, False)
