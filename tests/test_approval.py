"""A person's word before production, on a real Prefect server: asked, answered, too late, overtaken."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from conftest import TINY, WITHOUT_RULES
from PIL import Image
from prefect import flow
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterId, ArtifactFilterKey
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, Pause
from prefect.flow_engine import run_flow
from prefect.input.actions import create_flow_run_input
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_EVENTS_MAXIMUM_SIZE_BYTES,
    temporary_settings,
)
from prefect.states import AwaitingRetry, Cancelling, Crashed, Pending, Running, Suspended
from prefect_service import Service, waited
from prefect_service import prefect_service as prefect_service  # noqa: PLC0414 - a fixture

from flows.retrain import retrain
from flows.service.automations import recovery_automations
from flows.service.deployments import POOL, RESTARTS, TAG
from flows.service.work import ask_for_life, skip_missed
from ratchet import MlflowModelManager, planning
from ratchet.data.shapes import generate
from ratchet.errors import ConfigError, ExperimentNotFoundError, SweepFailedError
from ratchet.form import RetrainForm
from ratchet.monitoring.values import Reading
from ratchet.outcome import Outcome, skip
from ratchet.planning import STOOD_TAG, Plan
from ratchet.registry import BestRun, Event, EventKind, Stage
from ratchet.registry.questions import answer_to, deadline, open_question, question_of
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.report import _pictures, trial_table
from ratchet.training.progress import Progress
from ratchet.training.results import SweepOutcome, TrialResult
from tasks.approval import _question, _silence, end_questions
from tasks.judgement import log_reading
from tasks.kept import Chosen, _keep, keep_images, keep_plan, keep_spent, kept_images
from tasks.progress import gate_progress, sweep_progress
from tasks.retraining import plan_retraining, report, select_best, sweep
from tasks.run_page import artifact_key, tell_errors_in_sentences, this_flow_run, write_page
from tasks.runs import WITH_ALL, is_waiting, missed_runs

MODEL = "asked"
RATES = ("0.001", "0.002", "0.003", "0.004", "0.005")
"""Learning rates: one trial of each, so that each retraining has a challenger of its own."""


@pytest.fixture(scope="module")
def deployment(prefect_service: Service, home: Path) -> Iterator[str]:
    """A deployment whose runs no worker takes: they are run here, in the tests' own process."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.approval._SECONDS_TO_BE_KNOWN", 3.0)  # this server has one process, which knows at once
        retrain.to_deployment("approved", parameters={"model": MODEL, "approval": True}).apply()
        yield "retrain/approved"


def work(service: Service, run: FlowRun) -> FlowRun:
    """Do what a worker's process does with a run."""
    run = service.client.read_flow_run(run.id)
    with suppress(Pause):  # which ends the process of a run that suspends itself
        run_flow(retrain, flow_run=run, parameters=run.parameters, return_type="state")
    return service.client.read_flow_run(run.id)


def resume(service: Service, run: FlowRun, **answer: str) -> int:
    """Answer as the page does; return the status."""
    response = service.client.request("POST", f"/flow_runs/{run.id}/resume", json={"run_input": answer})
    return response.status_code


def overrides(rate: str) -> list[str]:
    return [*TINY, *WITHOUT_RULES, f"optimizer.lr={rate}"]


def history(kind: EventKind | None = None, version: int | None = None) -> list[Event]:
    events = MlflowModelManager().history(MODEL)
    return [e for e in events if kind in (None, e.kind) and version in (None, e.version)]


def stage(version: int) -> Stage:
    return MlflowModelManager().version(MODEL, version).stage


def ask(service: Service, deployment: str, rate: str, **parameters: Any) -> FlowRun:
    run = work(service, service.start(deployment, overrides=overrides(rate), **parameters))
    assert run.state_name == "Suspended", run.state
    return run


def _gone(*_: object) -> None:
    raise OSError("the artifact store is away")


@pytest.mark.flow
@pytest.mark.trains
@pytest.mark.slow
def test_a_person_decides_before_production(prefect_service: Service, deployment: str, home: Path) -> None:
    service = prefect_service
    first = service.start(deployment, overrides=overrides(",".join(RATES)), approval=False)
    first = work(service, first)
    assert (first.state_name, first.name) == ("promoted", f"{MODEL}: 5 trials → v1 promoted")
    _keep_the_champion_that_is_the_best_again(service, deployment)
    unanswered, refused, overtaken, approved = _rates()
    with pytest.MonkeyPatch.context() as patch:  # nobody misses the question for its report
        patch.setattr("tasks.approval.write_page", _gone)
        late = ask(service, deployment, unanswered, approval_hours=0.01)
    _refuse(service, deployment, refused)
    _approve_after_the_champion_moved(service, deployment, overtaken)
    _approve_though_the_data_changed(service, deployment, approved, home)
    _let_the_deadline_pass(service, late)


def test_a_run_that_crashes_while_it_waits_keeps_its_deadline() -> None:
    ended = {name.rpartition(".")[2] for name in _silence(72).expect}
    assert "Cancelled" in ended
    assert "Crashed" not in ended  # it is taken up again, and asks no second time


def _keep_the_champion_that_is_the_best_again(service: Service, deployment: str) -> None:
    before = MlflowModelManager().version(MODEL, 1).tags
    best = next(rate for rate in RATES if rate not in _rates())
    ended = work(service, service.start(deployment, overrides=overrides(f"{best},{_rates()[0]}")))
    assert ended.state is not None
    assert (ended.state_name, ended.name) == ("unchanged", f"{MODEL}: 2 trials → v1 stays")
    assert ended.state.message == "the best trial is that of v1, which is in production already"
    after = dict(MlflowModelManager().version(MODEL, 1).tags)
    assert after.pop(STOOD_TAG)
    assert after == before
    again = work(service, service.start(deployment, overrides=overrides(f"{best},{_rates()[0]}")))
    assert again.state_name == "skipped: unchanged since v1"
    assert [str(event.kind) for event in history()] == ["registered", "gated", "staged", "promoted"]


def _pause_and_resume_on_the_page(service: Service, run: FlowRun) -> FlowRun:
    """Before it asks: then it has a suspension that is none of ours, and a resumption that is no answer."""
    service.client.set_flow_run_state(run.id, Running(), force=True)
    paused = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    body = {"state": paused, "force": True}
    service.client.request("POST", f"/flow_runs/{run.id}/set_state", json=body).raise_for_status()
    assert resume(service, run) == 201
    return work(service, run)


def _rates() -> list[str]:
    """The learning rates whose trials are not the champion's."""
    best = MlflowModelManager().version(MODEL, 1).run_id
    used = str(client().get_run(str(best)).data.params["optimizer.lr"])
    return [rate for rate in RATES if float(rate) != float(used)]


def _refuse(service: Service, deployment: str, rate: str) -> None:
    run = _pause_and_resume_on_the_page(service, service.start(deployment, overrides=overrides(rate)))
    assert run.state_name == "Suspended", run.state
    resume(service, run, decision="refuse", name="Carla", comment="it blurs")
    ended = work(service, run)
    assert ended.state is not None
    assert (ended.state_name, ended.state.is_completed()) == ("refused", True)
    assert str(ended.state.message).startswith("refused by Carla: it blurs")
    assert stage(3) is Stage.ARCHIVED
    assert history(EventKind.REFUSED, 3)[0].who == "Carla"
    assert history(EventKind.ARCHIVED, 3)[0].reason == "refused by Carla: it blurs"
    again = work(service, service.start(deployment, overrides=overrides(rate)))
    assert again.state_name == "skipped: unchanged since v3"


def _approve_after_the_champion_moved(service: Service, deployment: str, rate: str) -> None:
    run = ask(service, deployment, rate)
    MlflowModelManager().transition_model(MODEL, 3, "production", "meanwhile")
    resume(service, run, decision="approve", name="Ben")
    ended = work(service, run)
    assert ended.state_name == "promoted"
    before, after = history(EventKind.GATED, 4)
    assert "v1 has" in before.reason
    assert "v3 has" in after.reason
    promoted = history(EventKind.PROMOTED, 4)[0]
    assert (promoted.replaced, promoted.verdict_digest) == (3, after.verdict_digest)


def _approve_though_the_data_changed(service: Service, deployment: str, rate: str, home: Path) -> None:
    given_up = ask(service, deployment, rate)
    service.client.set_flow_run_state(given_up.id, Cancelling())
    assert service.client.read_flow_run(given_up.id).state_name == "Cancelled"
    run = ask(service, deployment, rate)  # nobody could answer the other one any more
    assert run.name == f"{MODEL}: 1 trial → v5 waits for approval"
    assert stage(5) is Stage.STAGING
    assert open_question(history(), 5) == history(EventKind.ASKED, 5)[1]

    again = work(service, service.start(deployment, overrides=overrides(rate)))
    assert again.state_name == "skipped: unchanged since v5"

    assert resume(service, run, decision="perhaps", name="Anna") == 200  # Prefect's answer to what it refuses
    assert resume(service, run, decision="approve") == 200
    assert service.client.read_flow_run(run.id).state_name == "Suspended"

    generate(home / "data" / "shapes", months=3, images_per_month=30)
    noted = f"{MlflowModelManager().version(MODEL, 5).description}\nchecked on line 3"
    client().update_model_version(MODEL, "5", noted)
    assert resume(service, run, decision="approve", name="Anna", comment="sharp edges") == 201
    ended = work(service, run)
    assert (ended.state_name, ended.name) == ("promoted", f"{MODEL}: 1 trial → v5 promoted")
    assert {f"model:{MODEL}", "verdict:promote"} <= set(ended.tags)
    assert stage(5) is Stage.PRODUCTION
    kinds = ["registered", "gated", "staged", "asked", "asked", "approved", "promoted"]
    assert [str(event.kind) for event in history(version=5)] == kinds
    approved = history(EventKind.APPROVED, 5)[0]
    assert (approved.who, approved.reason, approved.flow_run) == ("Anna", "sharp edges", str(run.id))
    assert MlflowModelManager().version(MODEL, 5).description == noted
    assert "sharp edges" in str(client().get_registered_model(MODEL).description)


def _let_the_deadline_pass(service: Service, run: FlowRun) -> None:
    service.wait(run, until="Deadline")
    ended = work(service, run)
    assert (ended.state_name, ended.name) == ("refused", f"{MODEL}: 1 trial → v2 refused")
    assert "nobody answered" in history(EventKind.REFUSED, 2)[0].reason
    assert stage(2) is Stage.ARCHIVED
    assert len(history(EventKind.GATED, 2)) == 1  # though production changed: what is refused is not judged again


@pytest.mark.flow
@pytest.mark.trains
@pytest.mark.slow
def test_an_approval_that_comes_after_the_deadline_promotes_nothing(
    prefect_service: Service, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ask(prefect_service, deployment, RATES[0], model="late")
    # Prefect takes the answer, as it does until it has noticed that the time is over.
    assert resume(prefect_service, run, decision="approve", name="Ben") == 201
    monkeypatch.setattr("tasks.approval.deadline", lambda _: datetime(2020, 1, 1, tzinfo=UTC))
    ended = work(prefect_service, run)
    assert (ended.state_name, ended.name) == ("refused", "late: 1 trial → v1 refused")
    manager = MlflowModelManager()
    assert (manager.champion("late"), manager.version("late", 1).stage) == (None, Stage.ARCHIVED)
    events = manager.history("late")
    assert [str(event.kind) for event in events] == ["registered", "gated", "staged", "asked", "refused", "archived"]
    assert events[-2].reason == "nobody answered until 2020-01-01 00:00 UTC"


@pytest.mark.flow
def test_a_wrong_value_fails_the_run_in_a_sentence_without_a_trace(prefect_service: Service, deployment: str) -> None:
    run = work(prefect_service, prefect_service.start(deployment, metric="val_iu", approval=False))
    assert run.state is not None
    assert "ConfigError: retrain.metric=val_iu: no trial logs that. Nearest: val_iou" in str(run.state.message)
    assert run.name == MODEL


@pytest.mark.flow
def test_approval_without_a_deployment_is_refused_before_anything_runs(prefect_service: Service, home: Path) -> None:
    state = retrain(overrides=[*TINY], model="nobody", approval=True, return_state=True)
    assert state.is_failed()
    assert "ConfigError: approval needs a deployment" in str(state.message)


@pytest.mark.flow
def test_approval_is_refused_where_the_answer_would_be_cancelled_with_its_run(
    prefect_service: Service, home: Path
) -> None:
    hasty = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    retrain.to_deployment("hasty", parameters={"model": "nobody", "approval": True}, concurrency_limit=hasty).apply()
    run = work(prefect_service, prefect_service.start("retrain/hasty", overrides=[*TINY]))
    assert run.state is not None
    assert run.state.is_failed()
    assert "Set collision: queue in the model file" in str(run.state.message)


@pytest.mark.flow
def test_a_run_does_not_fail_over_its_report(
    prefect_service: Service, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planning.plan_retraining([*TINY, "core.name=untouched"])
    skipped = skip(plan.model_copy(update={"unchanged_since": 1}))
    trial = TrialResult(name="fpn", fingerprint="f", status="finished", run_id="0" * 32)
    swept = SweepOutcome(trials=(trial,), metric="val_iou", mode="max", stopped=None)
    outcome = skipped.model_copy(update={"status": "unchanged", "sweep": swept})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # MLflow went away behind the promotion
    told: list[str] = []
    heard = logging.Handler()
    heard.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("prefect.task_runs").addHandler(heard)

    @flow
    def ended() -> str:
        tell_errors_in_sentences()
        return report(outcome).status

    try:
        assert ended() == "unchanged"
    finally:
        logging.getLogger("prefect.task_runs").removeHandler(heard)
    assert any("the run has no report: ServerUnreachableError: nothing answers" in text for text in told), told


@pytest.mark.flow
def test_production_that_got_worse_is_announced_though_its_curve_was_deleted(
    prefect_service: Service, home: Path
) -> None:
    store = client()
    store.delete_experiment(store.create_experiment("faded in production"))
    reading = Reading(
        model="faded",
        version=1,
        metric="iou",
        state="degraded",
        sentence="production got worse",
        images=40,
        reference_images=40,
        margin=0.05,
        data="d",
    )

    @flow
    def monitored() -> str:
        return log_reading(reading)

    with pytest.raises(ExperimentNotFoundError):
        monitored()
    waited(lambda: prefect_service.events("ratchet.model.degraded", "faded") or None, "the event")


def test_a_picture_that_is_gone_costs_no_more_than_its_place_on_the_page(stored_home: Path) -> None:
    store = client()
    run = store.create_run(ensure_experiment("pictures")).info.run_id
    store.log_image(run, Image.new("RGB", (8, 8)), "report/curves.png")
    shown = _pictures(run, {"Curves": "report/curves.png", "Predictions": "report/predictions.png"})
    assert shown["Curves"].startswith("![Curves](data:image/jpeg;base64,")
    assert shown["Predictions"] == f"MLflow does not give report/predictions.png of the run {run} any more."


def test_tall_pictures_are_made_smaller_until_a_proxy_lets_the_page_through(stored_home: Path) -> None:
    store = client()
    run = store.create_run(ensure_experiment("pictures")).info.run_id
    for name, noise in (("tall", Image.effect_noise((752, 6000), 30)), ("wild", Image.effect_noise((400, 4000), 200))):
        store.log_image(run, noise, f"report/{name}.png")
    shown = _pictures(run, {"Tall": "report/tall.png"})
    assert shown["Tall"].startswith("![Tall](data:image/jpeg;base64,")
    assert len(shown["Tall"]) < 700_000
    assert _pictures(run, {"Wild": "report/wild.png"})["Wild"].startswith("Too large for this page")


@pytest.mark.usefixtures("ratchet_home")
def test_of_thousands_of_trials_the_page_has_the_best() -> None:
    trials = tuple(
        TrialResult(name=f"unet lr={n}", fingerprint=str(n), status="finished", metrics={"val_iou": n / 5000})
        for n in range(3000)
    )
    table = trial_table(SweepOutcome(trials=trials, metric="val_iou", mode="max"))
    assert len(table) < 101_000
    assert "| unet lr=2999 |" in table.split("\n")[4]
    assert table.endswith("; the experiment in MLflow has all.")


@pytest.mark.flow
def test_a_question_leads_to_the_report_of_its_own_run(prefect_service: Service, home: Path) -> None:
    waiting = Outcome(status="waiting", model="reported", version=7, champion=None, summary="promote: it is better")

    @flow
    def asks(writes: bool) -> tuple[str, str]:
        if writes:
            write_page(waiting)
        return this_flow_run().id, _question(asked(7, "one", "2126-01-02T00:00:00+00:00"), "reported")

    first, without, second = asks(True), asks(False), asks(True)
    for run, question in (first, second):
        (page,) = re.findall(r"See \[the report\]\((.*?)\)\.", question)
        assert page.startswith(f"{prefect_service.api.removesuffix('/api')}/artifacts/artifact/")
        own = ArtifactFilter(id=ArtifactFilterId(any_=[UUID(page.rpartition("/")[2])]))
        (written,) = prefect_service.client.read_artifacts(artifact_filter=own)
        assert str(written.flow_run_id) == run
    assert "Its report could not be written. Without an answer" in without[1]


@pytest.mark.flow
def test_a_question_of_a_run_that_is_not_known_here_stands(prefect_service: Service) -> None:
    assert is_waiting(str(uuid4()))


def test_a_password_in_prefects_address_is_no_part_of_its_pages() -> None:
    with temporary_settings({PREFECT_API_URL: "http://me:secret@h.example:4200/api"}):
        assert this_flow_run().page.startswith("http://h.example:4200/runs/")


@pytest.mark.flow
def test_a_question_whose_time_ended_while_no_server_was_there_is_taken_up_by_the_next(
    prefect_service: Service, deployment: str, stored_home: Path
) -> None:
    service, manager = prefect_service, MlflowModelManager()
    store = client()
    store.create_registered_model("slept")
    store.create_model_version("slept", stored_home.as_uri())
    found = service.client.read_deployment_by_name(deployment)
    elsewhere = service.client.create_flow_run_from_deployment(found.id, tags=["model:of-another-registry"])
    service.client.set_flow_run_state(elsewhere.id, Suspended(), force=True)
    waiting = {}
    for until in ("2026-01-02T00:00:00+00:00", "2126-01-02T00:00:00+00:00"):
        run = service.client.create_flow_run_from_deployment(found.id, tags=["model:slept"])
        for state in (Running(), Suspended(pause_key="approval-1")):
            service.client.set_flow_run_state(run.id, state, force=True)
        manager.record("slept", EventKind.ASKED, version=1, key=until, flow_run=str(run.id), until=until)
        waiting[until] = run
    paused = service.client.create_flow_run_from_deployment(found.id, tags=["model:slept"])  # by a person, since
    service.client.set_flow_run_state(paused.id, Suspended(), force=True)
    manager.record(
        "slept", EventKind.ASKED, version=1, key="p", flow_run=str(paused.id), until="2026-01-02T00:00:00+00:00"
    )
    assert end_questions() == [waiting["2026-01-02T00:00:00+00:00"].name]
    assert end_questions() == []
    assert {service.client.read_flow_run(run.id).state_name for run in waiting.values()} == {"Deadline", "Suspended"}


@pytest.mark.flow
@pytest.mark.slow
def test_a_run_that_nobody_waits_for_any_more_is_asked_for_life(prefect_service: Service) -> None:
    client = prefect_service.client
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    found = client.create_deployment(
        flow_id=client.create_flow(retrain), name="silent", work_pool_name=POOL, entrypoint="flows/retrain.py:retrain"
    )
    run = client.create_flow_run_from_deployment(found, tags=[TAG])  # as a rollback's, which is not taken up again
    client.set_flow_run_state(run.id, Running(), force=True)  # before anybody waits, as where its server forgot
    crashes = recovery_automations(silence=10)[0].model_copy(update={"name": "crash what stays silent for 10 s"})
    automation = client.create_automation(crashes)

    def state() -> str:
        now = client.read_flow_run(run.id).state
        return f"{now.name}: {now.message}" if now is not None else ""

    try:
        time.sleep(14)
        assert state().startswith("Running")
        ask_for_life(client)
        waited(lambda: "No heartbeat for 10 s" in state() or None, "the crash of the silent run", seconds=60)
    finally:
        client.delete_automation(automation)


@pytest.mark.flow
def test_a_run_that_was_about_to_begin_is_begun_again_by_a_server_that_forgot_it(
    prefect_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, emitted = prefect_service.client, list[tuple[str, str]]()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    found = client.create_deployment(
        flow_id=client.create_flow(retrain), name="pending", work_pool_name=POOL, entrypoint="flows/retrain.py:retrain"
    )
    runs = [client.create_flow_run_from_deployment(found, tags=tags) for tags in ([TAG, RESTARTS], [TAG])]
    for run in runs:
        client.set_flow_run_state(run.id, Pending(), force=True)
    monkeypatch.setattr(
        "flows.service.work.emit_event",
        lambda event, resource, **_: emitted.append((event, resource["prefect.resource.id"])),
    )
    ask_for_life(client)
    again, never = (f"prefect.flow-run.{run.id}" for run in runs)
    assert {("prefect.flow-run.Pending", again), ("prefect.flow-run.heartbeat", never)} <= set(emitted)
    for run in runs:
        client.delete_flow_run(run.id)


@pytest.mark.flow
def test_a_run_that_is_paused_while_it_works_stays_so_until_it_is_resumed(
    prefect_service: Service, deployment: str
) -> None:
    service = prefect_service
    run = service.start(deployment, metric="val_iu", approval=False)
    paused = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    service.client.set_flow_run_state(run.id, Running(), force=True)
    body = {"state": paused, "force": True}
    service.client.request("POST", f"/flow_runs/{run.id}/set_state", json=body).raise_for_status()
    for state in (Crashed(), AwaitingRetry()):  # Prefect has taken its slot, and so ends its process
        service.client.set_flow_run_state(run.id, state, force=True)
    assert work(service, run).state_name == "Suspended"
    assert resume(service, run) == 201
    ended = work(service, run)
    assert ended.state is not None
    assert ended.state.is_failed()
    assert "val_iu" in str(ended.state.message)


@pytest.mark.flow
def test_a_process_whose_run_has_begun_again_elsewhere_ends_in_silence(
    prefect_service: Service, deployment: str
) -> None:
    service = prefect_service
    run = service.start(deployment)
    for state in (Running(), AwaitingRetry(), Running()):
        service.client.set_flow_run_state(run.id, state, force=True)
    code = "import sys; from tasks.runs import begun_here as f; "
    code += "f(sys.argv[1], int(sys.argv[2]), seconds=0.2); sys.stdin.read(); sys.exit(3)"
    retried = "f(sys.argv[1], 1, seconds=0.2); "
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code.replace("f(", f"{before}f("), str(run.id), count], stdin=subprocess.PIPE
        )
        for before, count in (("", "1"), ("", "2"), (retried, "2"))
    ]
    assert begun[0].wait(120) == 0
    time.sleep(3)  # in which the others look, too
    for process in begun[1:]:
        process.communicate(timeout=60)
    assert [process.returncode for process in begun[1:]] == [3, 3]


@pytest.mark.flow
def test_pages_of_other_sites_may_not_drive_the_server(prefect_service: Service) -> None:
    api = PREFECT_API_URL.value()
    own = str(api).removesuffix("/api")

    def allowed(origin: str) -> str | None:
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return httpx.options(f"{api}/deployments/filter", headers=asks).headers.get("access-control-allow-origin")

    assert allowed("https://evil.example") is None
    assert allowed(own) == own


def test_no_two_models_have_one_report() -> None:
    names = [
        "parts_model",
        "parts-model",
        "Parts_model",
        "parts__model",
        "_parts_model",
        "parts model",
        "トマト",
        "キュウリ",
    ]
    keys = {artifact_key("retrain", name) for name in names}
    assert len(keys) == len(names)
    assert "retrain-parts-model" in keys
    assert all(re.fullmatch("[a-z0-9-]+", key) for key in keys)


def asked(version: int, flow_run: str, until: str) -> Event:
    return Event(id=f"a{flow_run}", kind=EventKind.ASKED, version=version, who="x", flow_run=flow_run, until=until)


def said(version: int, flow_run: str, kind: EventKind = EventKind.APPROVED) -> Event:
    return Event(id=f"s{flow_run}", kind=kind, version=version, who="x", flow_run=flow_run)


def test_a_question_is_open_until_it_is_answered_or_its_time_is_over() -> None:
    one = asked(7, "one", "2026-01-02T00:00:00+00:00")
    before, after = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    assert open_question([one], 7, now=before) == one
    assert open_question([one], 7, now=after) is None
    assert open_question([one], 8, now=before) is None
    assert open_question([one, said(7, "one")], 7, now=before) is None
    assert open_question([one, said(7, "other")], 7, now=before) == one
    assert open_question([one, said(8, "one")], 7, now=before) == one


def test_a_deadline_that_another_program_wrote_without_a_zone_or_not_at_all_keeps_nothing_open() -> None:
    assert deadline(asked(7, "one", "2026-01-02T00:00:00")) == datetime(2026, 1, 2, tzinfo=UTC)
    for until in ("soon", "None"):
        assert open_question([asked(7, "one", until)], 7) is None


def test_the_last_question_counts_and_its_own_answer() -> None:
    one, two = asked(7, "one", "2026-01-02T00:00:00+00:00"), asked(7, "two", "2026-01-03T00:00:00+00:00")
    refused = said(7, "one", EventKind.REFUSED)
    history = [one, refused, two]
    assert open_question(history, 7, now=datetime(2026, 1, 1, tzinfo=UTC)) == two
    assert (answer_to(one, history), answer_to(two, history)) == (refused, None)
    assert (question_of(history, 7, "one"), question_of(history, 7, None)) == (one, None)


@pytest.mark.flow
def test_a_run_that_has_asked_trains_and_chooses_nothing_anew(prefect_service: Service, home: Path) -> None:
    plan = planning.plan_retraining([*TINY, "core.name=untouched"])
    trial = TrialResult(name="fpn", fingerprint="f", status="failed", metrics={"val_iou": float("nan")})
    outcome = SweepOutcome(trials=(trial,), metric="val_iou", mode="max", stopped="max_time 1h reached")
    best = BestRun("run", "val_iou", 0.5, None, datetime(2026, 1, 1, tzinfo=UTC), "runs:/run/deployment_model")

    @flow
    def taken_up() -> tuple[SweepOutcome, BestRun]:
        for _ in range(2):
            keep_plan(plan, Chosen(sweep=outcome, best=best))
        return sweep(plan), select_best(plan, outcome)

    kept, chosen = taken_up()
    assert (repr(kept), chosen) == (repr(outcome), best)
    assert client().get_experiment_by_name("untouched") is None


@pytest.mark.flow
def test_a_run_that_is_taken_up_again_plans_on_the_images_that_it_began_with(
    prefect_service: Service, home: Path, tmp_path: Path
) -> None:
    form = RetrainForm(overrides=(*TINY, f"datamodule.data_path={tmp_path / 'grows'}", "core.name=grown"))

    @flow
    def interrupted() -> tuple[Plan, Plan]:
        first = plan_retraining(form)
        generate(tmp_path / "grows", months=3, images_per_month=30)
        return first, plan_retraining(form)

    @flow
    def the_next() -> Plan:
        return plan_retraining(form)

    first, again = interrupted()
    assert (again.fingerprint, again.trials[0].samples) == (first.fingerprint, first.trials[0].samples)
    assert len(the_next().trials[0].samples or ()) > len(first.trials[0].samples or ()) > 0


@pytest.mark.flow
def test_only_crashes_count_against_a_run(prefect_service: Service, deployment: str) -> None:
    service = prefect_service
    crashed, again = "this run crashed 4 times", AwaitingRetry()
    for states, told in (
        ((again,), "retrain.metric=val_iu"),
        ((Crashed(), again), crashed),
        ((AwaitingRetry(message=f"{WITH_ALL}: its worker ended"),), crashed),
    ):
        run = service.start(deployment, metric="val_iu", approval=False)
        for state in 4 * (Running(), *states):
            service.client.set_flow_run_state(run.id, state)
        ended = work(service, run)
        assert ended.run_count == 5
        assert ended.state is not None
        assert told in str(ended.state.message)


def shown(service: Service, key: str) -> list[Any]:
    of_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    return service.client.read_artifacts(artifact_filter=of_key)


@pytest.mark.flow
def test_progress_that_somebody_deleted_is_shown_anew_and_stops_nothing(prefect_service: Service) -> None:
    @flow
    def judges() -> None:
        with gate_progress("shown") as report:
            report(3, 3)
            (first,) = shown(prefect_service, "gate-shown")
            prefect_service.client.delete_artifact(first.id)
            report(3, 3)
            assert not shown(prefect_service, "gate-shown")
            report(3, 3)
            with temporary_settings({PREFECT_SERVER_EVENTS_MAXIMUM_SIZE_BYTES: 10}):  # an event that is too large
                report(3, 3)

    judges()
    assert [artifact.data for artifact in shown(prefect_service, "gate-shown")] == [100.0]


@pytest.mark.flow
def test_a_sweep_that_fails_leaves_its_progress_as_it_ended(prefect_service: Service, home: Path) -> None:
    plan = planning.plan_retraining([*TINY, "core.name=untouched", "retrain.model=in_vain"])
    progress = Progress(epoch=3, max_epochs=20, step=3, steps_per_epoch=1)
    begun = TrialResult(name="fpn", fingerprint="f", status="running", progress=progress)

    @flow
    def fails() -> None:
        with sweep_progress(plan) as told:
            told.trials([begun])
            told.trials([begun.model_copy(update={"status": "failed", "error": "out of memory"})])
            raise SweepFailedError("no trial finished")

    with pytest.raises(SweepFailedError):
        fails()
    (table,), (bar,) = (shown(prefect_service, f"{kind}-in-vain") for kind in ("trials", "training"))
    assert "failed: out of memory" in table.data
    assert bar.data == 15.0


@pytest.mark.flow
def test_a_plan_that_another_version_has_kept_is_told_as_that(prefect_service: Service, home: Path) -> None:
    text = planning.plan_retraining([*TINY, "core.name=older"]).to_yaml()
    assert "\n      sweep:\n" in text

    @flow
    def taken_up() -> None:
        _keep("ratchet-plan", text.replace("\n      sweep:\n", "\n      sweep:\n        later: 1\n", 1))
        plan_retraining(RetrainForm(model="older"))

    with pytest.raises(ConfigError, match=r"began under another version of Ratchet.*later\)"):
        taken_up()


@pytest.mark.flow
@pytest.mark.trains
def test_a_sweep_that_is_taken_up_again_has_what_was_left_of_its_time(prefect_service: Service, home: Path) -> None:
    plan = planning.plan_retraining([*TINY, "core.name=bounded", "sweep.max_time=1h", "optimizer.lr=0.0123"])

    @flow
    def taken_up() -> None:
        for seconds in (1800.0, 3600.0):
            keep_spent(seconds)
        sweep(plan)

    with pytest.raises(SweepFailedError, match="1 of 1 trials not started, max_time 1h reached"):
        taken_up()


@pytest.mark.flow
def test_the_names_of_many_images_are_kept_in_parts_that_a_proxy_lets_through(prefect_service: Service) -> None:
    names = frozenset(uuid4().hex for _ in range(60_000))

    @flow
    def interrupted() -> tuple[str, list[frozenset[str] | None]]:
        create_flow_run_input("ratchet-images-0", "of this run's first beginning, which ended before the next part")
        before = kept_images()
        keep_images(names)
        return this_flow_run().id, [before, kept_images()]

    @flow
    def begun_before_there_were_parts() -> frozenset[str] | None:
        packed = zlib.compress(json.dumps(["b", "a"]).encode())
        create_flow_run_input("ratchet-images", base64.b64encode(packed).decode())
        return kept_images()

    assert begun_before_there_were_parts() == {"a", "b"}
    run_id, kept = interrupted()
    assert kept == [None, names]
    read = partial(prefect_service.client.read_flow_run_input, UUID(run_id))
    parts = [read(f"ratchet-images-{number}") for number in range(int(read("ratchet-images")))]
    assert len(parts) > 2
    assert max(map(len, parts)) < 512_000


@pytest.mark.flow
@pytest.mark.slow
def test_of_more_missed_runs_than_fit_into_an_answer_the_newest_stands(prefect_service: Service) -> None:
    client = prefect_service.client
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    found = client.create_deployment(
        flow_id=client.create_flow(retrain),
        name="missed",
        schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 * * *"))],
        work_pool_name=POOL,
        entrypoint="flows/retrain.py:retrain",
    )
    now = datetime.now(UTC)
    due = {"start_time": (now - timedelta(days=220)).isoformat(), "end_time": now.isoformat()}
    body = {**due, "min_runs": 210, "max_runs": 210}  # an answer has 200
    try:
        client.request("POST", f"/deployments/{found}/schedule", json=body).raise_for_status()
        missed = missed_runs(client, deployment_id=found)
        times = [run.expected_start_time for run in missed]
        assert (len({run.id for run in missed}), times) == (210, sorted(times))
        assert skip_missed(client) >= 209
        assert [run.id for run in missed_runs(client, deployment_id=found)] == [missed[-1].id]
    finally:
        client.delete_deployment(found)
