"""Whose files a verdict is of: versions that were registered by hand, and a number that is given a second time."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from conftest import TINY
from exported_models import SIZE, Brightness, data_module, discs, export
from test_judgement import BETTER, FAIR, GOOD, NOT_WORSE, POOR, Registry
from test_judgement import images as images  # noqa: PLC0414 - a fixture
from test_judgement import registry as registry  # noqa: PLC0414 - a fixture

from ratchet.data import FolderDataModule
from ratchet.errors import MissingMaskError
from ratchet.gate import load_policy
from ratchet.gate.record import VERDICT_FILE
from ratchet.judgement.anytime import judge_anytime
from ratchet.judgement.records import REPORT_FILE, kept_verdict, last_verdict, promoted_on, record_location
from ratchet.monitoring.images import choose_images
from ratchet.planning import FlowRun, Plan, plan_retraining
from ratchet.registry import EventKind, LedgerModelManager, ModelVersion, Stage
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.retraining import _holds, _last, gate, move
from ratchet.training.plan import SweepPlan

pytestmark = pytest.mark.slow


def images_of(manager: LedgerModelManager, version: ModelVersion) -> frozenset[str] | None:
    record = promoted_on(manager, version)
    return None if record is None else frozenset(record.counts["challenger"].names)


def by_hand(registry: Registry, threshold: float, alias: str | None = None) -> int:
    """Register an export as MLflow's pages do: without Ratchet, and so without hashes of its files."""
    directory = export(registry.folder / f"by-hand-{threshold}", Brightness(threshold))
    store = client()
    if not store.search_registered_models(f"name = '{registry.name}'"):
        store.create_registered_model(registry.name)
    version = int(store.create_model_version(registry.name, Path(directory).as_uri()).version)
    if alias is not None:
        store.set_registered_model_alias(registry.name, alias, str(version))
    return version


def test_versions_that_were_registered_by_hand_are_judged_the_first_time(registry: Registry) -> None:
    by_hand(registry, POOR, "production")
    challenger = by_hand(registry, GOOD)
    verdict = registry.judge(challenger, **BETTER, anchor={})
    assert verdict.passed
    assert verdict.champion is not None
    assert verdict.champion.version == 1


def test_a_verdict_on_a_model_that_was_deleted_and_made_anew_holds_no_more(registry: Registry) -> None:
    first = registry.add(GOOD)
    assert registry.judge(first, **NOT_WORSE).passed
    kept = _last(registry.manager, registry.name, first)
    assert kept is not None
    assert kept.passed
    client().delete_registered_model(registry.name)
    assert registry.add(POOR) == first
    assert _last(registry.manager, registry.name, first) is None
    assert registry.manager.version(registry.name, first).stage is Stage.NONE


def test_a_version_is_not_judged_by_the_policy_of_one_that_had_its_number(registry: Registry, tmp_path: Path) -> None:
    for threshold in (GOOD, FAIR):
        registry.judge(registry.add(threshold), **NOT_WORSE | {"floor": 0.99})
    client().delete_registered_model(registry.name)
    data = {"_target_": "ratchet.data.FolderDataModule", "data_path": str(registry.data.data_path)}
    data |= {
        "idx_to_class": {1: "disc"},
        "input_height": SIZE,
        "input_width": SIZE,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"datamodule": data, "gate": "permissive"}))
    for number, threshold in enumerate((FAIR, POOR), start=1):
        run = client().create_run(ensure_experiment("anew")).info
        client().log_artifact(run.run_id, str(tmp_path / "config.yaml"))
        client().log_artifacts(
            run.run_id, str(export(tmp_path / f"{number}", Brightness(threshold))), "deployment_model"
        )
        made = registry.manager.register_model(f"runs:/{run.run_id}/deployment_model", registry.name)
        assert made.version == number
    assert judge_anytime(registry.name, 1, manager=registry.manager).policy.name == "permissive"
    own = load_policy("permissive").model_copy(update={"floor": 0.98, "name": "of its retraining"})
    assert judge_anytime(registry.name, 2, manager=registry.manager, policy=own).policy == own
    assert judge_anytime(registry.name, 2, manager=registry.manager).policy == own


def test_a_gate_that_leaves_out_how_the_data_are_grouped_says_so(registry: Registry, tmp_path: Path) -> None:
    root = tmp_path / "grouped"
    discs(root, range(60))
    (root / "metadata.csv").write_text("name,lot\n" + "".join(f"disc{n:03},{n // 4}\n" for n in range(60)))
    node = {"data_path": root, "idx_to_class": {1: "disc"}, "input_height": SIZE, "input_width": SIZE}
    data = FolderDataModule(**node, mean=(0.0,) * 3, std=(1.0,) * 3, group_by="lot", test_size=0.5)
    first = registry.add(FAIR)
    alone = registry.judge(first, data=data, **NOT_WORSE)
    assert not any("gate.group_by" in note for note in alone.notes)  # nothing is resampled
    registry.manager.promote(registry.name, first)
    version = registry.add(GOOD)
    assert any("set gate.group_by=lot" in note for note in registry.judge(version, data=data, **NOT_WORSE).notes)
    grouped = registry.judge(version, data=data, **NOT_WORSE, group_by="lot")
    assert not any("gate.group_by" in note for note in grouped.notes)


def test_a_verdict_holds_until_the_metadata_that_its_policy_reads_is_corrected(
    registry: Registry, tmp_path: Path
) -> None:
    discs(tmp_path, range(60, 84))
    (tmp_path / "test.txt").write_text("".join(f"disc{number:03}\n" for number in range(60, 80)))
    champion, challenger = registry.add(POOR), registry.add(GOOD)
    registry.manager.promote(registry.name, champion)

    def now(site: str) -> FolderDataModule:
        rows = "".join(f"disc{number:03},north\n" for number in range(61, 80))
        (tmp_path / "metadata.csv").write_text(f"name,site\ndisc060,{site}\n{rows}")
        return data_module(tmp_path)

    asked = {"non_inferiority": {"margin": 0.1, "overall": True, "columns": ["site"]}, "superiority": None}
    verdict = registry.judge(challenger, data=now("north"), anchor=None, **asked)
    assert _holds(verdict, verdict.policy, now("north"))
    assert not _holds(verdict, verdict.policy, now("south"))
    assert not _holds(verdict, load_policy("default"), now("north"))


def test_the_images_that_a_version_was_promoted_on_are_those_of_its_verdict_then(
    registry: Registry, tmp_path: Path
) -> None:
    version = registry.add(GOOD)
    assert images_of(registry.manager, registry.manager.version(registry.name, version)) is None
    registry.judge(version, **NOT_WORSE)
    registry.manager.promote(registry.name, version)
    first = {sample.name for sample in registry.data.samples["test"]}
    discs(tmp_path / "later", range(60, 70))
    for split, numbers in (("train", range(60, 62)), ("val", range(62, 64)), ("test", range(64, 70))):
        (tmp_path / "later" / f"{split}.txt").write_text("".join(f"disc{number:03}\n" for number in numbers))
    registry.judge(version, data=data_module(tmp_path / "later"), **NOT_WORSE)
    other = registry.add(POOR)
    registry.judge(other, data=data_module(tmp_path / "later"), **NOT_WORSE)
    assert images_of(registry.manager, registry.manager.version(registry.name, version)) == first
    registry.manager.promote(registry.name, other)
    registry.judge(version, data=data_module(tmp_path / "later"), **NOT_WORSE)  # a challenger again
    assert images_of(registry.manager, registry.manager.version(registry.name, version)) == first
    registry.manager.rollback(registry.name)
    assert images_of(registry.manager, registry.manager.version(registry.name, version)) == first


def test_the_verdict_that_a_promotion_names_is_the_one_that_it_was_made_on(registry: Registry, tmp_path: Path) -> None:
    version = registry.add(GOOD)
    shown = registry.judge(version, **NOT_WORSE)
    discs(tmp_path / "other", range(60, 70))
    for split, numbers in (("train", range(60, 62)), ("val", range(62, 64)), ("test", range(64, 70))):
        (tmp_path / "other" / f"{split}.txt").write_text("".join(f"disc{number:03}\n" for number in numbers))
    registry.judge(version, data=data_module(tmp_path / "other"), **NOT_WORSE)  # while somebody was asked
    registry.manager.promote(registry.name, version, verdict_digest=shown.digest)
    images = {sample.name for sample in registry.data.samples["test"]}
    assert images_of(registry.manager, registry.manager.version(registry.name, version)) == images


def two_champions(registry: Registry) -> tuple[int, int]:
    """Two versions of which each was put into production."""
    versions = registry.add(POOR), registry.add(GOOD)
    for version in versions:
        registry.manager.promote(registry.name, version)
    return versions


def roll_back(registry: Registry) -> Callable[[int, int], None]:
    """Rolls production back when the first images are scored."""
    rolled: list[int] = []

    def once(*_: int) -> None:
        if not rolled:
            rolled.append(registry.manager.rollback(registry.name).version)

    return once


def test_a_verdict_against_one_that_is_champion_no_more_decides_nothing(registry: Registry) -> None:
    first, second = two_champions(registry)
    challenger = registry.add(POOR - 0.01)
    verdict = registry.judge(challenger, on_image=roll_back(registry), **BETTER)
    assert verdict.champion is not None
    assert (verdict.passed, verdict.champion.version) == (False, second)
    champion = registry.manager.champion(registry.name)
    assert champion is not None
    assert champion.version == first
    (event,) = [e for e in registry.manager.history(registry.name) if e.verdict_digest]
    assert (event.kind, event.version) == (EventKind.NOTED, challenger)
    assert event.reason.startswith(f"compared with v{second}: ")
    assert _last(registry.manager, registry.name, challenger) is None


def plan_to_judge(registry: Registry) -> Plan:
    """A retraining on the registry's images."""
    plan = plan_retraining([*TINY, f"retrain.model={registry.name}", "gate=permissive", "gate.floor=0.2"])
    data = {
        "_target_": "ratchet.data.FolderDataModule",
        "data_path": str(registry.data.data_path),
        "idx_to_class": {1: "disc"},
        "input_height": SIZE,
        "input_width": SIZE,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    trial = plan.trials[0].model_copy(
        update={"config": plan.config.model_copy(update={"datamodule": data}), "samples": None}
    )
    return plan.model_copy(update={"sweep": SweepPlan(trials=(trial,), size=1)})


def test_a_challenger_that_somebody_promotes_meanwhile_is_not_judged_against_itself(registry: Registry) -> None:
    champion, challenger = registry.add(POOR), registry.add(GOOD)
    registry.manager.promote(registry.name, champion)
    verdict = gate(
        plan_to_judge(registry),
        challenger,
        on_image=lambda *_: registry.manager.promote(registry.name, challenger),
    )
    assert verdict.champion is not None
    assert (verdict.passed, verdict.champion.version) == (True, champion)


def test_an_image_that_comes_before_the_gate_is_left_for_the_next_retraining(
    registry: Registry, tmp_path: Path
) -> None:
    root = tmp_path / "unsplit"
    discs(root, range(40))
    registry.data = data_module(root)
    names = [sample.name for split in registry.data.samples.values() for sample in split]
    plan, version = plan_to_judge(registry), registry.add(GOOD)
    whole = next((root / "images").iterdir())
    shutil.copy(whole, whole.with_name(f"late{whole.suffix}"))  # its mask is still being copied
    with pytest.raises(MissingMaskError, match="late"):
        gate(plan.among(None), version)
    assert gate(plan.among(names), version).n_images == len(registry.data.samples["test"])


def test_a_run_that_is_taken_up_after_its_promotion_moves_nothing_again(registry: Registry) -> None:
    champion, challenger = registry.add(POOR), registry.add(GOOD)
    registry.manager.promote(registry.name, champion)
    plan = plan_to_judge(registry).model_copy(update={"flow_run": FlowRun(id="1", page="http://prefect/1")})

    def moved() -> Stage:
        verdict = gate(plan, challenger)
        for stage in (Stage.STAGING, Stage.PRODUCTION):
            last = move(plan, verdict, stage)
        return last.stage

    assert moved() is Stage.PRODUCTION
    registry.manager.promote(registry.name, champion)
    assert moved() is Stage.ARCHIVED
    now = registry.manager.champion(registry.name)
    assert now is not None
    assert now.version == champion


def test_who_was_replaced_is_told_until_it_is_released_or_the_model_made_anew(registry: Registry) -> None:
    manager, name = registry.manager, registry.name
    first, second = two_champions(registry)
    assert manager.replaced_champions(name) == {first}
    manager.rollback(name)
    assert manager.replaced_champions(name) == {second}
    manager.release(name, second)
    assert manager.replaced_champions(name) == frozenset()
    client().delete_registered_model(name)
    assert registry.add(FAIR) == first
    assert manager.replaced_champions(name) == frozenset()
    manager.promote(name, first)
    assert manager.replaced_champions(name) == frozenset()


def test_who_was_champion_when_something_was_written_is_told_by_its_place_where_a_clock_was_ahead(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, name, ahead = registry.manager, registry.name, int(time.time() + 86_400) * 1000
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.model_registry.sqlalchemy_store.get_current_time_millis", lambda: ahead)
        first, second = two_champions(registry)
    noted = manager.record(name, EventKind.NOTED, version=second, reason="judged against this one")
    manager.rollback(name)
    champion = manager.champion(name)
    assert champion is not None
    assert champion.version == first
    assert manager.champion_at(name, noted.time) == first  # the day that was written down has not come yet
    assert manager.champion_behind(name, noted) == second


def test_a_retraining_judges_again_where_production_changed_meanwhile(registry: Registry) -> None:
    first, _ = two_champions(registry)
    challenger = registry.add(FAIR)
    verdict = gate(plan_to_judge(registry), challenger, on_image=roll_back(registry))
    assert verdict.champion is not None
    assert verdict.champion.version == first
    judged = [event for event in registry.manager.history(registry.name) if event.verdict_digest]
    assert [event.kind for event in judged] == [EventKind.NOTED, EventKind.GATED]


def test_a_gate_image_that_is_there_twice_counts_once(registry: Registry, images: Path, tmp_path: Path) -> None:
    doubled = tmp_path / "doubled"
    shutil.copytree(images, doubled)
    tests = (doubled / "test.txt").read_text().split()
    for name in tests[:15]:
        for kind in ("images", "masks"):
            (file,) = (doubled / kind).glob(f"{name}.*")
            shutil.copyfile(file, file.with_stem(f"z-{name}"))
    (doubled / "test.txt").write_text("".join(f"{name}\n" for name in [*tests, *(f"z-{n}" for n in tests[:15])]))
    registry.add(POOR, "production")
    version = registry.add(GOOD)
    once, twice = (registry.judge(version, data=data, **BETTER) for data in (registry.data, data_module(doubled)))
    assert (twice.n_images, twice.interval) == (once.n_images, once.interval)
    assert twice.gate_set == once.gate_set
    assert any("15 gate images are copies" in note for note in twice.notes)
    choice = choose_images(data_module(doubled), seen=frozenset(), judged=dict.fromkeys(tests))
    assert len(choice.reference) == len(tests)
    assert not {sample.name for sample in choice.fresh} & {f"z-{name}" for name in tests}
    for name in tests[:5]:  # copies that come before what production was promoted on
        for kind in ("images", "masks"):
            (file,) = (doubled / kind).glob(f"{name}.*")
            shutil.copyfile(file, file.with_stem(f"a-{name}"))
    (doubled / "test.txt").write_text("".join(f"{name}\n" for name in [*tests, *(f"a-{n}" for n in tests[:5])]))
    choice = choose_images(data_module(doubled), seen=frozenset(), judged=dict.fromkeys(tests))
    assert {sample.name for sample in choice.reference} == set(tests)
    assert not {sample.name for sample in choice.fresh} & {f"a-{name}" for name in tests}


def test_a_verdict_that_is_given_again_after_another_one_is_the_last_one_again(registry: Registry) -> None:
    registry.add(POOR, "production")
    version = registry.add(GOOD)
    manager = registry.manager
    registry.judge(
        version, **BETTER | {"floor": 0.98}
    )  # from now on the champion's counts are kept, and the notes say so
    first, second = (registry.judge(version, **BETTER | {"floor": floor}) for floor in (0.2, 0.99))
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    manager.record(registry.name, "asked", version=version, verdict_digest=first.digest, until=until, flow_run="f")
    manager.record(registry.name, "refused", version=version, verdict_digest=first.digest, flow_run="f")
    assert last_verdict(manager, registry.name, version).verdict_digest == second.digest
    assert registry.judge(version, **BETTER).digest == first.digest
    assert last_verdict(manager, registry.name, version).verdict_digest == first.digest
    assert registry.judge(version, **BETTER).digest == first.digest
    told = [e for e in manager.history(registry.name) if e.kind is EventKind.GATED and e.version == version]
    assert [event.outcome for event in told] == ["reject", "promote", "reject", "promote"]


def test_a_verdict_that_an_earlier_ratchet_wrote_without_a_field_is_the_one_of_its_event(
    registry: Registry, tmp_path: Path
) -> None:
    version = registry.add(GOOD)
    verdict = registry.judge(version, **NOT_WORSE)
    event = last_verdict(registry.manager, registry.name, version)
    earlier = json.loads(verdict.to_json())
    del earlier["format"]
    text = json.dumps(earlier, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (tmp_path / VERDICT_FILE).write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    client().log_artifact(str(event.run_id), str(tmp_path / VERDICT_FILE), f"gate/{digest[:12]}")
    found = kept_verdict(replace(event, verdict_digest=digest))
    assert found is not None
    assert (found.to_json(), found.digest) == (verdict.to_json(), digest)
    assert kept_verdict(replace(event, verdict_digest=f"{digest[:12]}{verdict.digest[12:]}")) is None


def test_the_place_of_a_record_is_a_path_that_is_there(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "mein Büro"))
    here = Registry("m", registry.folder, registry.data.data_path)
    verdict = here.judge(here.add(GOOD), **NOT_WORSE)
    event = here.manager.history("m")[-1]
    assert (Path(record_location(verdict.digest, str(event.run_id))) / REPORT_FILE).is_file()
