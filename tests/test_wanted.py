"""What a run does only if it is still what somebody wants: on a real Prefect server, in this process."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from exported_models import Brightness, export
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelling, Suspended
from prefect_service import Service, waited
from prefect_service import prefect_service as prefect_service  # noqa: PLC0414 - a fixture

from flows.prune import prune
from flows.rollback import rollback
from flows.service.deploying import POOL
from flows.service.deployments import LONG
from flows.service.doctor import _queues
from flows.watch import watch
from ratchet import MlflowModelManager
from ratchet.registry import Stage
from tasks.approval import questions_about
from tasks.retraining import move
from tasks.runs import missed_runs, seconds_ahead

pytestmark = pytest.mark.flow


def work(service: Service, what: Any, run: FlowRun) -> State[Any]:
    """Do what a worker's process does with a run."""
    found = service.client.read_flow_run(run.id)
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state: State[Any] = run_flow(what, flow_run=found, parameters=found.parameters, return_type="state")
    return state


def test_a_rollback_that_waited_leaves_no_version_that_its_author_has_not_seen(
    prefect_service: Service, stored_home: Path, tmp_path: Path
) -> None:
    manager = MlflowModelManager()
    for number in (1, 2, 3):
        manager.register_model(str(export(tmp_path / str(number), Brightness(number / 10))), "late")
        manager.promote("late", number)
    rollback.to_deployment("late", parameters={"model": "late"}).apply()
    asked = prefect_service.start("rollback/late")
    manager.rollback("late", "typed meanwhile")
    state = work(prefect_service, rollback, asked)
    assert state.is_failed()
    assert "v3 was in production of late; now v2 is, so that nothing is rolled back" in str(state.message)
    champion = manager.champion("late")
    assert champion is not None
    assert champion.version == 2
    assert work(prefect_service, rollback, prefect_service.start("rollback/late")).is_completed()
    champion = manager.champion("late")
    assert champion is not None
    assert champion.version == 1


def test_a_run_that_was_cancelled_moves_nothing(prefect_service: Service) -> None:
    @flow
    def cancelled() -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run.id), Cancelling(), force=True)
        move(None, None, Stage.PRODUCTION)  # type: ignore[arg-type]  # nothing of it is looked at

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state: Any = cancelled(return_state=True)
    assert "RunAbandonedError: somebody has cancelled this run" in str(state.message)


def test_a_run_stands_for_the_missed_ones_that_ask_for_the_same(prefect_service: Service, stored_home: Path) -> None:
    client = prefect_service.client
    found = client.create_deployment(
        flow_id=client.create_flow(prune),
        name="missed",
        schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 * * *"))],
        parameters={"model": "none"},
        entrypoint="flows/prune.py:prune",
    )
    now = datetime.now(UTC)
    due = {"start_time": (now - timedelta(days=4)).isoformat(), "end_time": now.isoformat()}
    body = {**due, "min_runs": 3, "max_runs": 3}
    client.request("POST", f"/deployments/{found}/schedule", json=body).raise_for_status()
    for parameters, left in (({"dry_run": True}, 3), ({}, 0)):
        assert work(prefect_service, prune, prefect_service.start("prune/missed", **parameters)).is_completed()
        assert len(missed_runs(client, deployment_id=found)) == left


def test_a_machine_whose_clock_is_minutes_off_says_so_before_it_is_taken_for_dead(
    prefect_service: Service, stored_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=120)

    prune.to_deployment("timed", parameters={"model": "none"}).apply()
    assert work(prefect_service, prune, prefect_service.start("prune/timed")).is_completed()
    assert abs(seconds_ahead(prefect_service.client)) < 10
    monkeypatch.setattr("tasks.runs.datetime", Ahead)
    assert 100 < seconds_ahead(prefect_service.client) < 130
    state = work(prefect_service, prune, prefect_service.start("prune/timed"))
    assert "s ahead of that of the Prefect server" in str(state.message)


def test_changed_data_are_remembered_only_when_they_are_announced(
    prefect_service: Service, stored_home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> State[Any]:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            found: State[Any] = watch("watched", overrides, settle_minutes=0, return_state=True)
        return found

    overrides = [
        "datamodule=base/segmentation",
        f"datamodule.data_path={folder}",
        "datamodule.idx_to_class={1: a, 2: b}",
    ]

    def remove_one() -> None:
        for kind in ("images", "masks"):
            min((folder / kind).iterdir()).unlink()

    assert look().is_completed()
    remove_one()
    with monkeypatch.context() as patch:
        patch.setattr("tasks.events.emit_event", lambda *_, **__: None)  # as where no proxy lets web sockets through
        assert look().name == "changed"
        (event,) = waited(lambda: prefect_service.events("ratchet.data.", "watched") or None, "the event")
        assert event["payload"]["previous"] != event["payload"]["fingerprint"]
        remove_one()
        patch.setattr("tasks.events.get_client", _away)
        assert look().is_failed()
    assert look().name == "changed"


def _away(*_: object, **__: object) -> None:
    raise OSError("no way through")


def test_an_answer_about_another_version_is_none() -> None:
    states: list[State[Any]] = [Suspended(pause_key=key) for key in ("approval-v8-1", "approval-v1-1", "approval-v8-2")]
    assert [questions_about(version, states) for version in (8, 1, 9)] == [[0, 2], [1], []]


def test_a_queue_out_of_which_nothing_begins_is_told(prefect_service: Service) -> None:
    client = prefect_service.client
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    with suppress(ObjectAlreadyExists):
        client.create_work_queue(LONG, work_pool_name=POOL)
    queue = client.read_work_queue_by_name(LONG, POOL).id
    assert list(_queues(client)) == []
    for change, said in (
        ({"is_paused": True}, "is paused"),
        ({"is_paused": False, "concurrency_limit": 0}, "lets no run begin"),
    ):
        client.update_work_queue(queue, **change)
        (finding,) = _queues(client)
        assert finding.bad
        assert said in finding.found
