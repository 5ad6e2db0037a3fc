"""The command line as its users type it: on the embedded store, and on a real MLflow server over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY, WITHOUT_RULES
from exported_models import BEST, Brightness, export
from prefect_service import living, own_environment, waited

from flows.cli import main
from ratchet import MlflowModelManager
from ratchet.registry.tracking import client
from ratchet.run_names import FINGERPRINT_TAG
from ratchet.training.folder import Snapshot

pytest_plugins = ["registry_backends"]

RATCHET = str(Path(sys.executable).parent / "ratchet")


def ratchet(
    *arguments: str, home: Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RATCHET, *arguments],
        env=own_environment(RATCHET_HOME=str(home), **environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_help_answers_without_loading_what_trains() -> None:
    slow = ("torch", "mlflow", "prefect", "hydra")
    script = f"import sys; from flows.cli import main; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_that_is_called_as_the_package_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "ratchet").mkdir()
    script = "from ratchet import MlflowModelManager"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_mistake_is_told_in_a_sentence_and_fails(tmp_path: Path) -> None:
    done = ratchet("train", "trainer.max_epoch=3", home=tmp_path)
    assert done.returncode == 1
    assert "trainer.max_epochs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.trains
def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    done = ratchet("train", *TINY, home=tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "ServerUnreachableError" in done.stderr
    assert "http://127.0.0.1:9" in done.stderr


@pytest.mark.trains
def test_a_prefect_server_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = ratchet("retrain", *TINY, home=tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert "ServerUnreachableError" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.flow
@pytest.mark.trains
@pytest.mark.slow
def test_a_retraining_goes_no_further_than_it_may_and_is_skipped_the_second_time(
    stored_home: Path, tmp_path: Path
) -> None:
    asked = ("retrain", *TINY, *WITHOUT_RULES, "--model", "m", "--to", "staging")
    first, again = (ratchet(*asked, home=stored_home, HOME=str(tmp_path)) for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    for done in (first, again):
        assert "champion of m: none yet" in done.stdout
    assert "skipped: unchanged since v1" not in first.stdout
    assert "skipped: unchanged since v1" in again.stdout
    manager = MlflowModelManager()
    assert [str(version.stage) for version in manager.versions("m")] == ["Staging"]
    assert [str(event.kind) for event in manager.history("m")] == ["registered", "gated", "staged"]


@pytest.mark.usefixtures("stored_home")
def test_a_version_is_released_by_the_training_that_was_rolled_back(tmp_path: Path) -> None:
    manager, model = MlflowModelManager(), export(tmp_path / "model", Brightness(BEST))
    for number, mark in enumerate(("one", "bad", "bad")):
        shutil.copytree(model, tmp_path / f"{number}")
        manager.register_model(str(tmp_path / f"{number}"), "m", tags={FINGERPRINT_TAG: mark})
    for number in (1, 2):
        manager.promote("m", number)
    manager.rollback("m", "it blurs")
    assert "v3 of m may be promoted again" in CliRunner().invoke(main, ["release", "m", "3"]).stdout


def test_a_person_promotes_a_version_under_the_rules_of_the_registry(stored_home: Path, tmp_path: Path) -> None:
    manager, model = MlflowModelManager(), export(tmp_path / "model", Brightness(BEST))
    for number in ("one", "two"):
        shutil.copytree(model, tmp_path / number)
        manager.register_model(str(tmp_path / number), "m")

    def promote(*arguments: str) -> str:
        return CliRunner().invoke(main, ["promote", "m", *arguments]).output

    assert "v1 of m is in production" in promote("1")
    assert "v2 of m is in staging" in promote("2", "--to", "staging", "--reason", "try it")
    assert "VersionNotFoundError" in promote("3")
    for other in ("9", "0"):
        assert "ChampionMovedError" in promote("2", "--replacing", other)
    assert "v2 of m is in production" in promote("2", "--replacing", "1")
    manager.rollback("m")
    assert "QuarantinedError" in promote("2")
    told = [(str(event.kind), event.version, event.reason) for event in manager.history("m")[2:]]
    assert told[:2] == [("promoted", 1, ""), ("staged", 2, "try it")]
    assert [kind for kind, *_ in told[2:]] == ["promoted", "rolled back"]


@pytest.mark.usefixtures("ratchet_home")
def test_a_retraining_takes_the_sign_of_a_sweep_that_it_does_not_need() -> None:
    for sign in ("-m", "--multirun"):
        assert CliRunner().invoke(main, ["retrain", sign, "--help"]).exit_code == 0


@pytest.mark.trains
@pytest.mark.parametrize(
    ("all_of_it", "workers"),
    [(True, 2), (False, 0)],
    ids=["as a scheduler ends a job", "the command alone"],
)
def test_a_sweep_that_is_told_to_end_leaves_checkpoints_and_closed_runs(
    tmp_path: Path, stored_home: Path, all_of_it: bool, workers: int
) -> None:
    long = ["trainer.max_epochs=2000", "sweep.checkpoint_minutes=60", "logger.seconds=3600", "logger.batch=1000000"]
    long.append(f"datamodule.num_workers={workers}")
    with (tmp_path / "said").open("w") as said:
        sweep = subprocess.Popen([RATCHET, "train", *TINY, *long], stdout=said, stderr=said, start_new_session=True)
    step, deadline = 0, time.monotonic() + 120
    while step < 5:
        assert sweep.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < deadline, (tmp_path / "said").read_text()
        time.sleep(0.2)
        for unsent in stored_home.glob("trials/*/unsent-metrics.jsonl"):
            rows = [json.loads(line) for line in unsent.read_text().splitlines()[:-1]]
            step = max([step, *(row["step"] for row in rows)])
    (os.killpg if all_of_it else os.kill)(sweep.pid, signal.SIGTERM)
    assert sweep.wait(60) == 128 + signal.SIGTERM, (tmp_path / "said").read_text()
    (snapshot,) = stored_home.glob("trials/*/snapshot-*")
    assert Snapshot.read(snapshot).facts.step >= step
    runs = client().search_runs([e.experiment_id for e in client().search_experiments()])
    assert {run.info.status for run in runs} == {"KILLED"}


@pytest.mark.flow
@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "whom", "status"),
    [(signal.SIGINT, "group", 130), (signal.SIGTERM, "job", 143), (signal.SIGKILL, "command", -signal.SIGKILL)],
)
def test_a_retraining_that_is_ended_tells_prefect_and_leaves_no_server(
    tmp_path: Path, empty_store: Path, sign: signal.Signals, whom: str, status: int
) -> None:
    home, said = tmp_path / "home", tmp_path / "said"
    home.mkdir()
    shutil.copy(empty_store, home)
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "profiles.toml").write_text('active = "mine"\n\n[profiles.mine]\n')  # without an address
    environment = own_environment(RATCHET_HOME=str(home), HOME=str(tmp_path), OURS=str(tmp_path))
    command = [RATCHET, "retrain", *TINY, *WITHOUT_RULES, "--model", "m", "trainer.max_epochs=2000"]
    with said.open("w") as out:
        running = subprocess.Popen(
            command,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - tests may run beside a shell
        )
    deadline = time.monotonic() + 180
    while not list(home.glob("trials/*/unsent-metrics.jsonl")):
        assert running.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.2)
    group = [process for process in living(str(tmp_path)) if os.getpgid(process.pid) == running.pid]
    reached = {"group": group, "job": living(str(tmp_path)), "command": [psutil.Process(running.pid)]}
    for process in reached[whom]:
        process.send_signal(sign)
    assert running.wait(60) == status, said.read_text()
    assert "Traceback" not in said.read_text()
    waited(lambda: None if living(str(tmp_path)) else "none", "the end of its processes", 30)
    if sign == signal.SIGINT:
        assert "goes on from the last checkpoint" in said.read_text()
    if sign != signal.SIGKILL:
        with closing(sqlite3.connect(tmp_path / ".prefect" / "prefect.db")) as database:
            (state,) = database.execute("SELECT state_type FROM flow_run").fetchone()
        assert state == "CRASHED"


@pytest.mark.server
@pytest.mark.trains
def test_a_sweep_on_a_server_can_be_registered_and_moved_as_in_the_tutorial(
    http_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = [
        *TINY,
        "core.name=cats_vs_dogs",
        "backbone.model.arch=unet,linknet",
        "export.checkpoint_selection=last",
        "--multirun",
    ]
    (tmp_path / "mlflow.py").write_text("raise SystemExit('a script of the user')")  # takes the place of no library
    done = ratchet("train", *sweep, home=tmp_path, cwd=tmp_path, MLFLOW_TRACKING_URI=http_address)
    assert done.returncode == 0, done.stderr
    assert "linknet: finished" in done.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", http_address)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    manager = MlflowModelManager()
    first = manager.register_best_model(
        experiment_name="cats_vs_dogs",
        metric="val_loss_epoch",
        model_path="deployment_model",
        model_name="cvsd_model",
        tags={"type": "segmentation"},
        mode="min",
    )
    manager.transition_model(model_name="cvsd_model", version=1, stage="staging", description="Staging Model for demo")
    other = manager.best_run("cats_vs_dogs", "val_loss_epoch", "max").run_id
    assert other != first.run_id
    second = manager.register_model(
        model_location=f"runs:/{other}/deployment_model/model.pt",
        model_name="cvsd_model",
        tags={"type": "smp"},
        description="Better model",
    )
    manager.transition_model(model_name="cvsd_model", version=2, stage="production", description="Better than v1")
    stages = {version.version: str(version.stage) for version in manager.versions("cvsd_model")}
    assert (second.version, stages) == (2, {1: "Staging", 2: "Production"})
    _roll_back_on_the_command_line(manager, http_address, tmp_path)
    folder = manager.download_model("cvsd_model", 2, tmp_path / "served")
    logits = torch.jit.load(str(folder / "model.pt"))(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 3, 32, 32)


def _roll_back_on_the_command_line(manager: MlflowModelManager, address: str, home: Path) -> None:
    def alone(*arguments: str) -> str:
        done = ratchet(*arguments, home=home, MLFLOW_TRACKING_URI=address)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def said(*arguments: str) -> str:
        return CliRunner().invoke(main, arguments).output  # in this process, which has imported MLflow

    best = manager.best_run("cats_vs_dogs", "val_loss_epoch", "min").run_id
    by_loss = ("--metric", "val_loss_epoch", "--mode", "min")
    told = CliRunner().invoke(main, ["register", "cats_vs_dogs", *by_loss, "--model", "other"]).stdout
    assert best in told
    assert told.endswith("judge it: ratchet gate other 1\n")
    assert "NothingToRollBackError" in said("rollback", "cvsd_model")
    manager.transition_model("cvsd_model", 1, "production", "back and forth")
    assert "v2 of cvsd_model is in production" in said("rollback", "cvsd_model", "--reason", "it blurs")
    champion = manager.champion("cvsd_model")
    assert champion is not None
    assert champion.version == 2
    assert manager.version("cvsd_model", 1).quarantined
    assert "may be promoted again" in said("release", "cvsd_model", "1")
    assert "is not in quarantine" in said("release", "cvsd_model", "1")
    events = [json.loads(line) for line in alone("history", "cvsd_model", "--json").splitlines()]
    assert [event["reason"] for event in events if event["kind"] == "rolled back"] == ["it blurs"]
    assert "it blurs" in said("history", "cvsd_model")
    manager.transition_model("cvsd_model", 1, "archived", "of no use")
    assert "v1 stays: its sweep is at work, or ended within a day" in said("prune", "cvsd_model", "--keep", "0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ratchet.registry.sweeps.YOUNG_SECONDS", -60.0)
        told = said("prune", "cvsd_model", "--keep", "0", "--dry-run")
    assert told.startswith("would go: v1\nmodel and checkpoints would go of the runs ")
    assert str(manager.version("cvsd_model", 1).run_id) in told
    assert "v1 stays" in said("prune", "cvsd_model", "--dry-run")
