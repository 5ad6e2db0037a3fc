"""Whose files a verdict is of: versions that were registered by hand, and a number that is given a second time."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported_models import Brightness, export
from test_judgement import BETTER, GOOD, NOT_WORSE, POOR, Registry
from test_judgement import images as images  # noqa: PLC0414 - a fixture
from test_judgement import registry as registry  # noqa: PLC0414 - a fixture

from ratchet.registry import Stage
from ratchet.registry.tracking import client
from ratchet.retraining import _last

pytestmark = pytest.mark.slow


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
