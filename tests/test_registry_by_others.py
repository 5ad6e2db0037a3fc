"""What people and other programs do on the same registry: by hand, meanwhile, and with the files that versions share."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
import pytest
from mlflow import MlflowClient
from registry_backends import Backend, kinds

from ratchet.errors import ChampionMovedError, ModelFilesError, QuarantinedError, RegistryError
from ratchet.registry import EventKind, LedgerModelManager, MlflowModelManager, Stage
from ratchet.registry.searches import experiment_on
from ratchet.registry.tracking import client
from ratchet.registry.values import FILES_TAG, PINNED_TAG
from ratchet.run_names import FINGERPRINT_TAG

pytest_plugins = ["registry_backends"]
pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("backend", kinds("directory", "sqlite"), indirect=True)
sqlite = pytest.mark.parametrize("backend", kinds("sqlite"), indirect=True)

MakeModel = Callable[[], Path]


def with_versions(backend: Backend, name: str, make_model: MakeModel, count: int) -> LedgerModelManager:
    manager = backend.open()
    for _ in range(count):
        manager.register_model(str(make_model()), name)
    return manager


def champion_of(manager: LedgerModelManager, name: str) -> int | None:
    found = manager.champion(name)
    return None if found is None else found.version


@both
def test_who_sets_an_alias_by_hand_and_deletes_the_bad_version_is_followed(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = with_versions(backend, name, make_model, 6)
    for number in (4, 5):
        manager.promote(name, number)
    store = manager._ledger.store
    store.set_alias(name, "production", 4)
    store.delete_version(name, 5)
    assert champion_of(backend.open(), name) == 4
    assert store.observe(name).aliases == {"production": 4}
    assert manager.history(name)[-1].kind is EventKind.CHANGED_OUTSIDE
    store.set_alias(name, "production", 6)
    store.delete_version(name, 1)
    assert champion_of(backend.open(), name) == 6


@both
@pytest.mark.parametrize("doing", ["register", "roll back"])
def test_an_alias_that_is_moved_by_hand_during_an_upload_or_a_download_stays(
    backend: Backend, name: str, make_model: MakeModel, doing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = with_versions(backend, name, make_model, 6)
    for number in (4, 5):
        manager.promote(name, number)
    store = manager._ledger.store
    slow = "keep" if doing == "register" else "fetch"
    moved = getattr(store, slow)

    def meanwhile(*given: Any) -> Any:
        store.set_alias(name, "production", 6)
        return moved(*given)

    monkeypatch.setattr(store, slow, meanwhile)
    if doing == "register":
        manager.register_model(str(make_model()), name)
    else:
        with pytest.raises(ChampionMovedError):
            manager.rollback(name, "bad")
    assert champion_of(manager, name) == 6
    assert [e.version for e in manager.history(name) if e.kind is EventKind.CHANGED_OUTSIDE] == [6]


@both
def test_a_training_whose_version_was_rolled_back_and_deleted_can_be_released(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for mark in ("one", "bad", "bad"):
        manager.register_model(str(make_model()), name, tags={FINGERPRINT_TAG: mark})
    for number in (1, 2):
        manager.promote(name, number)
    manager.rollback(name, "bad")
    manager.delete_model(name, 2)
    with pytest.raises(QuarantinedError, match=f"ratchet release {name} 3"):
        manager.promote(name, 3)
    manager.release(name, 3, "the labels were wrong, not the model")
    assert manager.quarantined_fingerprints(name) == frozenset()
    manager.promote(name, 3)
    assert champion_of(manager, name) == 3


@both
def test_a_version_that_a_person_is_asked_about_is_not_pruned_until_the_answer(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = with_versions(backend, name, make_model, 3)
    until = (datetime.now(UTC) + timedelta(hours=72)).isoformat()
    for number in (2, 3):
        manager.record(name, "gated", version=number, outcome="promote", reason="better")
        manager.promote(name, number, "staging")
        manager.record(name, "asked", version=number, until=until, flow_run=f"flow {number}")
    planned = manager.prune(name, keep=0, dry_run=True)
    assert (planned.goes, planned.stays[2]) == ((), "a person is being asked about it")
    manager.record(name, "refused", version=2, flow_run="flow 2", reason="no")
    assert manager.prune(name, keep=0).goes == (2,)


def archived(backend: Backend, name: str, make_model: MakeModel, count: int) -> tuple[LedgerModelManager, list[str]]:
    """Versions of runs, each archived, that pruning takes."""
    manager = backend.open()
    runs = [backend.run(f"experiment {name}", make_model(), metrics={"score": 0.5}) for _ in range(count)]
    for number, run in enumerate(runs, 1):
        manager.register_model(f"runs:/{run}/deployment_model", name)
        manager.transition_model(name, number, "archived")
    return manager, runs


@both
def test_a_pruning_that_is_interrupted_has_finished_with_what_is_gone_and_sees_what_was_pinned_meanwhile(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, runs = archived(backend, name, make_model, 4)
    delete = manager.delete_model

    def third_fails(model: str, version: int, *given: Any) -> None:
        if version == 3:
            raise ConnectionError("the server went away")
        delete(model, version, *given)

    with monkeypatch.context() as patch:
        patch.setattr(manager, "delete_model", third_fails)
        with pytest.raises(ConnectionError):
            manager.prune(name, keep=0)
    assert [version.version for version in manager.versions(name)] == [3, 4]
    for run in runs[:2]:
        with pytest.raises(Exception, match="no model at"):
            manager.register_model(f"runs:/{run}/deployment_model", "another")

    def pins_the_next(model: str, version: int, *given: Any) -> None:
        manager._ledger.store.update_version(model, version + 1, description=None, tags={PINNED_TAG: "true"})
        delete(model, version, *given)

    monkeypatch.setattr(manager, "delete_model", pins_the_next)
    assert manager.prune(name, keep=0).goes == (3,)
    assert [version.version for version in manager.versions(name)] == [4]


@both
def test_the_files_of_a_deletion_that_nobody_ended_go_with_the_version(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = with_versions(backend, name, make_model, 2)
    seen = manager._ledger.store.observe(name).versions[1]
    ledger = manager._ledger
    ledger.append(name, ledger.event(EventKind.DELETED, 1, created=seen.created_ms))
    assert [version.version for version in backend.open().versions(name)] == [2]
    assert not Path(seen.location.removeprefix("file://")).exists()


@both
def test_a_deletion_that_fails_at_its_files_is_finished_by_the_next_look(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = with_versions(backend, name, make_model, 2)
    seen = manager._ledger.store.observe(name).versions[1]

    def away(_: str) -> None:
        raise ConnectionError("the files' server is away")

    with monkeypatch.context() as patch:
        patch.setattr(manager._ledger.store, "discard", away)
        with pytest.raises((ConnectionError, RegistryError)):
            manager.delete_model(name, 1)
    assert [version.version for version in backend.open().versions(name)] == [2]
    assert not Path(seen.location.removeprefix("file://")).exists()
    manager.promote(name, 2)
    made = manager.register_model(str(make_model()), name).version
    with monkeypatch.context() as patch:  # and where it fails for good, nobody's question does
        patch.setattr(type(manager._ledger.store), "discard", lambda _, location: away(location))
        with pytest.raises((ConnectionError, RegistryError)):
            manager.delete_model(name, made)
        assert [version.version for version in backend.open().versions(name)] == [2]


@both
def test_who_takes_the_alias_staging_off_by_hand_is_followed(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = with_versions(backend, name, make_model, 2)
    manager.promote(name, 1)
    manager.promote(name, 2, "staging")
    store = manager._ledger.store
    store.drop_alias(name, "staging")
    assert backend.open().version(name, 2).stage is Stage.NONE
    assert store.observe(name).aliases == {"production": 1}
    changes = [event for event in manager.history(name) if event.kind is EventKind.CHANGED_OUTSIDE]
    assert [change.moves for change in changes] == [((2, Stage.NONE),)]


@both
def test_a_number_that_is_given_again_is_not_pruned_on_the_verdict_of_the_one_before(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = with_versions(backend, name, make_model, 1)
    manager.record(name, EventKind.GATED, version=1, outcome="reject", verdict_digest="d", gate_set="g", run_id="r")
    assert manager.prune(name, keep=0, dry_run=True).goes == (1,)
    manager.delete_model(name, 1)
    if backend.kind == "sqlite":
        client(backend.address).delete_registered_model(name)
    made = manager.register_model(str(make_model()), name)
    assert manager.prune(name, keep=0, dry_run=True).goes == ()
    assert made.version == (1 if backend.kind == "sqlite" else 2)


@sqlite
def test_what_an_alias_of_another_model_means_is_registered_and_not_the_alias(
    backend: Backend, name: str, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, dev = backend.open(), f"dev of {name}"
    for _ in range(2):
        manager.register_model(str(make_model()), dev)
    opened = client(backend.address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    for number in (1, 2):
        opened.set_registered_model_alias(dev, "candidate", str(number))
        made = manager.register_model(f"models:/{dev}@candidate", name)
        assert (made.version, made.digests) == (number, manager.version(dev, number).digests)
    with pytest.raises(ModelFilesError, match="names no version for good"):
        manager.register_model(f"models:/{dev}/latest", name)


@sqlite
def test_files_that_a_version_of_another_model_has_are_left_alone(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, runs = archived(backend, name, make_model, 2)
    opened, copies, by_hand = client(backend.address), f"copies of {name}", f"by hand of {name}"
    mlflow.set_tracking_uri(backend.address)
    opened.copy_model_version(f"models:/{name}/1", f"{copies} first")
    opened.copy_model_version(f"models:/{copies} first/1", copies)
    opened.delete_model_version(f"{copies} first", "1")  # a copy of a copy has its origin's files
    opened.create_registered_model(by_hand)
    root = opened.get_run(runs[1]).info.artifact_uri
    opened.create_model_version(by_hand, f"{root}/deployment_model")  # as from an address: MLflow notes no run
    kept = manager.version(name, 2).location
    assert manager.prune(name, keep=0).goes == (1, 2)
    for model in (copies, by_hand):
        assert Path(mlflow.artifacts.download_artifacts(f"models:/{model}/1")).is_dir()
        assert backend.open().load_model(model, 1) is not None
    assert not Path(kept.removeprefix("file://")).exists()
    assert not manager._ledger.store._files._list(opened.get_run(runs[0]).info.artifact_uri, "deployment_model")


@sqlite
def test_files_of_another_models_version_are_left_alone_however_their_place_is_spelled(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, (run,) = archived(backend, name, make_model, 1)
    opened = client(backend.address)
    root, kept = opened.get_run(run).info.artifact_uri, manager.version(name, 1).location
    for number, place in enumerate((f"{root}/deployment_model", kept)):
        path = Path(place.removeprefix("file://"))
        opened.create_registered_model(f"by hand {number} of {name}")
        opened.create_model_version(f"by hand {number} of {name}", str(path) if place != str(path) else path.as_uri())
    manager.prune(name, keep=0)
    for number in range(2):
        assert backend.open().load_model(f"by hand {number} of {name}", 1) is not None


@both
def test_the_alias_of_a_first_promotion_is_not_taken_away_by_who_has_read_before_it(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, ben = with_versions(backend, name, make_model, 2), backend.open()
    store = manager._ledger.store
    observe, dropped = store.observe, list[str]()

    def after_bens_promotion(model: str) -> Any:
        if champion_of(ben, name) is None:
            ben.promote(name, 1)
        return observe(model)

    monkeypatch.setattr(store, "observe", after_bens_promotion)
    monkeypatch.setattr(store, "drop_alias", lambda _, alias: dropped.append(alias))
    manager._ledger.project(name)
    assert dropped == []
    assert champion_of(manager, name) == 1


@sqlite
@pytest.mark.parametrize("step", ["beside", "lighten"])
def test_what_is_staged_while_the_trials_beside_it_are_pruned_stays(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    manager, (run,) = archived(backend, name, make_model, 1)
    store, other = manager._ledger.store, backend.run(f"experiment {name}", make_model())
    monkeypatch.setattr(store, "beside", lambda *_, **__: frozenset({other}))
    does = getattr(store, step)

    def staged_meanwhile(*given: Any, **named: Any) -> Any:
        backend.open().transition_model(name, 1, "staging")
        return does(*given, **named)

    monkeypatch.setattr(store, step, staged_meanwhile)
    assert manager.prune(name, keep=0).goes == ()
    assert manager.load_model(name, 1) is not None
    assert store._files._list(client(backend.address).get_run(run).info.artifact_uri, "deployment_model")


@sqlite
def test_what_others_registered_is_pruned_by_nobody_since_its_run_has_the_only_files(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    opened, runs = client(backend.address), [backend.run(f"experiment {name}", make_model()) for _ in range(2)]
    opened.create_registered_model(name)
    for run in runs:
        opened.create_model_version(name, f"{opened.get_run(run).info.artifact_uri}/deployment_model", run)
        opened.transition_model_version_stage(name, "1", "Archived")
    manager = backend.open()
    planned = manager.prune(name, keep=0)
    assert (planned.goes, planned.runs) == ((), ())
    assert planned.stays[1] == "registered outside Ratchet: delete it by hand"
    assert manager.load_model(name, 1) is not None


@pytest.mark.parametrize("backend", kinds("sqlite", "http"), indirect=True)
def test_a_version_whose_source_is_a_file_of_its_model_is_that_model(
    backend: Backend, name: str, make_model: MakeModel, tmp_path: Path
) -> None:
    opened, run = client(backend.address), backend.run(f"experiment {name}", make_model())
    opened.create_registered_model(name)
    opened.create_model_version(name, f"{opened.get_run(run).info.artifact_uri}/deployment_model/model.pt", run)
    manager = backend.open()
    assert str(manager.transition_model(name, 1, "production").stage) == "Production"
    assert (manager.download_model(name, 1, tmp_path / "there") / "MLmodel").is_file()
    assert manager.load_model(name, "production") is not None
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "v3.pth").write_bytes(b"no model")
    if backend.kind == "sqlite":
        opened.create_model_version(name, (tmp_path / "weights" / "v3.pth").as_uri())
        with pytest.raises(ModelFilesError, match=r"expected a directory with MLmodel or model\.pt, found v3\.pth"):
            manager.transition_model(name, 2, "production")
        assert FILES_TAG not in manager.version(name, 2).tags


@sqlite
def test_looking_at_versions_made_from_logged_models_asks_for_none_of_them_apart(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = with_versions(backend, name, make_model, 1)
    opened, kept = client(backend.address), manager.version(name, 1).location
    mlflow.set_tracking_uri(backend.address)
    opened.create_model_version(name, f"models:/{kept.split('/models/')[1].split('/')[0]}")
    opened.copy_model_version(f"models:/{name}/1", f"copy of {name}")
    uri, asked = MlflowClient.get_model_version_download_uri, list[str]()

    def gone(self: MlflowClient, model: str, version: str) -> str:
        asked.append(model)
        opened.delete_model_version(model, version)
        return uri(self, model, version)

    monkeypatch.setattr(MlflowClient, "get_model_version_download_uri", gone)
    assert len(backend.open().versions(name)) == 2
    assert asked == []
    assert len(backend.open()._ledger.store.observe(f"copy of {name}").versions) == 1
    assert asked == [f"copy of {name}"]
    monkeypatch.setattr(MlflowClient, "get_model_version_download_uri", uri)
    manager.delete_model(name, 1)
    assert Path(kept.removeprefix("file://")).exists()  # the other one has these files


@sqlite
def test_a_version_made_from_a_logged_model_is_looked_up_in_the_managers_own_store(
    backend: Backend, name: str, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = client(backend.address)
    logged = opened.create_logged_model(experiment_on(opened, f"experiment {name}", backend.address), "net")
    opened.log_model_artifacts(logged.model_id, str(make_model()))
    opened.finalize_logged_model(logged.model_id, "READY")
    opened.create_registered_model(name)
    mlflow.set_tracking_uri(backend.address)
    opened.create_model_version(name, f"models:/{logged.model_id}")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    manager = MlflowModelManager(backend.address)
    manager.promote(name, 1)
    assert manager.download_model(name, 1, tmp_path / "files").is_dir()
    assert manager.register_model(f"models:/{logged.model_id}", name).version == 2


@sqlite
def test_of_writers_that_note_something_first_at_once_none_is_refused(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    writers = 6
    stores = [backend.open()._ledger.store for _ in range(writers)]
    for number in range(10):
        client(backend.address).create_registered_model(f"{name} {number}.history")
    together = threading.Barrier(writers, timeout=30)

    def note(store: Any) -> None:
        for number in range(10):
            together.wait()
            store.mark_projected(f"{name} {number}", 1)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(note, stores))
    assert stores[0].notes(f"{name} 9").projected == 1


@sqlite
def test_all_versions_are_read_in_one_answer_so_that_none_slips_through_a_deletion(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, asked = with_versions(backend, name, make_model, 1), []
    with sqlite3.connect(backend.address.removeprefix("sqlite:///")) as database:  # far faster than the client
        rows = database.execute("SELECT * FROM model_versions WHERE name = ?", (name,))
        columns = [column[0] for column in rows.description]
        first = dict(zip(columns, rows.fetchone(), strict=True))
        copies = [list((first | {"version": number}).values()) for number in range(2, 1202)]
        database.executemany(f"INSERT INTO model_versions VALUES ({', '.join('?' * len(columns))})", copies)
    search = MlflowClient.search_model_versions

    def counted(self: MlflowClient, condition: str, **named: Any) -> Any:
        asked.append(condition)
        return search(self, condition, **named)

    monkeypatch.setattr(MlflowClient, "search_model_versions", counted)
    assert len(manager._ledger.store.observe(name).versions) == 1201
    assert asked == [f"name='{name}'"]
