"""The way to a tracking server: through a proxy, to one that is too old, and to one that lets us write but not delete."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY
from exported_models import Brightness, export
from server_between import between

from ratchet.config import compose
from ratchet.errors import ConfigError, RegistryError, ServerUnreachableError, VerdictChangedError
from ratchet.gate.record import VERDICT_FILE
from ratchet.judgement.records import fetch_record, judgement_path, origin
from ratchet.registry import Event, EventKind, MlflowModelManager
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import _one_at_a_time, client, rely_on
from ratchet.run_names import CHECKPOINT_TAG, DATA_FINGERPRINT_TAG
from ratchet.training.ownership import Ownership
from ratchet.training.reuse import TrainedBefore
from ratchet.training.run import TrialRun, metric_rows
from ratchet.training.upload import withdraw

pytest_plugins = ["registry_backends"]
pytestmark = pytest.mark.server


def test_a_server_that_only_a_proxy_reaches_is_reached(http_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = "http://mlflow.corp.invalid:5000"
    with pytest.raises(ServerUnreachableError, match="nothing answers"):
        client(address)
    with between(http_address) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        assert client(address).search_experiments()


def test_a_server_that_is_too_old_is_told_before_anything_is_trained(http_address: str) -> None:
    def old(method: str, path: str) -> tuple[int, str] | None:
        return (200, "2.22.4") if path == "/version" else None

    with between(http_address, old) as server, pytest.raises(RegistryError, match=r"is MLflow 2\.22\.4"):
        client(server)


def test_who_trains_waits_longer_for_a_server_unless_somebody_has_chosen_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr("ratchet.registry.tracking._answered", {})
    monkeypatch.setattr("ratchet.registry.tracking._PATIENT_SECONDS", 1.0)
    for chosen, then in (("3", "5"), ("1", "1")):  # the first is what the sweep's own process has
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", chosen)
        rely_on(nobody)
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == then
    began = time.monotonic()
    with pytest.raises(ServerUnreachableError):
        client(nobody)
    assert time.monotonic() - began >= 1


def test_a_trial_that_ends_while_its_server_is_away_says_what_ended_it(
    http_address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = False
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with between(http_address, lambda *_: (503, "busy") if away else None) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        opened = TrialRun.create(client(), compose(list(TINY)), Ownership(client(), "here/1"), name="a", tags={})
        with pytest.raises(ServerUnreachableError, match=rf"{server} does not answer as it should.*log-batch"), opened:
            away = True
            opened.log_metrics(metric_rows({"loss": 0.5}, 0))
    assert f"run {opened.run_id} still looks as if it ran" in caplog.text


def test_a_copy_into_another_experiment_that_fails_leaves_no_run_behind(
    stored_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, before = client(), TrainedBefore()
    source = store.create_run(ensure_experiment("there")).info.run_id
    store.log_text(source, "a picture", "report.html")
    store.set_terminated(source)
    config, full = compose([*TINY, "core.name=here"]), OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    monkeypatch.setattr("mlflow.MlflowClient.log_artifacts", fail)
    with pytest.raises(OSError, match="No space left"):
        before.into_experiment(store.get_run(source), config, {})
    assert store.search_runs([ensure_experiment("here")]) == []
    assert store.get_run(source).info.status == "FINISHED"


def test_a_download_that_fails_says_nothing_of_the_model(
    http_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    failing = True

    def busy(method: str, path: str) -> tuple[int, str] | None:
        return (503, "busy") if failing and method == "GET" and path.endswith("/model.pt") else None

    with between(http_address, busy) as server:
        store, manager = client(server), MlflowModelManager(server)
        experiment = store.create_experiment("flaky")
        for score, threshold in ((0.8, 0.1), (0.9, 0.2)):
            run = store.create_run(experiment).info.run_id
            store.log_artifacts(run, str(export(tmp_path / str(score), Brightness(threshold))), "deployment_model")
            store.log_metric(run, "val_iou", score)
            store.set_terminated(run)
        with pytest.raises(ServerUnreachableError):
            manager.register_best_model("flaky", "val_iou", "deployment_model", "flaky", mode="max")
        assert "flaky" not in manager.models()
        failing = False
        made = manager.register_best_model("flaky", "val_iou", "deployment_model", "flaky", mode="max")
        assert store.get_run(str(made.run_id)).data.metrics["val_iou"] == 0.9


def test_a_server_in_trouble_says_nothing_of_a_record_and_one_that_is_gone_is_none(
    http_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    broken = ""

    def busy(method: str, path: str) -> tuple[int, str] | None:
        return (503, "busy") if broken and method == "GET" and broken in path else None

    with between(http_address, busy) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        store = client()
        run = store.create_run(ensure_experiment("recorded"), tags={DATA_FINGERPRINT_TAG: "d"}).info.run_id
        (tmp_path / VERDICT_FILE).write_text("no verdict")
        store.log_artifact(run, str(tmp_path / VERDICT_FILE), judgement_path("abc"))
        there = Event(id="e", kind=EventKind.GATED, version=1, who="ada", verdict_digest="abc", run_id=run)
        version = MlflowModelManager().register_model(str(export(tmp_path / "model", Brightness(0.1))), "recorded")
        version = replace(version, run_id=run)
        assert origin(version) == {"data": "d"}
        for place in ("/runs/get", VERDICT_FILE):
            broken = place
            with pytest.raises(RegistryError):
                fetch_record(there, tmp_path / "record")
        broken = "/runs/get"
        with pytest.raises(ServerUnreachableError):
            origin(version)
        broken = ""
        assert fetch_record(there, tmp_path / "record").read_text() == "no verdict"
        for gone in (replace(there, verdict_digest="def"), replace(there, run_id="0" * 32)):
            with pytest.raises(VerdictChangedError, match="the record of v1's verdict"):
                fetch_record(gone, tmp_path / "record")
        assert origin(replace(version, run_id="0" * 32)) == {}


def test_a_checkpoint_that_may_not_be_deleted_stays_and_ends_no_trial(
    http_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(method: str, path: str) -> tuple[int, str] | None:
        return (403, "Permission denied") if method == "DELETE" and "/mlflow-artifacts/" in path else None

    (tmp_path / "resume.ckpt").write_text("state")
    with between(http_address, refuse) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        store = client()
        ownership = Ownership(store, "here")
        with TrialRun.create(store, compose([*TINY, "core.name=kept"]), ownership, name="a", tags={}) as run:
            run.log_artifacts(tmp_path, "checkpoints/resume-3")
            run.tag({CHECKPOINT_TAG: json.dumps({"step": 3, "path": "checkpoints/resume-3"})})
            withdraw(run)
        found = store.get_run(run.run_id)
        assert (found.info.status, CHECKPOINT_TAG in found.data.tags) == ("FINISHED", False)
        assert store.list_artifacts(run.run_id, "checkpoints/resume-3")


def test_the_lock_of_a_store_follows_no_link_and_its_name_tells_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for password in ("one", "other"):
        with _one_at_a_time(f"postgresql://u:{password}@h/db"):
            pass
    (lock,) = tmp_path.glob("*.lock")
    lock.unlink()
    (tmp_path / "precious").write_text("whole")
    lock.symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="cannot be locked"), _one_at_a_time("postgresql://u:x@h/db"):
        pass
    assert (tmp_path / "precious").read_text() == "whole"
