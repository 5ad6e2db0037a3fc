"""What was said of a version before, by the gate or by a person, and whether the same inputs are done with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY
from exported_models import Brightness, data_module, discs, export
from test_judged_versions import plan_to_judge
from test_judgement import BETTER, FAIR, GOOD, NOT_WORSE, POOR, Registry
from test_judgement import images as images  # noqa: PLC0414 - a fixture
from test_judgement import registry as registry  # noqa: PLC0414 - a fixture

from ratchet.planning import RETRAINING_TAG, Plan, failed_tag, plan_retraining, turned_down
from ratchet.registry.tracking import client
from ratchet.retraining import _last, gate

pytestmark = pytest.mark.slow

NEVER = "2126-01-01T00:00:00+00:00"


def planned(registry: Registry) -> Plan:
    return plan_retraining([*TINY, f"retrain.model={registry.name}"])


def given(registry: Registry, threshold: float) -> int:
    """A version that the retraining of `planned` found to be the best."""
    plan, version = planned(registry), registry.add(threshold)
    for tag, value in {RETRAINING_TAG: plan.fingerprint, failed_tag(plan): "no"}.items():
        client().set_model_version_tag(registry.name, str(version), tag, value)
    return version


def say(registry: Registry, kind: str, version: int, outcome: str | None = None) -> None:
    """Write it down, each time anew; of a verdict without its record only the outcome is known."""
    key = str(len(registry.manager.history(registry.name)))
    until = NEVER if kind == "asked" else None
    asked = "1" if kind in ("asked", "approved", "refused") else None
    registry.manager.record(registry.name, kind, version=version, outcome=outcome, key=key, flow_run=asked, until=until)


def test_a_persons_no_outlives_what_the_gate_says_when_somebody_looks_again(registry: Registry) -> None:
    first, second = registry.add(POOR, "production"), given(registry, FAIR)
    say(registry, "gated", second, "promote")
    say(registry, "asked", second)
    assert not turned_down(registry.manager, registry.manager.version(registry.name, second))
    say(registry, "refused", second)
    for _ in range(2):
        assert planned(registry).unchanged_since == second
        assert turned_down(registry.manager, registry.manager.version(registry.name, second))
        say(registry, "gated", second, "promote")
    registry.add(GOOD, "production")
    assert planned(registry).unchanged_since is None  # there is another to be compared with
    registry.manager.promote(registry.name, first)
    assert planned(registry).unchanged_since == second


def test_who_was_taken_out_of_production_does_not_come_back_after_another_was(registry: Registry) -> None:
    manager, name = registry.manager, registry.name
    first, second, third = registry.add(POOR), given(registry, FAIR), registry.add(GOOD)
    manager.promote(name, first)
    say(registry, "gated", second, "promote")
    for version in (second, first, third):
        manager.promote(name, version)
    manager.rollback(name)
    assert manager.replaced_champions(name) == {second, third}
    assert planned(registry).unchanged_since == second


def test_a_verdict_against_one_that_had_the_champions_number_before_holds_no_more(registry: Registry) -> None:
    registry.add(POOR, "production")
    fair = str(export(registry.folder / "fair", Brightness(FAIR)))
    second = registry.manager.register_model(fair, registry.name).version
    assert registry.judge(second, **BETTER).passed
    assert _last(registry.manager, registry.name, second) is not None
    say(registry, "refused", second)
    client().delete_registered_model(registry.name)
    registry.add(GOOD, "production")
    assert registry.manager.register_model(fair, registry.name).version == second
    assert _last(registry.manager, registry.name, second) is None
    again = registry.manager.version(registry.name, second)
    assert not turned_down(registry.manager, again)
    assert [str(event.kind) for event in registry.manager.own_history(again)] == ["registered"]


def test_a_look_by_another_standard_says_nothing_of_what_these_inputs_came_to(registry: Registry) -> None:
    registry.add(POOR, "production")
    second = given(registry, FAIR)
    assert registry.judge(second, **NOT_WORSE | {"floor": 0.99}).outcome == "reject"
    assert planned(registry).unchanged_since is None
    say(registry, "gated", second, "reject")  # of its own policy, as far as anybody can still tell
    assert planned(registry).unchanged_since == second


def test_of_several_versions_of_the_same_inputs_the_newest_decides(registry: Registry) -> None:
    registry.add(POOR, "production")
    second, third = given(registry, FAIR), given(registry, GOOD)
    say(registry, "gated", second, "inconclusive")
    say(registry, "gated", third, "promote")
    assert planned(registry).unchanged_since is None
    say(registry, "gated", third, "reject")
    assert planned(registry).unchanged_since == third


def test_a_run_of_before_is_judged_on_all_images_that_the_champion_was_promoted_on(
    registry: Registry, tmp_path: Path
) -> None:
    root = tmp_path / "grows"
    discs(root, range(40))
    registry.data = data_module(root)
    plan, challenger = plan_to_judge(registry), registry.add(GOOD)
    names = [sample.name for split in registry.data.samples.values() for sample in split]
    before = len(registry.data.gate_samples)
    discs(root, range(40, 80))
    registry.data = data_module(root)
    champion = registry.add(POOR)
    registry.judge(champion, **NOT_WORSE)
    now = len(registry.data.gate_samples)
    assert now > before
    assert gate(plan.among(names), challenger).n_images == before  # a first model
    registry.manager.promote(registry.name, champion)
    assert gate(plan.among(names), challenger).n_images == now
