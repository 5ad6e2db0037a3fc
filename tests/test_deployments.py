"""Deployments on a real Prefect server with a real worker: one story, whose parts follow each other."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import TINY
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Completed, Pending, Running
from prefect_service import Service, own_environment, waited
from prefect_service import prefect_service as prefect_service  # noqa: PLC0414 - a fixture

from ratchet import MlflowModelManager
from ratchet.data.shapes import generate
from ratchet.registry.tracking import client
from ratchet.registry.values import AUTHOR_TAG
from ratchet.run_names import FINGERPRINT_TAG
from ratchet.training.opening import RESUMED_TAG

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.flow, pytest.mark.trains, pytest.mark.slow]

MODEL = {
    "name": "m",
    "experiment": "generic/shapes/segmentation/smp",
    "overrides": [*TINY[1:], "gate=permissive", "gate.floor=0.0"],
    "schedules": {"retrain": "0 0 1 1 *", "monitor": "0 0 1 1 *", "watch": "0 0 1 1 *", "prune": "0 0 1 1 *"},
    "watch": {"settle_minutes": 0},
}
OTHER = {"name": "other", "experiment": "generic/shapes/segmentation/smp", "collision": "refuse", "enabled": False}
SILENCE = 35.0  # seconds; a heartbeat comes every 30


@pytest.fixture(scope="module")
def service(prefect_service: Service) -> Iterator[Service]:
    """The service with two models, both deployed, and a worker."""
    folder = prefect_service.home / "deployments" / "models"
    folder.mkdir(parents=True)
    for model in (MODEL, OTHER):
        (folder / f"{model['name']}.yaml").write_text(yaml.safe_dump(model))
    with pytest.MonkeyPatch.context() as patch:
        # As long as this module runs: other modules have their own homes.
        patch.setenv("RATCHET_HOME", str(prefect_service.home))
        _deploy(prefect_service)
        prefect_service.start_worker()
        yield prefect_service
        prefect_service.kill_worker()


def _deploy(service: Service, **options: Any) -> dict[tuple[str, str], str]:
    from flows.service.deploying import deploy, load_declaration

    declared = load_declaration(service.home / "deployments" / "models")
    changes = deploy(declared, service.client, silence=SILENCE, **options)
    return {(change.kind, change.name): change.action for change in changes}


def test_a_run_whose_worker_and_process_are_killed_is_taken_up_again_and_finishes_once(service: Service) -> None:
    run = service.start("retrain/on-demand-m")
    service.wait(run, until="Running")
    waited(lambda: next(service.home.glob("trials/*/trial.json"), None), "a trial that has begun")
    service.kill_worker()
    assert service.client.read_flow_run(run.id).state_name == "Running"  # nobody is left to say otherwise

    _deploying_twice_is_as_once(service)
    _prefects_own_command_makes_the_same(service)

    service.wait(run, until="AwaitingRetry")
    service.start_worker()
    ended = service.wait(run)
    assert (ended.state_name, ended.run_count) == ("promoted", 2)
    states = [state.name for state in service.client.read_flow_run_states(run.id)]
    assert states[states.index("Running") + 1 :][:2] == ["Crashed", "AwaitingRetry"]
    manager = MlflowModelManager()
    assert [version.version for version in manager.versions("m")] == [1]
    kinds = ["registered", "gated", "staged", "promoted"]
    assert [str(event.kind) for event in manager.history("m")] == kinds
    events = waited(lambda: found if len(found := service.events("ratchet.model.", "m")) >= 4 else None, "the events")
    assert [event["event"].removeprefix("ratchet.model.") for event in events] == kinds
    assert events[-1]["payload"]["version"] == 1
    assert events[-1]["resource"]["ratchet.version"] == "1"
    _the_trial_went_on_in_its_run()


def _the_trial_went_on_in_its_run() -> None:
    store = client()
    (experiment,) = [found for found in store.search_experiments() if found.name == "tiny"]
    (trial,) = [run for run in store.search_runs([experiment.experiment_id]) if FINGERPRINT_TAG in run.data.tags]
    assert trial.info.status == "FINISHED"
    assert RESUMED_TAG in trial.data.tags


def _deploying_twice_is_as_once(service: Service) -> None:
    again = _deploy(service)
    assert set(again.values()) == {"unchanged"}
    assert len([name for kind, name in again if kind == "deployment"]) == 20


def _prefects_own_command_makes_the_same(service: Service) -> None:
    from flows.service.models import load_models
    from flows.service.prefect_file import render

    folder = service.home / "deployments"
    (folder / "prefect.yaml").write_text(render(load_models(folder / "models")))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        [*command, "--prefect-file", "deployments/prefect.yaml"],
        cwd=service.home,
        env=own_environment(PREFECT_API_URL=service.api, PREFECT_HOME=str(service.home / "prefect")),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # It knows no tags of automations, and makes its own in the place of ours: ours come back, and none is there twice.
    changed = {name for (kind, name), action in _deploy(service).items() if action != "unchanged"}
    assert changed == {f"retrain {model} on {what}" for model in ("m", "other") for what in ("new data", "degradation")}
    assert set(_deploy(service).values()) == {"unchanged"}


def test_new_data_are_seen_and_retrained_on_and_a_second_run_waits_for_the_first(service: Service) -> None:
    generate(service.home / "data" / "shapes", months=3, images_per_month=30)
    monitored = service.start("monitor/scheduled-m")
    watched = service.wait(service.start("watch/scheduled-m"))
    assert watched.state_name == "changed"
    (event,) = waited(lambda: service.events("ratchet.data.", "m") or None, "the event")
    assert event["payload"]["previous"] != event["payload"]["fingerprint"]

    run = waited(lambda: next(iter(service.runs("retrain/on-new-data-m")), None), "the run that the event starts")
    service.wait(run, until="Running")
    second = service.start("retrain/on-demand-m")
    service.wait(second, until="AwaitingConcurrencySlot")
    assert service.wait(run).state_name in ("promoted", "rejected", "inconclusive")
    assert str(service.wait(second).state_name).startswith("skipped: unchanged")
    assert MlflowModelManager().get_latest_version("m").version == 2
    _the_monitor_logged_its_reading(service.wait(monitored).state_name)
    assert service.wait(service.start("watch/scheduled-m")).state_name == "unchanged"


def _the_monitor_logged_its_reading(state: str | None) -> None:
    assert state in ("healthy", "degraded", "undecided")
    store = client()
    experiment = store.get_experiment_by_name("m in production")
    assert experiment is not None
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.run_name == "v1"
    assert run.data.tags["ratchet.state"] == state
    assert run.data.metrics["images"] >= 10


def test_after_downtime_one_scheduled_run_starts(service: Service) -> None:
    service.kill_worker()
    _miss_five_years(service, "retrain/scheduled-m")
    service.start_worker()

    def settled() -> list[str] | None:
        due = _due(service, "retrain/scheduled-m")
        names = [str(run.state_name) for run in due]
        return names if all(run.state is not None and run.state.is_final() for run in due) else None

    names = waited(settled, "the end of all missed runs", 180)
    assert sorted(name.split(":")[0] for name in names) == ["Missed"] * 4 + ["skipped"]


def _miss_five_years(service: Service, name: str) -> None:
    """Let the server plan the runs that were due in five years, one in each."""
    deployment, now = service.client.read_deployment_by_name(name), datetime.now(UTC)
    times = {"start_time": (now - timedelta(days=366 * 5)).isoformat(), "end_time": now.isoformat()}
    body = {**times, "min_runs": 5, "max_runs": 5}
    service.client.request("POST", f"/deployments/{deployment.id}/schedule", json=body).raise_for_status()


def _due(service: Service, name: str) -> list[FlowRun]:
    """The runs of a schedule that were due by now, the first one first."""
    due = [run for run in service.runs(name) if run.auto_scheduled and run.expected_start_time < datetime.now(UTC)]
    return sorted(due, key=lambda run: run.expected_start_time)


def test_people_promote_roll_back_and_prune_from_the_page(service: Service) -> None:
    manager = MlflowModelManager()
    champion = manager.champion("m")
    assert champion is not None
    other = 2 if champion.version == 1 else 1
    never = {"name": "never", "floor": 1.0, "superiority": None}
    judged = service.start("gate/on-demand-m", version=other)
    own = service.start("gate/on-demand-m", version=other, policy="own", own_policy=never)
    # Before the promotion: a version in production is refused for being there already, whatever the policy.
    assert service.wait(judged).state_name in ("promote", "reject", "inconclusive")
    refused = service.wait(own).state
    assert refused is not None
    assert (refused.name, "must be at least 1" in str(refused.message)) == ("reject", True)
    promoted = service.wait(service.start("promote/on-demand-m", version=other, reason="a demo"))
    assert promoted.state_type is not None
    assert promoted.state_type.value == "COMPLETED"
    assert promoted.name == f"m: v{other} to production"
    assert manager.version("m", "production").version == other
    rolled = service.wait(service.start("rollback/on-demand-m", reason="it blurs"))
    assert rolled.state is not None
    assert rolled.state.message == f"v{champion.version} of m is in production again"
    (event,) = waited(lambda: service.events("ratchet.model.rolled-back", "m") or None, "the event")
    assert event["payload"]["reason"] == "it blurs"
    assert (event["payload"]["version"], event["payload"]["target"]) == (other, champion.version)
    _prune_what_is_of_no_use(service, manager)


def _prune_what_is_of_no_use(service: Service, manager: MlflowModelManager) -> None:
    """One version is in production, and one in quarantine."""
    made_by = {AUTHOR_TAG: "anna@here"}
    number = int(client().create_model_version("m", (service.home / "of-no-use").as_uri(), tags=made_by).version)
    manager.transition_model("m", number, "archived")
    pruned = service.wait(service.start("prune/weekly-m", keep=0)).state
    assert pruned is not None
    assert str(pruned.message).startswith(f"gone: v{number}")
    assert number not in [version.version for version in manager.versions("m")]


def test_a_policy_that_is_none_is_refused_before_a_run_is_made(service: Service) -> None:
    for wrong, key in (({"floor": 3}, "own_policy.floor"), ({"florr": 0.5}, "florr")):
        with pytest.raises(PrefectHTTPStatusError, match="409") as refused:
            service.start("gate/on-demand-m", version=1, policy="own", own_policy=wrong)
        assert key in refused.value.response.text


def test_a_model_that_refuses_a_second_run_still_queues_that_of_new_data() -> None:
    from flows.service.deployments import all_deployments, full_name
    from flows.service.models import ModelFile

    made = all_deployments([ModelFile.model_validate(OTHER)])
    strategies = {full_name(one): one["concurrency_limit"]["collision_strategy"] for one in made}
    assert strategies["retrain/on-new-data-other"] == "ENQUEUE"
    for when in ("on-demand", "on-degradation", "scheduled"):
        assert strategies[f"retrain/{when}-other"] == "CANCEL_NEW"


def test_degradation_starts_a_retraining(service: Service) -> None:
    service.emit("ratchet.model.degraded", "m", sentence="said by a test")
    run = waited(lambda: next(iter(service.runs("retrain/on-degradation-m")), None), "the run that the event starts")
    assert str(service.wait(run).state_name).startswith("skipped")


def test_of_two_runs_of_a_model_that_refuses_one_is_cancelled(service: Service) -> None:
    runs = [service.start("retrain/on-demand-other"), service.start("retrain/on-degradation-other")]
    refused = waited(
        lambda: next((run for run in runs if service.client.read_flow_run(run.id).state_name == "Cancelled"), None),
        "the refusal",
    )
    assert service.client.read_flow_run(refused.id).state.message == "Deployment concurrency limit reached."
    service.kill_worker()


def test_a_run_that_was_being_cancelled_when_its_worker_died_keeps_no_other_waiting(service: Service) -> None:
    from flows.service.work import take_up

    def slots() -> int:
        return service.client.read_global_concurrency_limit_by_name("retrain m").active_slots

    run = service.start("retrain/on-demand-m")
    for state in (Pending(), Running(), Cancelling()):
        service.client.set_flow_run_state(run.id, state)
    assert slots() == 1
    assert run.name not in take_up(service.client)
    assert service.client.read_flow_run(run.id).state_name == "Cancelled"
    assert slots() == 0


@pytest.mark.parametrize("died", [False, True])
def test_what_a_worker_left_is_taken_up_and_what_must_not_be_repeated_is_not(service: Service, died: bool) -> None:
    from flows.service.work import take_up
    from tasks.runs import WITH_ALL

    service.kill_worker()
    runs = [service.start("retrain/on-demand-m"), service.start("rollback/on-demand-m")]
    for run in runs:
        for state in (Pending(), Running()):
            service.client.set_flow_run_state(run.id, state)
    not_begun = service.start("gate/on-demand-m", version=1)
    names, why = take_up(service.client, died=died), WITH_ALL if died else "Taken up again"
    assert [run.name in names for run in (*runs, not_begun)] == [True, False, False]
    retrain, rollback, gate = (service.client.read_flow_run(run.id) for run in (*runs, not_begun))
    assert retrain.state is not None
    assert (retrain.state.name, retrain.state.message) == ("AwaitingRetry", f"{why}: its worker ended before it.")
    assert rollback.state_name == "Crashed"
    assert gate.state is not None
    assert gate.state.is_scheduled()
    for run in (retrain, gate):
        service.client.set_flow_run_state(run.id, Cancelled())


def test_of_the_scheduled_runs_that_were_missed_the_last_one_stands_and_what_a_person_started(service: Service) -> None:
    from flows.service.work import skip_missed

    service.kill_worker()
    asked = service.start("prune/weekly-m")
    _miss_five_years(service, "prune/weekly-m")
    assert skip_missed(service.client) == 4
    *missed, last = _due(service, "prune/weekly-m")
    assert [run.state_name for run in missed] == ["Missed"] * 4
    for run in (last, service.client.read_flow_run(asked.id)):
        assert run.state is not None
        assert run.state.is_scheduled()
        service.client.set_flow_run_state(run.id, Cancelled())


def test_a_rollback_waits_for_none_of_the_long_runs_that_are_due(service: Service) -> None:
    from flows.service.deployments import LONG, POOL, RUNS
    from flows.service.work import limit_runs

    client = service.client
    client.update_work_queue(
        client.read_work_queue_by_name(LONG, POOL).id, concurrency_limit=None
    )  # as Prefect's command
    assert _deploy(service)["work queue", LONG] == "updated"
    assert client.read_work_queue_by_name(LONG, POOL).concurrency_limit == RUNS
    limit_runs(client, 4)
    long = [service.start(f"{name}-m") for name in ("retrain/on-demand", "monitor/scheduled", "watch/scheduled")]
    long.append(service.start("gate/on-demand-m", version=1))
    for run in long:  # not Running, which a heart would have to beat for
        assert client.set_flow_run_state(run.id, Pending()).status is SetStateStatus.ACCEPT
    late, rollback = service.start("retrain/on-demand-other"), service.start("rollback/on-demand-m")
    try:
        soon = datetime.now(UTC) + timedelta(seconds=5)
        due = [found.flow_run.id for found in client.get_scheduled_flow_runs_for_work_pool(POOL, None, soon)]
        assert (rollback.id in due, late.id in due) == (True, False)
    finally:
        for run in long:
            client.set_flow_run_state(run.id, Completed())
        for run in (late, rollback):
            client.set_flow_run_state(run.id, Cancelled())


def test_a_notice_reaches_its_webhook_and_one_without_a_block_is_told(service: Service) -> None:
    from prefect.blocks.webhook import Webhook

    from flows.service.deploying import load_declaration
    from flows.service.doctor import _prefect
    from ratchet.errors import ConfigError

    notice = {
        "name": "notice: for a test",
        "enabled": True,
        "block": "webhook/heard",
        "events": ["ratchet.model.promoted"],
        "models": ["m"],
        "body": '{"told": {{ event.payload.version }}}',
    }
    (service.home / "deployments" / "notices.yaml").write_text(yaml.safe_dump([notice]))
    with pytest.raises(ConfigError, match="there is no block webhook/heard"):
        _deploy(service)
    found = list(_prefect(load_declaration(service.home / "deployments" / "models"), "ratchet deploy"))
    told = "'notice: for a test' is on, and there is no block webhook/heard"
    assert [finding.found for finding in found if finding.check == "notice"] == [told]
    assert "deployments" in {finding.check for finding in found}
    with listening() as (address, heard):
        Webhook(url=address).save("heard")
        assert _deploy(service)["automation", notice["name"]] == "created"

        def told() -> str | None:
            # An automation is heard of by the server's triggers a moment after it was made.
            service.emit("ratchet.model.promoted", "m", version=7)
            return heard[0] if heard else None

        assert waited(told, "the notice") == '{"told": 7}'
    (service.home / "deployments" / "notices.yaml").write_text(yaml.safe_dump([notice | {"enabled": False}]))
    assert _deploy(service)["automation", notice["name"]] == "removed"
    (service.home / "deployments" / "notices.yaml").unlink()


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A web server that keeps the bodies of what is posted to it."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()


def test_a_model_without_a_file_is_reported_and_goes_when_asked(service: Service) -> None:
    (service.home / "deployments" / "models" / "other.yaml").unlink()
    found = _deploy(service)
    assert found["deployment", "retrain/scheduled-other"] == "left"
    assert found["automation", "retrain other on new data"] == "left"
    assert len([action for action in found.values() if action == "left"]) == 12
    assert set(_deploy(service, prune=True).values()) == {"unchanged", "removed"}
    assert set(_deploy(service).values()) == {"unchanged"}
    (service.home / "deployments" / "models" / "other.yaml").write_text(yaml.safe_dump(OTHER))
    _deploy(service)


def test_what_would_be_done_is_told_before_it_is_there(service: Service) -> None:
    models = service.home / "deployments" / "models"
    (models / "third.yaml").write_text((models / "m.yaml").read_text().replace("name: m\n", "name: third\n"))
    try:
        found = _deploy(service, dry_run=True)
    finally:
        (models / "third.yaml").unlink()
    assert found["deployment", "retrain/scheduled-third"] == "created"
    assert found["automation", "retrain third on new data"] == "created"
    assert found["automation", "retrain m on new data"] == "unchanged"
    assert set(_deploy(service).values()) == {"unchanged"}


def test_what_somebody_paused_stays_paused(service: Service) -> None:
    deployment = service.client.read_deployment_by_name("retrain/scheduled-m")
    service.client.pause_deployment(deployment.id)
    path = service.home / "deployments" / "models" / "m.yaml"
    path.write_text(path.read_text().replace("0 0 1 1 *", "0 0 2 1 *", 1))
    changes = _deploy(service)
    assert "updated" in changes.values()
    assert changes["schedule", "retrain/scheduled-m"] == "off"
    assert service.client.read_deployment(deployment.id).paused
    service.client.resume_deployment(deployment.id)


def test_what_somebody_switched_off_on_the_page_stays_off_and_is_told(service: Service) -> None:
    client, path = service.client, service.home / "deployments" / "models" / "m.yaml"
    deployment = client.read_deployment_by_name("watch/scheduled-m")
    (schedule,) = deployment.schedules
    client.request(
        "PATCH", f"/deployments/{deployment.id}/schedules/{schedule.id}", json={"active": False}
    ).raise_for_status()
    (chain,) = client.read_automations_by_name("retrain m on degradation")
    client.pause_automation(chain.id)
    path.write_text(path.read_text().replace("watch: 0 0 1 1 *", "watch: 0 0 3 1 *"))
    changes = _deploy(service)
    assert changes["deployment", "watch/scheduled-m"] == "updated"
    assert changes["schedule", "watch/scheduled-m"] == "off"
    (schedule,) = client.read_deployment(deployment.id).schedules
    assert (schedule.active, getattr(schedule.schedule, "cron", "")) == (False, "0 0 3 1 *")
    (chain,) = client.read_automations_by_name("retrain m on degradation")
    assert not chain.enabled
    client.resume_automation(chain.id)
    client.request(
        "PATCH", f"/deployments/{deployment.id}/schedules/{schedule.id}", json={"active": True}
    ).raise_for_status()
    assert set(_deploy(service).values()) == {"unchanged"}


def test_what_a_model_file_switches_off_goes_on_when_the_file_says_so(service: Service) -> None:
    path = service.home / "deployments" / "models" / "other.yaml"
    assert not service.client.read_deployment_by_name("watch/scheduled-other").schedules[0].active
    text = path.read_text()
    try:
        path.write_text(text.replace("enabled: false", "enabled: true"))
        assert "off" not in _deploy(service).values()
        assert service.client.read_deployment_by_name("watch/scheduled-other").schedules[0].active
        (chain,) = service.client.read_automations_by_name("retrain other on degradation")
        assert chain.enabled
    finally:
        path.write_text(text)
    _deploy(service)
    assert not service.client.read_deployment_by_name("watch/scheduled-other").schedules[0].active


def test_a_run_whose_model_is_pruned_from_the_server_comes_to_its_end(service: Service) -> None:
    client, path = service.client, service.home / "deployments" / "models" / "other.yaml"
    limit = partial(client.read_global_concurrency_limit_by_name, "retrain other")
    waited(lambda: not limit().active_slots or None, "the slot of a run that was killed before", 400)
    run = service.start("retrain/on-demand-other")
    service.kill_worker()
    for state in (Pending(), Running()):
        client.set_flow_run_state(run.id, state)
    text = path.read_text()
    path.unlink()
    try:
        _deploy(service, prune=True)
        client.set_flow_run_state(run.id, Completed())
        assert client.read_flow_run(run.id).state_name == "Completed"
    finally:
        path.write_text(text)
        _deploy(service)
