"""Judging registered versions: what is measured for the rules beyond the scores, and how each of them fails closed."""

from __future__ import annotations

import errno
import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_models import BEST, Brightness, FiveChannels, Hanging, NotANumber, data_module, discs, export
from PIL import Image
from torch import Tensor, nn

from ratchet import MlflowModelManager
from ratchet.data import FolderDataModule
from ratchet.data.seen import SeenImages
from ratchet.errors import GateError, ModelFilesError, NothingToRollBackError, RegistryError, UnreadableImageError
from ratchet.evaluation.counts import ImageCounts
from ratchet.evaluation.served import ServedModel
from ratchet.gate import Verdict, load_policy
from ratchet.gate.record import replay
from ratchet.judgement.cache import CountsCache
from ratchet.judgement.configuration import gate_data
from ratchet.judgement.judging import OnImage, judge_version
from ratchet.judgement.records import fetch_record, last_verdict
from ratchet.judgement.scorer import Scorer
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import SELECTED_TAG

pytestmark = pytest.mark.slow

GOOD, FAIR, POOR = BEST, BEST - 0.05, BEST - 0.08
"""Thresholds of models of which each is clearly worse than the one before."""

BETTER = {"floor": 0.2, "superiority": {"min_gain": 0.0, "confidence": 0.95}}
NOT_WORSE = {"floor": 0.2, "superiority": None, "non_inferiority": {"margin": 0.5, "overall": True, "classes": False}}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with 40 gate images."""
    root = tmp_path_factory.mktemp("discs")
    discs(root, range(50))
    for split, numbers in (("train", range(6)), ("val", range(6, 10)), ("test", range(10, 50))):
        (root / f"{split}.txt").write_text("".join(f"disc{number:03}\n" for number in numbers))
    return root


class Registry:
    """A registered model, its versions exported into a folder, judged on a data set."""

    def __init__(self, name: str, folder: Path, images: Path) -> None:
        self.name, self.folder, self.data = name, folder, data_module(images)
        self.manager = MlflowModelManager()

    def add(self, module: nn.Module | float, stage: str | None = None, **options: Any) -> int:
        """Export and register a model; `stage` puts it there whatever the gate would say."""
        module = Brightness(module) if isinstance(module, float) else module
        directory = export(self.folder / str(len(list(self.folder.iterdir()))), module, **options)
        version = self.manager.register_model(str(directory), self.name).version
        if stage is not None:
            self.manager.transition_model(self.name, version, stage)
        return version

    def judge(
        self, version: int, data: FolderDataModule | None = None, on_image: OnImage = None, **rules: Any
    ) -> Verdict:
        policy, data = load_policy({"resamples": 1_000, **rules}), data or self.data
        return judge_version(self.name, version, data=data, policy=policy, manager=self.manager, on_image=on_image)


@pytest.fixture
def registry(request: pytest.FixtureRequest, home: Path, images: Path, tmp_path: Path) -> Registry:
    assert home.exists()
    (tmp_path / "models").mkdir()
    return Registry(f"m{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}", tmp_path / "models", images)


def failed(verdict: Verdict) -> dict[str, str]:
    """Why each rule and slice that failed did."""
    return {f"{check.rule} {check.slice}": check.why for check in verdict.checks if not check.passed}


# --- serves and budget -----------------------------------------------------------------------------------------------


def test_the_strict_policy_promotes_what_is_better_in_all_that_it_asks(registry: Registry) -> None:
    rules = load_policy("strict").model_dump() | {
        "non_inferiority": None,
        "budget": {"latency_ratio": 2.0, "memory_ratio": 1.2},
    }
    registry.add(POOR, "production")
    verdict = registry.judge(registry.add(GOOD), **rules | {"floor": 0.2})
    assert verdict.outcome == "promote", verdict.sentence
    assert {check.rule for check in verdict.checks} >= {"anchor", "leak", "serves", "budget"}
    assert verdict.context.anchor is not None
    assert verdict.context.anchor.version == 1
    assert verdict.evidence.serves is not None
    assert verdict.evidence.serves.isolation
    for cost in (verdict.evidence.challenger_cost, verdict.evidence.champion_cost):
        assert cost is not None
        assert len(cost.latency_ms) >= 20
        assert cost.memory_mb is not None
        assert cost.memory_mb > 50
        assert cost.size_mb is not None
        assert 0.001 < cost.size_mb < 1


def test_a_challenger_that_is_too_slow_and_too_large_for_its_budget_is_rejected(registry: Registry) -> None:
    registry.add(POOR, "production")
    heavy = registry.add(Brightness(GOOD, work=300, ballast=1_000_000))
    verdict = registry.judge(heavy, **BETTER, budget={"latency_ratio": 3.0, "size_ratio": 3.0})
    assert verdict.outcome == "reject"
    assert set(failed(verdict)) == {"budget latency_p95 ratio", "budget size ratio"}


def test_a_challenger_that_hangs_is_rejected_and_never_let_into_the_gates_own_process(registry: Registry) -> None:
    registry.add(POOR, "production")
    verdict = registry.judge(registry.add(Hanging()), **BETTER, serves={"time_limit": 6})
    assert verdict.outcome == "reject"
    assert "it did not load and answer within 6 s and was killed" in verdict.reason
    assert verdict.challenger_score == 0


def test_a_challenger_that_does_not_load_is_rejected(registry: Registry) -> None:
    directory = export(registry.folder / "broken", Brightness(GOOD))
    (directory / "model.pt").write_bytes(b"no archive")
    version = registry.manager.register_model(str(directory), registry.name).version
    verdict = registry.judge(version, floor=0.2, serves={})
    assert verdict.outcome == "reject"
    assert "does not load and answer: RuntimeError" in verdict.reason
    assert verdict.evidence.serves is not None
    assert verdict.evidence.serves.finite is None
    with pytest.raises(ModelFilesError, match="does not hold a model"):
        registry.judge(version, floor=0.2)  # nobody tried it


def test_why_a_challenger_did_not_answer_is_told_though_no_rule_asks_whether_it_serves(registry: Registry) -> None:
    directory = export(registry.folder / "broken", Brightness(GOOD))
    (directory / "model.pt").write_bytes(b"no archive")
    version = registry.manager.register_model(str(directory), registry.name).version
    tried = {"floor": 0.2, "serves": None, "budget": {"size_mb": 50}}
    # Where objects are small, a model that finds nothing has a fine pixel accuracy.
    for rules in (tried, tried | {"metric": "pixel_accuracy", "superiority": None, "non_inferiority": None}):
        verdict = registry.judge(version, **rules)
        assert verdict.outcome == "reject"
        why = failed(verdict)["serves answers"]
        assert "gave no usable answer when it was tried" in why
        assert "RuntimeError" in why


def test_a_challenger_that_answers_another_shape_is_rejected(registry: Registry) -> None:
    version = registry.add(FiveChannels())
    verdict = registry.judge(version, floor=0.2, serves={})
    assert verdict.outcome == "reject"
    assert "shape (1, 5, 32, 32), expected (1, 1, 32, 32)" in verdict.reason
    assert verdict.evidence.serves is not None
    assert verdict.evidence.serves.max_difference is None
    with pytest.raises(ModelFilesError, match="its card names 2 classes"):
        registry.judge(version, floor=0.2)


def test_a_challenger_that_answers_nan_is_rejected(registry: Registry) -> None:
    verdict = registry.judge(registry.add(NotANumber()), floor=0.0, serves={})
    assert verdict.outcome == "reject"
    assert {"serves finite", "serves agrees", "scored challenger"} <= set(failed(verdict))
    assert failed(verdict)["serves finite"] == "its output is not finite"


def test_a_champion_that_cannot_be_read_or_does_not_answer_promotes_nothing(registry: Registry) -> None:
    registry.add(Hanging(), "production")
    with pytest.raises(ModelFilesError, match="the champion does not serve"):
        registry.judge(registry.add(GOOD), **BETTER, budget={"size_mb": 50}, serves={"time_limit": 4})
    champion = registry.manager.champion(registry.name)
    assert champion is not None
    (Path(champion.location.removeprefix("file://")) / "model.pt").write_bytes(b"changed")
    with pytest.raises(ModelFilesError, match=r"changed: model\.pt"):
        registry.judge(2, **BETTER)


def test_a_champion_of_an_older_ratchet_still_scores_and_its_successor_still_serves(registry: Registry) -> None:
    registry.add(POOR, "production", older=True)
    rules = BETTER | {"serves": {}, "anchor": {}}
    assert registry.judge(registry.add(GOOD), **rules).passed
    assert "could not be compared" in failed(registry.judge(registry.add(FAIR, older=True), **rules))["serves agrees"]


def test_a_verdict_is_kept_though_its_pictures_cannot_be_drawn(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    discs(tmp_path / "short-lived", range(20))
    data = data_module(tmp_path / "short-lived")

    def lose_the_images(done: int, total: int) -> None:
        if done == total:
            shutil.rmtree(tmp_path / "short-lived" / "images")

    policy = load_policy({"floor": 0.2, "superiority": None})
    version = registry.add(GOOD)
    judge_version(registry.name, version, data=data, policy=policy, manager=registry.manager, on_image=lose_the_images)
    assert "has no pictures of gate images" in caplog.text
    record = fetch_record(last_verdict(registry.manager, registry.name, version), tmp_path / "record")
    assert replay(record).passed
    report = (record.parent / "report.html").read_text()
    assert "Checks" in report
    assert "<figure>" not in report


# --- leak ------------------------------------------------------------------------------------------------------------


def test_a_gate_image_in_the_training_data_under_another_name_is_found(registry: Registry, tmp_path: Path) -> None:
    discs(tmp_path / "other", range(40, 60), prefix="renamed")
    other = data_module(tmp_path / "other")
    seen = SeenImages(train=frozenset(other.image_digests("train").values()), val=frozenset())
    copies = sorted(name for name in other.image_digests("train") if name < "renamed050")
    assert copies
    verdict = registry.judge(registry.add(GOOD, seen=seen), floor=0.2, leak=True)
    assert verdict.outcome == "reject"
    assert f"trained or selected on {len(copies)} gate images, such as 'disc0{copies[0][-2:]}'" in verdict.reason


def test_a_gate_image_in_the_champions_training_data_or_in_what_it_inherited_is_found(registry: Registry) -> None:
    digests = sorted(registry.data.image_digests("test").values())
    none: frozenset[str] = frozenset()
    registry.add(
        POOR, "production", seen=SeenImages(train=none, val=frozenset(digests[:2]), inherited=frozenset(digests[3:4]))
    )
    verdict = registry.judge(registry.add(GOOD), **BETTER, leak=True)
    assert verdict.outcome == "reject"
    assert "champion was trained or selected on 3 gate images" in failed(verdict)["leak champion"]
    assert set(failed(verdict)) == {"leak champion"}


def test_training_data_that_nobody_recorded_never_passes(registry: Registry) -> None:
    registry.add(POOR, "production", older=True)
    verdict = registry.judge(registry.add(GOOD), **BETTER, leak=True)
    assert verdict.outcome == "reject"
    assert "not known" in failed(verdict)["leak champion"]
    assert (
        "not known" in failed(registry.judge(registry.add(FAIR, older=True), floor=0.2, leak=True))["leak challenger"]
    )


def test_training_records_the_images_of_both_its_splits_and_reading_tells_damage_from_absence(
    registry: Registry, tmp_path: Path
) -> None:
    seen = SeenImages(**{split: frozenset(registry.data.image_digests(split).values()) for split in ("train", "val")})
    path = registry.data.samples["val"][0].image
    assert hashlib.sha256(path.read_bytes()).hexdigest() in seen.val
    assert (len(seen.train), len(seen.val), len(seen.all)) == (6, 4, 10)
    assert SeenImages.read(tmp_path) is None
    seen.write(tmp_path)
    assert SeenImages.read(tmp_path) == seen
    (tmp_path / "seen_images.json").write_text("{")
    with pytest.raises(ModelFilesError, match="does not say"):
        SeenImages.read(tmp_path)


# --- anchor ----------------------------------------------------------------------------------------------------------


def test_small_losses_do_not_add_up_against_the_best_version_ever_in_production(registry: Registry) -> None:
    for threshold in (GOOD, FAIR):
        registry.add(threshold, "production")
    challenger = registry.add(POOR)
    assert registry.judge(challenger, **NOT_WORSE).passed
    verdict = registry.judge(challenger, **NOT_WORSE, anchor={"margin": 0.02})
    assert verdict.outcome == "reject"
    assert set(failed(verdict)) == {"anchor all"}
    assert verdict.context.anchor is not None
    assert verdict.context.anchor.version == 1
    planned = registry.manager.prune(registry.name, keep=0, rollbacks=1)
    assert planned.stays[1] == "a rollback may return to it"


def test_a_champion_that_is_deleted_leaves_the_best_before_it_to_compare_with(registry: Registry) -> None:
    first = registry.add(GOOD, "production")
    second = registry.add(FAIR, "production")
    registry.manager.delete_model(registry.name, second, force=True)
    poor = registry.add(POOR)
    with pytest.raises(GateError, match=rf"though v1 was in it.*ratchet promote {registry.name} 1\)"):
        registry.judge(poor, **NOT_WORSE)
    with pytest.raises(NothingToRollBackError, match=rf"ratchet promote {registry.name} 1 puts back"):
        registry.manager.rollback(registry.name)
    verdict = registry.judge(poor, **NOT_WORSE, anchor={"margin": 0.02})
    assert (verdict.outcome, set(failed(verdict))) == ("reject", {"anchor all"})
    assert verdict.context.anchor is not None
    assert verdict.context.anchor.version == first
    assert any("production is empty: v1" in note for note in verdict.notes)
    again = registry.judge(registry.add(GOOD + 0.001), **NOT_WORSE, anchor={"margin": 0.02})
    assert (again.outcome, "production is empty" in again.sentence) == ("promote", True)
    registry.manager.delete_model(registry.name, first, force=True)
    last = registry.judge(registry.add(POOR + 0.001), **NOT_WORSE, anchor={"margin": 0.02})
    assert "first model" in last.sentence


def test_a_champion_from_elsewhere_takes_part_once_it_says_how_images_are_given_to_it(registry: Registry) -> None:
    directory = export(registry.folder / "foreign", Brightness(POOR), older=True)
    card = (directory / "model.json").read_text()
    (directory / "model.json").unlink()

    def in_production() -> int:
        version = registry.manager.register_model(str(directory), registry.name).version
        registry.manager.transition_model(registry.name, version, "production")
        return version

    foreign = in_production()
    what = rf"the champion, v{foreign} of {registry.name}, was not exported by Ratchet.*docs/registry\.md"
    with pytest.raises(ModelFilesError, match=what):
        registry.judge(registry.add(GOOD), **BETTER)
    (directory / "model.json").write_text(card)
    described = in_production()
    verdict = registry.judge(registry.add(GOOD - 0.003), **BETTER)
    assert (verdict.outcome, verdict.champion and verdict.champion.version) == ("promote", described)


def test_a_former_champion_that_was_trained_on_gate_images_is_no_anchor(registry: Registry) -> None:
    gate = frozenset(registry.data.image_digests("test").values())
    registry.add(GOOD, "production", seen=SeenImages(train=gate, val=frozenset()))
    registry.add(POOR, "production")
    verdict = registry.judge(registry.add(FAIR), **BETTER, leak=True, anchor={"margin": 0.02})
    assert verdict.passed, verdict.sentence
    assert verdict.context.anchor == verdict.champion
    assert any("v1 is not compared with as an anchor: it was trained" in note for note in verdict.evidence.notes)


def test_what_was_selected_by_its_score_on_the_gate_images_has_seen_them(registry: Registry, tmp_path: Path) -> None:
    gate, nothing = frozenset(registry.data.image_digests("test").values()), frozenset[str]()
    run = client().create_run(ensure_experiment("chosen")).info.run_id
    for metric in ("test_iou", "val_iou"):
        client().log_metric(run, metric, 0.9)
    seen = SeenImages(train=nothing, val=nothing, test=gate)
    client().log_artifacts(run, str(export(tmp_path / "model", Brightness(GOOD), seen=seen)), "deployment_model")
    client().set_terminated(run)
    registry.manager.register_model(f"runs:/{run}/deployment_model", registry.name)
    assert registry.judge(1, floor=0.2, leak=True).passed
    registry.manager.register_best_model("chosen", "test_iou", registry.name)
    verdict = registry.judge(1, floor=0.2, leak=True)
    assert "the challenger was trained or selected on 40 gate images" in failed(verdict)["leak challenger"]
    registry.manager.register_best_model("chosen", "val_iou", registry.name)
    assert registry.judge(1, floor=0.2, leak=True).passed
    registry.manager.promote(registry.name, 1)
    registry.manager.register_best_model("chosen", "test_iou", registry.name)  # it was there, and is not chosen anew
    assert registry.manager.version(registry.name, 1).tags[SELECTED_TAG].startswith("val_iou=")


def test_the_test_images_of_a_model_by_an_older_ratchet_are_those_of_today(images: Path, registry: Registry) -> None:
    apart = registry.folder.parent / "apart"
    shutil.copytree(images, apart)
    names = (apart / "test.txt").read_text().split()
    (apart / "gate.txt").write_text("\n".join(names[:30]))
    (apart / "test.txt").write_text("\n".join(names[30:]))
    directory = export(registry.folder / "older", Brightness(GOOD))
    tags = {SELECTED_TAG: "test_iou=0.9"}
    version = registry.manager.register_model(str(directory), registry.name, tags=tags).version
    assert registry.judge(version, data_module(apart), floor=0.2, leak=True).passed
    assert "leak challenger" in failed(registry.judge(version, floor=0.2, leak=True))


class TwoLogits(nn.Module):
    """The same answer as two logits, of which the larger wins."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.one = Brightness(threshold)

    def forward(self, images: Tensor) -> Tensor:
        logit = self.one(images)
        return torch.cat([-logit, logit], 1)


def test_a_model_without_a_stated_signature_has_that_of_its_answer(registry: Registry) -> None:
    two = TwoLogits(POOR)
    version = registry.add(two, reference=two)
    assert registry.judge(version, floor=0.2, serves={}).passed
    registry.manager.promote(registry.name, version)
    verdict = registry.judge(registry.add(GOOD), **BETTER, serves={})
    assert "is not the champion's" in failed(verdict)["serves signature"]


def test_prune_keeps_the_anchor(registry: Registry) -> None:
    for threshold in (GOOD, POOR, FAIR, POOR - 0.01):
        registry.add(threshold, "production")
    assert registry.manager.prune(registry.name, keep=0, rollbacks=1, dry_run=True).goes == (1, 2)
    registry.judge(registry.add(FAIR - 0.01), **NOT_WORSE, anchor={})
    planned = registry.manager.prune(registry.name, keep=0, rollbacks=1)
    assert planned.goes == (2, 5)
    assert planned.stays[1] == "an anchor of the gate"


def test_a_version_in_quarantine_is_no_anchor_and_the_champion_may_be_its_own(registry: Registry) -> None:
    for threshold in (POOR, FAIR, GOOD):
        registry.add(threshold, "production")
    registry.manager.rollback(registry.name)
    assert [version.version for version in registry.manager.champions(registry.name)] == [1, 2]
    verdict = registry.judge(registry.add(FAIR + 0.01), **NOT_WORSE, anchor={"margin": 0.02})
    assert verdict.passed
    assert verdict.context.anchor == verdict.champion


def test_an_anchor_that_cannot_be_read_decides_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for threshold in (POOR - 0.002, FAIR):  # no other test has judged these files, so they must be read
        registry.add(threshold, "production")
    files = Path(registry.manager.version(registry.name, 1).location.removeprefix("file://"))
    challenger, copy = registry.add(GOOD), shutil.copytree

    def full(source: str | Path, into: Path) -> Path:
        if str(source) == str(files):
            raise shutil.Error([(str(source), str(into), f"[Errno {errno.ENOSPC}] No space left on device")])
        return copy(source, into)

    with monkeypatch.context() as patch:
        patch.setattr("ratchet.registry.mlflow_files.shutil.copytree", full)
        with pytest.raises(RegistryError, match=r"cannot be copied to this machine.*Mend that"):
            registry.judge(challenger, **BETTER, anchor={})
    shutil.rmtree(files)
    with pytest.raises(GateError, match=r"in production once cannot be scored.*cannot be read.*gate\.anchor=null"):
        registry.judge(challenger, **BETTER, anchor={})
    assert "gated" not in {str(event.kind) for event in registry.manager.history(registry.name)}


# --- counts that are kept --------------------------------------------------------------------------------------------


def reused(verdict: Verdict) -> bool:
    return any("its files gave on these images before" in note for note in verdict.notes)


def test_counts_of_images_that_were_read_otherwise_are_not_reused(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(POOR - 0.002, "production")
    challenger = registry.add(GOOD - 0.002)
    registry.judge(challenger, **BETTER)
    monkeypatch.setattr("ratchet.judgement.cache.READING", 0)
    assert not reused(registry.judge(challenger, **BETTER))


def test_the_champions_counts_are_reused_on_the_same_images_and_those_of_a_challenger_never(registry: Registry) -> None:
    registry.add(POOR - 0.001, "production")  # files that no other test has judged
    challenger = registry.add(GOOD - 0.001)
    first, second = (registry.judge(challenger, **BETTER) for _ in range(2))
    assert [reused(verdict) for verdict in (first, second)] == [False, True]
    assert first.counts == second.counts
    registry.manager.transition_model(registry.name, challenger, "production")
    assert not reused(registry.judge(registry.add(FAIR), **NOT_WORSE))


def test_only_counts_of_the_same_images_are_reused(
    registry: Registry, images: Path, home: Path, tmp_path: Path
) -> None:
    registry.add(POOR, "production")
    challenger = registry.add(GOOD)
    before = registry.judge(challenger, **BETTER)
    shutil.copytree(images, tmp_path / "changed")
    path = tmp_path / "changed" / "masks" / "disc020.png"
    Image.fromarray(1 - np.asarray(Image.open(path))).save(path)
    told: list[tuple[int, int]] = []
    after = registry.judge(challenger, data_module(tmp_path / "changed"), lambda *done: told.append(done), **BETTER)
    assert "on 39 of these 40 images before" in " ".join(after.notes)
    assert told[-1] == (41, 41)  # the challenger on all of them, the champion on the one
    assert after.champion_score != before.champion_score
    (home / "counts").rename(tmp_path / "counts of before")
    afresh = registry.judge(challenger, data_module(tmp_path / "changed"), **BETTER)
    assert not reused(afresh)
    assert afresh.counts == after.counts


@pytest.mark.parametrize("damage", ["cut off", "changed", "of another model"])
def test_kept_counts_that_were_tampered_with_are_not_believed(registry: Registry, home: Path, damage: str) -> None:
    registry.add(POOR, "production")
    challenger = registry.add(GOOD)
    shutil.rmtree(home / "counts", ignore_errors=True)
    honest = registry.judge(challenger, **BETTER)
    (path,) = (home / "counts").iterdir()
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        cache, name = CountsCache(home / "forged"), f"{path.name[:32]}-{path.stem[33:]}.parquet"
        contents = [registry.data.contents[sample.name] for sample in registry.data.samples["test"]]
        counts = some_counts(40, names=tuple(f"{content.image} {content.mask}" for content in contents))
        cache.keep(counts, model="m", mask_values={}, contours=False)
        (forged,) = (home / "forged").iterdir()
        forged.replace(path if damage == "changed" else path.with_name(f"{name[:33]}{forged.stem[33:]}.parquet"))
        if damage == "of another model":
            path.unlink()
    again = registry.judge(challenger, **BETTER)
    assert not reused(again)
    assert again.champion_score == honest.champion_score
    assert len(list((home / "counts").iterdir())) == 1
    assert reused(registry.judge(challenger, **BETTER))


def some_counts(images: int, *, names: tuple[str, ...] | None = None, seed: int = 0) -> ImageCounts:
    tp, fp, fn = np.random.default_rng(seed).integers(0, 100, (3, images, 1))
    return ImageCounts(names or tuple(map(str, range(images))), ("disc",), tp, fp, fn)


def test_of_kept_counts_the_longest_unused_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, counts = CountsCache(tmp_path / "counts"), some_counts(2)
    for number in range(4):
        cache.keep(counts, model=str(number), mask_values={}, contours=False)
    kept = list((tmp_path / "counts").iterdir())
    monkeypatch.setattr("ratchet.judgement.cache.LIMIT", sum(path.stat().st_size for path in kept))
    assert cache.find(model="0", mask_values={}, contours=False) is not None
    cache.keep(counts, model="one more", mask_values={}, contours=False)
    assert len(list((tmp_path / "counts").iterdir())) == len(kept) == 4
    there = [cache.find(model=str(number), mask_values={}, contours=False) is not None for number in (0, 1, 2)]
    assert there == [True, False, True]


def test_counts_where_masks_mean_something_else_are_others(tmp_path: Path) -> None:
    cache, counts = CountsCache(tmp_path / "counts"), some_counts(2)
    cache.keep(counts, model="m", mask_values={0: 0, 1: 1}, contours=False)
    assert cache.find(model="m", mask_values={0: 0, 255: 1}, contours=False) is None
    found = cache.find(model="m", mask_values={1: 1, 0: 0}, contours=False)
    assert found is not None
    assert found.names == counts.names


def test_rows_of_others_and_of_counts_with_contours_stay(tmp_path: Path) -> None:
    cache, many, few = CountsCache(tmp_path), some_counts(5), some_counts(2, names=("x", "y"))
    cache.keep(many, model="m", mask_values={}, contours=False)
    cache.keep(few, model="m", mask_values={}, contours=False)  # by one who had not read the others
    bands = replace(few, boundary=np.zeros((3, 2, 1), dtype=np.int64))
    cache.keep(bands, model="m", mask_values={}, contours=True)
    for contours, names in ((False, {*many.names, "x", "y"}), (True, {"x", "y"})):
        found = cache.find(model="m", mask_values={}, contours=contours)
        assert found is not None
        assert set(found.names) == names
        assert (found.boundary is not None) == contours


def test_counts_that_are_replaced_while_they_are_read_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CountsCache(tmp_path)
    cache.keep(some_counts(2), model="m", mask_values={}, contours=False)
    (path,) = tmp_path.iterdir()

    def meanwhile(*_: Any) -> None:
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr("ratchet.judgement.cache.os.utime", meanwhile)
    assert cache.find(model="m", mask_values={}, contours=False) is not None


def test_counts_of_a_mask_that_changed_since_it_was_hashed_are_refused(
    registry: Registry, images: Path, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "moving")
    data = data_module(tmp_path / "moving")
    data.prepare()
    path = tmp_path / "moving" / "masks" / "disc020.png"
    Image.fromarray(1 - np.asarray(Image.open(path))).save(path)
    registry.add(POOR - 0.003, "production")
    challenger = registry.add(GOOD - 0.003)
    before = set((home / "counts").glob("*"))
    with pytest.raises(UnreadableImageError, match=r"disc020.*changed"):
        registry.judge(challenger, data, **BETTER)
    assert set((home / "counts").glob("*")) == before


def test_a_model_is_scored_on_no_image_as_on_none(tmp_path: Path) -> None:
    model = ServedModel(export(tmp_path / "model", Brightness(BEST)))
    scorer = Scorer([], {}, {0: 0, 1: 1}, "iou", CountsCache(tmp_path / "counts"))
    assert scorer.score({"champion": model}, keep={})["champion"].names == ()


def test_who_judges_has_a_cache_of_their_own(images: Path, home: Path) -> None:
    node = {"_target_": "ratchet.data.FolderDataModule", "data_path": str(images), "idx_to_class": {1: "disc"}}
    node |= {"input_height": 8, "input_width": 8, "mean": [0.0] * 3, "std": [1.0] * 3}
    node |= {"cache": True, "cache_path": str(images / "of who trained")}
    gate_data({"datamodule": node}).fill_cache()
    assert not (images / "of who trained").exists()
    assert list((home / "cache").glob("*.npy"))


def _keep_often(folder: Path) -> None:
    for _ in range(20):
        CountsCache(folder).keep(some_counts(500), model="m", mask_values={}, contours=False)


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(_keep_often, tmp_path / "counts") for _ in range(2)]
        while not all(writer.done() for writer in writers):
            found = CountsCache(tmp_path / "counts").find(model="m", mask_values={}, contours=False)
            assert found is None or len(found.names) == 500
    assert [writer.exception() for writer in writers] == [None, None]
    assert len(list((tmp_path / "counts").iterdir())) == 1


def test_a_folder_that_takes_no_file_costs_time_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counts").write_text("a file where the folder should be")
    cache = CountsCache(tmp_path / "counts")
    cache.keep(some_counts(2), model="m", mask_values={}, contours=False)
    assert "scored again" in caplog.text
    assert cache.find(model="m", mask_values={}, contours=False) is None
