"""The whole flow on real servers: Prefect's own, and MLflow on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from ratchet import MlflowModelManager
from ratchet.data.shapes import generate
from ratchet.errors import ConfigError
from ratchet.gate.record import replay
from ratchet.judgement import judgement_path
from ratchet.registry.tracking import client
from ratchet.retraining import Outcome

pytestmark = [pytest.mark.flow, pytest.mark.trains]


@pytest.fixture(scope="module")
def _prefect() -> Iterator[None]:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


def run(*overrides: str, **parameters: Any) -> tuple[str, Outcome]:
    from flows.retrain import retrain

    state = retrain(overrides=[*TINY, "gate.floor=0.0", *overrides], model="m", return_state=True, **parameters)
    return str(state.name), state.result()


@pytest.mark.usefixtures("_prefect")
def test_one_model_from_the_first_training_to_its_replacement(home: Path) -> None:
    name, first = run()
    manager = MlflowModelManager()
    assert (name, first.status, first.version, first.champion) == ("promoted", "promoted", 1, 1)
    champion = manager.champion("m")
    assert champion is not None
    assert str(champion.stage) == "Production"
    assert "production" in champion.aliases
    kinds = [str(event.kind) for event in manager.history("m")]
    assert kinds == ["registered", "gated", "staged", "promoted"]
    assert "promoted" in str(client().get_registered_model("m").description)
    _check_artifacts(first, home)

    name, again = run()
    assert (name, again.status) == ("skipped: unchanged since v1", "skipped")
    assert [str(event.kind) for event in manager.history("m")] == kinds

    generate(home / "data" / "shapes", months=3, images_per_month=30)
    name, second = run()
    assert second.version == 2
    assert second.status in ("promoted", "rejected", "inconclusive")
    assert second.verdict is not None
    assert second.verdict.champion is not None
    assert second.verdict.champion.version == 1
    assert name == second.status
    _prune(manager)


def _prune(manager: MlflowModelManager) -> None:
    from flows.prune import prune

    for dry_run in (True, False):
        before = {version.version for version in manager.versions("m")}
        state = prune("m", keep=0, dry_run=dry_run, return_state=True)
        after = {version.version for version in manager.versions("m")}
        assert state.is_completed()
        gone = set() if dry_run else set(state.result().goes)
        assert after == before - gone
        champion = manager.champion("m")
        assert champion is not None
        assert champion.version in after


def _check_artifacts(outcome: Outcome, home: Path) -> None:
    verdict = outcome.verdict
    assert verdict is not None
    folder = home / "downloaded"
    folder.mkdir()
    path = Path(client().download_artifacts(str(outcome.best_run), judgement_path(verdict), str(folder)))
    assert replay(path / "verdict.json", digest=verdict.digest) == verdict
    assert (path / "report.html").stat().st_size > 5000


@pytest.mark.usefixtures("_prefect", "home")
def test_selection_on_the_gates_own_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="test_iou"):
        run("optimizer.lr=0.002", metric="test_iou")
