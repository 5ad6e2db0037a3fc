"""The whole flow on real servers: Prefect's own, and MLflow on SQLite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, WITHOUT_RULES

from ratchet import MlflowModelManager
from ratchet.data.shapes import generate
from ratchet.errors import ConfigError, GateError
from ratchet.gate.record import replay
from ratchet.judgement.records import judgement_path
from ratchet.outcome import Outcome
from ratchet.planning import FlowRun, plan_retraining
from ratchet.registry import Stage
from ratchet.registry.tracking import client
from ratchet.report import headline
from ratchet.retraining import move, select, train
from ratchet.training.parent import OUTCOME_TAG

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

    parameters = {"model": "m"} | parameters
    state = retrain(overrides=[*TINY, "gate.floor=0.0", *overrides], return_state=True, **parameters)
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
    champion = manager.champion("m")
    assert champion is not None
    assert champion.version == second.champion == (2 if second.status == "promoted" else 1)
    _prune(manager)


@pytest.mark.usefixtures("_prefect", "home")
def test_a_rejected_challenger_stays_out_and_is_judged_again_when_production_is_another() -> None:
    manager, mine = MlflowModelManager(), ("core.name=hopeless", "gate.floor=1.0", "optimizer.lr=0.01")
    name, first = run(*WITHOUT_RULES, *mine, model="hopeless")
    assert (name, first.status, first.version, first.champion) == ("rejected", "rejected", 1, None)
    assert first.verdict is not None
    plan = plan_retraining([*TINY, *WITHOUT_RULES, *mine, "retrain.model=hopeless"])
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        with pytest.raises(GateError, match="Nothing is promoted"):
            move(plan, first.verdict, stage)
    assert run(*WITHOUT_RULES, *mine, model="hopeless")[0] == "skipped: unchanged since v1"
    assert [str(event.kind) for event in manager.history("hopeless")] == ["registered", "gated"]
    assert manager.version("hopeless", 1).stage is Stage.NONE

    name, other = run(*WITHOUT_RULES, "core.name=hopeless", "optimizer.lr=0.02", model="hopeless")
    assert (name, other.version, other.champion) == ("promoted", 2, 2)
    name, again = run(*WITHOUT_RULES, *mine, model="hopeless")
    assert (name, again.version, again.champion) == ("rejected", 1, 2)
    assert again.verdict is not None
    assert again.verdict.champion is not None
    assert again.verdict.champion.version == 2
    assert run(*WITHOUT_RULES, *mine, model="hopeless")[0] == "skipped: unchanged since v1"


@pytest.mark.usefixtures("_prefect", "home")
def test_what_a_person_did_to_production_is_not_undone_by_what_is_run_again() -> None:
    from prefect import flow

    from tasks.registry import promote_version, roll_back

    manager = MlflowModelManager()
    for version, rate in ((1, "0.01"), (2, "0.02")):
        name, outcome = run(*WITHOUT_RULES, f"optimizer.lr={rate}", "core.name=put-back", model="put-back")
        assert (name, outcome.version) == ("promoted", version)
    manager.promote("put-back", 1, reason="v2 blurs")
    name, _ = run(*WITHOUT_RULES, "optimizer.lr=0.02", "core.name=put-back", model="put-back")
    assert name == "skipped: unchanged since v2"

    @flow
    def promoted_and_taken_up() -> None:
        promote_version("put-back", 2, "production", "")
        manager.promote("put-back", 1, reason="it still does")
        promote_version("put-back", 2, "production", "")

    @flow
    def rolled_back_and_taken_up() -> list[int]:
        return [roll_back("put-back", "it blurs").version for _ in range(2)]

    promoted_and_taken_up()
    assert [version.version for version in (manager.champion("put-back"),) if version] == [1]
    assert rolled_back_and_taken_up() == [2, 2]
    assert [event.version for event in manager.history("put-back") if event.kind == "rolled back"] == [1]


@pytest.mark.usefixtures("_prefect", "home")
def test_a_trial_that_failed_is_tried_again_and_what_became_of_the_best_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "trial_faults")
    half = (*WITHOUT_RULES, "core.name=half", "+callbacks.fault={_target_: trial_faults.Die},null")
    manager = MlflowModelManager()

    def again() -> tuple[str, list[str], int | None]:
        name, outcome = run(*half, model="half")
        assert re.search(r"; 1 of 2 trials failed: .*: killed by SIGKILL", outcome.message)
        assert outcome.sweep is not None
        tags = client().get_run(str(outcome.sweep.run_id)).data.tags
        assert tags[OUTCOME_TAG].startswith("1 of 2 trials failed: ")
        return name, sorted(trial.status for trial in outcome.trials), outcome.champion

    assert run(*WITHOUT_RULES, "core.name=half", "optimizer.lr=0.02", model="half")[0] == "promoted"
    assert again() == ("promoted", ["failed", "finished"], 2)
    assert again() == ("unchanged", ["failed", "reused"], 2)
    manager.promote("half", 1)
    _, elsewhere = run(*half, model="half")
    assert (elsewhere.status, elsewhere.champion) == ("unchanged", 1)
    assert elsewhere.title == "half: 2 trials → v2 is the best again"
    assert headline(elsewhere) == "half: v2 is the best again, and is not in production"
    manager.promote("half", 2)
    manager.rollback("half")
    assert again() == ("unchanged", ["failed", "reused"], 1)
    manager.release("half", 2)
    assert again() == ("promoted", ["failed", "reused"], 2)


@pytest.mark.usefixtures("home")
def test_what_is_trained_anew_is_so_once_in_a_flow_run_that_is_interrupted() -> None:
    trials = [*TINY, "core.name=anew", "sweep.force=true"]
    run = FlowRun(id="1", page="http://prefect/runs/1")
    interrupted = plan_retraining([*trials, "optimizer.lr=0.01"], flow_run=run)
    moved = FlowRun(id="1", page="http://elsewhere:4201/runs/1")  # Prefect's address may be another by then
    whole = plan_retraining([*trials, "optimizer.lr=0.01,0.001"], flow_run=moved)
    assert [trial.status for trial in train(interrupted).trials] == ["finished"]
    assert [trial.status for trial in train(whole).trials] == ["reused", "finished"]
    other = plan_retraining([*trials, "optimizer.lr=0.01"], flow_run=FlowRun(id="2", page="http://prefect/runs/2"))
    anew = train(other)
    assert [trial.status for trial in anew.trials] == ["finished"]
    assert select(other, anew).run_id == anew.trials[0].run_id  # and not the one before, which is as good


@pytest.mark.usefixtures("home")
def test_a_search_by_force_goes_on_in_the_flow_run_that_began_it() -> None:
    space = ("optimizer.lr=interval(0.001,0.01)", "sweep.max_trials=2")
    trials = [*TINY, "core.name=searched-anew", "sweep.force=true", *space]
    run = FlowRun(id="1", page="http://prefect/runs/1")
    first = train(plan_retraining(trials, flow_run=run))
    assert [trial.status for trial in first.trials] == ["finished", "finished"]
    again = train(plan_retraining(trials, flow_run=FlowRun(id="1", page="http://elsewhere:4201/runs/1")))
    assert [(trial.status, trial.run_id) for trial in again.trials] == [
        ("reused", trial.run_id) for trial in first.trials
    ]


@pytest.mark.usefixtures("_prefect", "home")
def test_a_watch_fails_where_the_data_are_gone_but_not_where_they_are_yet_to_be_made(tmp_path: Path) -> None:
    from flows.watch import watch

    absent = f"datamodule.data_path={tmp_path / 'absent'}"
    own = ["datamodule=base/segmentation", "datamodule.idx_to_class={1: scratch}", absent]
    gone = watch("gone", own, return_state=True)
    assert gone.is_failed()
    assert f"there is no folder {tmp_path / 'absent'}" in str(gone.message)
    yet_to_come = watch("yet_to_come", [TINY[0], absent], return_state=True)
    assert (yet_to_come.is_completed(), yet_to_come.name) == (True, "no data yet")


def test_no_step_is_kept_from_running_by_a_profile_that_caches_or_retries_tasks() -> None:
    from prefect import Task
    from prefect.cache_policies import NO_CACHE

    from tasks import approval, judgement, registry, retraining, watching

    modules = (approval, judgement, registry, retraining, watching)
    steps = {task for module in modules for task in vars(module).values() if isinstance(task, Task)}
    assert len(steps) >= 15
    for step in steps:
        assert (step.cache_policy, step.persist_result, step.retries) == (NO_CACHE, False, 0)


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
    path = Path(client().download_artifacts(str(outcome.best_run), judgement_path(verdict.digest), str(folder)))
    assert replay(path / "verdict.json", digest=verdict.digest) == verdict
    assert (path / "report.html").stat().st_size > 5000


@pytest.mark.usefixtures("_prefect", "home")
def test_selection_on_the_gates_own_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="test_iou"):
        run("optimizer.lr=0.002", metric="test_iou")
