"""What is particular to MLflow: registries used by hand, many runs, logged models, and servers that do not answer."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registry_backends import Backend, free_port, kinds
from server_between import between

from ratchet.errors import (
    ConfigError,
    ExperimentNotFoundError,
    MetricNotLoggedError,
    ModelFilesError,
    NotAllowedError,
    RegistryError,
    ServerUnreachableError,
)
from ratchet.registry import Event, EventKind, MlflowModelManager, Stage
from ratchet.registry.mlflow_files import KEEPING_EXPERIMENT, MlflowFiles
from ratchet.registry.mlflow_store import MlflowStore
from ratchet.registry.registration import _create, _Wish
from ratchet.registry.rendering import MARKER
from ratchet.registry.searches import ensure_experiment, experiment_on
from ratchet.registry.selection import MlflowSelection
from ratchet.registry.tracking import answering, client, embedded_uri, require_listening, shown, tracking_uri
from ratchet.run_names import FINGERPRINT_TAG, HEARTBEAT_TAG, SWEEP_PREFIX, SWEEP_RUN_TAG

pytestmark = pytest.mark.slow  # real stores, many operations

pytest_plugins = ["registry_backends"]
sqlite = pytest.mark.parametrize("backend", kinds("sqlite"), indirect=True)
served = pytest.mark.parametrize("backend", kinds("sqlite", "http"), indirect=True)

MakeModel = Callable[[], Path]


def clone_runs(address: str, run_id: str, metric: str, values: Sequence[float]) -> list[str]:
    """Copies of a run in an SQLite store, one for each value, a millisecond apart; far faster than the client."""
    made = [uuid.uuid4().hex for _ in values]
    with sqlite3.connect(address.removeprefix("sqlite:///")) as database:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            rows = database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
            names = [column[0] for column in rows.description]
            for row in [dict(zip(names, found, strict=True)) for found in rows.fetchall()]:
                copies = [_copy(row, metric, made[n], values[n], n + 1) for n in range(len(made))]
                places = ", ".join("?" * len(names))
                database.executemany(f"INSERT INTO {table} VALUES ({places})", copies)
    return made


def _copy(row: dict[str, Any], metric: str, run: str, value: float, number: int) -> list[Any]:
    changed = {**row, "run_uuid": run}
    if row.get("key") == metric and "is_nan" in row:
        changed |= {"value": 0.0 if math.isnan(value) else value, "is_nan": math.isnan(value)}
    if "start_time" in row:
        changed["start_time"] = row["start_time"] + number
    return list(changed.values())


class Counting:
    """A client that counts what it is asked."""

    def __init__(self, inner: MlflowClient) -> None:
        self.inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return getattr(self.inner, name)(*arguments, **options)

        return call


@sqlite
def test_the_selection_is_right_among_thousands_of_runs_and_asks_as_little_as_among_few(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    experiment, asked = f"experiment {name}", []
    first = backend.run(experiment, make_model(), metrics={"val loss": 0.9}, parameters=7)
    for values in ([0.8, 0.2, math.nan], [0.5 + number / 10_000 for number in range(2_500)] + [0.1, math.nan]):
        made = clone_runs(backend.address, first, "val loss", values)
        counting = Counting(client(backend.address))
        selection = MlflowSelection(counting, backend.address, MlflowFiles(counting, backend.address))  # type: ignore[arg-type]
        best = next(selection.candidates(experiment, "val loss", "min", None, "deployment_model"))
        assert best.run_id == made[-2]
        asked.append(counting.calls)
    assert asked[0] == asked[1] <= 4
    assert MlflowModelManager(backend.address).best_run(experiment, "val loss", "max").run_id == first


@sqlite
def test_a_tie_of_more_runs_than_a_page_goes_to_the_earliest(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    experiment = f"experiment {name}"
    first = backend.run(experiment, make_model(), metrics={"score": 1e-7}, parameters=7)
    clone_runs(backend.address, first, "score", [1e-7] * 450)
    for mode in ("min", "max"):
        assert MlflowModelManager(backend.address).best_run(experiment, "score", mode).run_id == first


@served
def test_a_logged_model_is_found_through_its_run_and_a_failed_one_never_wins(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    opened, experiment = client(backend.address), f"experiment {name}"
    made = []
    for status, score in (("FAILED", 0.9), ("READY", 0.5)):
        run = backend.run(experiment, None, metrics={"score": score})
        logged = opened.create_logged_model(
            experiment_on(opened, experiment, backend.address), "deployment_model", source_run_id=run
        )
        opened.log_model_artifacts(logged.model_id, str(make_model()))
        opened.finalize_logged_model(logged.model_id, status)
        made.append(run)
    manager = MlflowModelManager(backend.address)
    assert manager.register_best_model(experiment, "score", name).run_id == made[1]
    assert manager.register_model(f"runs:/{made[1]}/deployment_model/model.pt", name).version == 1
    with pytest.raises(ModelFilesError):
        manager.register_model(f"runs:/{made[0]}/deployment_model", name)


@served
def test_a_registry_that_was_used_by_hand_is_taken_over_without_loss(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    opened = client(backend.address)
    opened.create_registered_model(name, description="Our *old* model.\n\nDo not touch.")
    runs = [backend.run(f"experiment {name}", make_model()) for _ in range(5)]
    for number, run in enumerate(runs, 1):
        root = opened.get_run(run).info.artifact_uri
        opened.create_model_version(name, f"{root}/deployment_model", run, description=f"made by hand {number}")
    for number, stage in ((1, "Archived"), (2, "Production"), (3, "Production"), (4, "Staging")):
        opened.transition_model_version_stage(name, str(number), stage)
    opened.set_registered_model_alias(name, "shadow", "5")
    opened.set_registered_model_alias(name, "production", "2")
    manager = MlflowModelManager(backend.address)
    stages = [version.stage for version in manager.versions(name)]
    assert stages == [Stage.ARCHIVED, Stage.PRODUCTION, Stage.ARCHIVED, Stage.STAGING, Stage.NONE]
    assert manager.version(name, "shadow").version == 5
    assert manager.version(name, 5).pinned
    assert manager.version(name, 1).description == "made by hand 1"
    history = manager.history(name)
    assert [event.kind for event in history[:5]] == [EventKind.REGISTERED] * 5
    assert all(event.outside for event in history)
    description = opened.get_registered_model(name).description
    assert description.startswith("Our *old* model.\n\nDo not touch.\n\n" + MARKER)
    assert MlflowModelManager(backend.address).history(name) == history
    assert manager.load_model(name, "production") is not None
    assert manager.version(name, 2).digests is not None


@served
def test_a_version_loads_with_mlflows_own_loaders(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    manager = MlflowModelManager(backend.address)
    run = backend.run(f"experiment {name}", make_model())
    manager.register_model(f"runs:/{run}/deployment_model", name)
    manager.promote(name, 1)
    mlflow.set_tracking_uri(backend.address)
    images = np.random.default_rng(0).random((3, 3, 8, 8), dtype=np.float32)
    served_by_mlflow = mlflow.pyfunc.load_model(f"models:/{name}@production").predict(images)
    assert mlflow.pytorch.load_model(f"models:/{name}/Production") is not None
    import torch

    ours = manager.load_model(name, "production")(torch.from_numpy(images)).detach().numpy()
    assert np.allclose(served_by_mlflow, ours, atol=1e-6)


@sqlite
def test_without_stages_the_aliases_and_the_history_carry_all(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = MlflowModelManager(backend.address, stages=False)
    for number in (1, 2):
        manager.register_model(str(make_model()), name)
        manager.promote(name, number)
    manager.register_model(str(make_model()), name)
    manager.promote(name, 3, "staging")
    assert [version.stage for version in manager.versions(name)] == [Stage.ARCHIVED, Stage.PRODUCTION, Stage.STAGING]
    seen = client(backend.address).search_model_versions(f"name='{name}'")
    assert {version.current_stage for version in seen} == {"None"}
    assert manager.rollback(name, "back").version == 1


@sqlite
def test_what_a_writer_without_stages_did_is_projected_by_the_next_with_them_and_not_undone(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    with_stages, without = MlflowModelManager(backend.address), MlflowModelManager(backend.address, stages=False)
    for _ in range(2):
        with_stages.register_model(str(make_model()), name)
    with_stages.promote(name, 1)

    def now() -> tuple[int | None, dict[str, str], set[EventKind]]:
        manager = MlflowModelManager(backend.address)
        champion = manager.champion(name)
        found = client(backend.address).search_model_versions(f"name='{name}'")
        stages = {version.version: version.current_stage for version in found}
        kinds = {event.kind for event in manager.history(name)}
        return champion and champion.version, {str(key): value for key, value in stages.items()}, kinds

    without.promote(name, 2, expected_champion=1)
    assert now()[:2] == (2, {"1": "Archived", "2": "Production"})
    without.rollback(name, "back")
    champion, stages, kinds = now()
    assert (champion, stages) == (1, {"1": "Production", "2": "Archived"})
    assert MlflowModelManager(backend.address).version(name, 2).quarantined
    assert EventKind.CHANGED_OUTSIDE not in kinds
    client(backend.address).transition_model_version_stage(
        name, "1", "Archived"
    )  # by hand: of the champion, it is put back
    assert now()[0] == 1


@sqlite
def test_an_alias_that_looks_like_a_number_is_no_version(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = MlflowModelManager(backend.address)
    for _ in range(3):
        manager.register_model(str(make_model()), name)
    client(backend.address).set_registered_model_alias(name, "2", "3")
    client(backend.address).set_registered_model_alias(name, "line-two", "3")
    assert [manager.version(name, asked).version for asked in (2, "2", "line-two")] == [2, 2, 3]
    assert manager.promote(name, 2).version == 2


@sqlite
def test_of_two_who_register_one_run_at_once_the_second_ones_words_are_kept(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, model = MlflowModelManager(backend.address), make_model()
    run = backend.run(f"experiment {name}", model)
    location = f"runs:/{run}/deployment_model"
    manager.register_model(location, name, tags={"a": "1"})
    store = manager._store
    source = store.resolve(location)  # a process that has looked before the first one was there
    kept = store.keep(name, source)
    made = _create(manager._ledger, name, source, kept, _Wish("mine", {"b": "2"}))
    assert not store._files._list(kept.location, "")
    found = manager.version(name, made)
    assert (made, found.description, found.tags["a"], found.tags["b"]) == (1, "mine", "1", "2")
    assert len(manager.versions(name)) == 1


@sqlite
def test_a_model_deleted_by_hand_and_made_anew_starts_afresh(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = MlflowModelManager(backend.address)
    manager.register_model(str(make_model()), name)
    manager.promote(name, 1)
    client(backend.address).delete_registered_model(name)
    assert name not in manager.models()
    made = manager.register_model(str(make_model()), name)
    assert (made.version, made.stage, manager.champion(name)) == (1, Stage.NONE, None)
    assert manager.promote(name, 1, expected_champion=None).stage is Stage.PRODUCTION
    assert [event.kind for event in manager.history(name) if event.counts] == [
        EventKind.REGISTERED,
        EventKind.PROMOTED,
        EventKind.DELETED,
        EventKind.REGISTERED,
        EventKind.PROMOTED,
    ]


@sqlite
def test_a_description_edited_in_the_ui_keeps_what_stands_above_the_history(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, opened = MlflowModelManager(backend.address), client(backend.address)
    manager.register_model(str(make_model()), name)
    text = opened.get_registered_model(name).description
    opened.update_registered_model(name, "Mine, added later.\n\n" + text + "\nscribble below")
    manager.promote(name, 1)
    text = opened.get_registered_model(name).description
    assert text.startswith("Mine, added later.\n\n" + MARKER)
    assert "scribble" not in text
    assert [event.kind for event in manager.history(name)] == [EventKind.REGISTERED, EventKind.PROMOTED]


@sqlite
def test_a_registration_that_is_sent_twice_keeps_the_files_of_the_version_that_stays(
    backend: Backend, name: str, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, send = MlflowModelManager(backend.address), MlflowClient.create_model_version

    def twice(*given: Any, **named: Any) -> Any:
        """As MLflow's own requests do when the answer to the first one is lost."""
        send(*given, **named)
        return send(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", twice)
        assert manager.register_model(str(make_model()), name).version == 1
    assert manager.download_model(name, 1, tmp_path / "first").is_dir()
    assert [version.version for version in manager.versions(name)] == [1]

    kept = client(backend.address).get_model_version(name, "1")
    by_hand = client(backend.address).create_model_version(name, str(kept.source))
    manager.delete_model(name, int(by_hand.version))
    assert manager.download_model(name, 1, tmp_path / "again").is_dir()


@sqlite
def test_the_trials_beside_a_version_lose_their_models_with_the_last_version_of_their_sweep(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, opened, model = MlflowModelManager(backend.address), client(backend.address), make_model()
    ours, other = ({f"{SWEEP_PREFIX}{uuid.uuid4().hex[:12]}": "true"} for _ in range(2))

    def trained(tags: dict[str, str], status: str = "FINISHED") -> str:
        return backend.run(f"experiment {name}", model, status=status, tags=tags)

    def weighs(run: str) -> bool:
        return bool(opened.list_artifacts(run, "deployment_model"))

    first, second, beside = (trained(ours) for _ in range(3))
    reused, twin, parent = trained(ours | other), trained(ours | {FINGERPRINT_TAG: "same"}), trained(ours)
    failed, apart = trained(ours, "FAILED"), trained({FINGERPRINT_TAG: "same", "ratchet.parent_run": parent})
    for run in (first, second, apart):
        manager.register_model(f"runs:/{run}/deployment_model", name)
    manager.promote(name, 3)
    manager.transition_model(name, 1, "archived")
    young = manager.prune(name, keep=0)
    assert (young.goes, young.stays[1]) == ((), "its sweep is at work, or ended within a day")
    long_ago, day = int(time.time() - 3 * 86400) * 1000, 86400 * 1000
    digest, experiment = next(iter(ours)).removeprefix(SWEEP_PREFIX), opened.get_run(first).info.experiment_id
    with sqlite3.connect(backend.address.removeprefix("sqlite:///")) as database:
        times = (long_ago, long_ago, experiment)
        database.execute("UPDATE runs SET start_time = ?, end_time = ? WHERE experiment_id = ?", times)
    sweep = opened.create_run(experiment, start_time=long_ago, tags={SWEEP_RUN_TAG: digest}).info.run_id
    opened.set_terminated(sweep)  # now: it has reused its trials
    assert manager.prune(name, keep=0).goes == ()
    opened.set_terminated(sweep, end_time=long_ago + day)
    opened.set_tag(beside, HEARTBEAT_TAG, datetime.now(UTC).isoformat())
    assert manager.prune(name, keep=0).goes == ()
    assert weighs(first)
    opened.set_tag(beside, HEARTBEAT_TAG, "2020-01-01T00:00:00+00:00")
    assert manager.prune(name, keep=0).runs == (first,)
    assert weighs(beside)  # the second version stays
    manager.transition_model(name, 2, "archived")
    opened.update_run(failed, "RUNNING")  # as a process that was killed leaves it
    planned = manager.prune(name, keep=0, dry_run=True)
    assert set(planned.runs) == {first, second, beside}
    assert weighs(beside)
    assert manager.prune(name, keep=0) == planned
    assert [weighs(run) for run in (second, beside)] == [False, False]
    assert all(weighs(run) for run in (reused, twin, parent, failed, apart))


@sqlite
def test_a_server_that_goes_away_behind_a_rollback_is_not_told_as_one_that_did_nothing(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = MlflowModelManager(backend.address)
    for _ in range(3):
        manager.promote(name, manager.register_model(str(make_model()), name).version)

    def away(*_: Any) -> None:
        raise ConnectionResetError("connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", away)
        with pytest.raises(ServerUnreachableError, match=r"rolled back of v3 is in the history.*before you repeat it"):
            manager.rollback(name)
    champion = manager.champion(name)
    assert champion is not None
    assert champion.version == 2
    assert [version.version for version in manager.versions(name) if version.quarantined] == [3]


@sqlite
def test_of_an_event_whose_answer_is_lost_it_is_said_that_it_may_be_written(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = MlflowModelManager(backend.address)
    for _ in range(4):
        manager.promote(name, manager.register_model(str(make_model()), name).version)
    send, search, refusals = MlflowClient.create_model_version, MlflowClient.search_model_versions, [0]

    def sent(*given: Any, **named: Any) -> None:
        send(*given, **named)
        refusals[0] = away
        raise ConnectionResetError("connection reset by peer")

    def searched(*given: Any, **named: Any) -> Any:
        if refusals[0] > 0:
            refusals[0] -= 1
            raise ConnectionResetError("connection reset by peer")
        return search(*given, **named)

    for away, version in ((2, 3), (99, 2)):  # it comes back, and it does not
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "create_model_version", sent)
            patch.setattr(MlflowClient, "search_model_versions", searched)
            if away == 2:
                assert manager.rollback(name).version == version
            else:
                with pytest.raises(
                    ServerUnreachableError, match=r"rolled back of v3 .*is not known.*before you repeat it"
                ):
                    manager.rollback(name)
        refusals[0] = 0
        champion = manager.champion(name)
        assert champion is not None
        assert champion.version == version
    assert [event.kind for event in manager.history(name)].count(EventKind.ROLLED_BACK) == 2


@sqlite
def test_an_event_that_a_replica_shows_late_is_waited_for(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = MlflowModelManager(backend.address)
    manager.register_model(str(make_model()), name)
    log, append, hidden = manager._ledger.store.log, manager._ledger.store.append, [0]

    def written(model: str, event: Event) -> None:
        append(model, event)
        hidden[0] = 2

    def behind(model: str, since: int) -> list[Event]:
        hidden[0], late = max(0, hidden[0] - 1), hidden[0] > 0
        return log(model, since)[: -1 if late else None]

    monkeypatch.setattr(manager._ledger.store, "append", written)
    monkeypatch.setattr(manager._ledger.store, "log", behind)
    assert manager.promote(name, 1).stage is Stage.PRODUCTION


@pytest.mark.server
def test_who_may_not_write_may_read_and_who_may_not_delete_promotes_all_the_same(
    http_address: str, name: str, make_model: MakeModel
) -> None:
    """As MLflow's own permissions refuse it: by a text, to who has EDIT what deletes, to who has READ what writes."""
    refused: set[str] = set()

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        searches = path.endswith("/search")
        return (403, "Permission denied") if method in refused and not searches else None

    with between(http_address, refuse) as server:
        manager = MlflowModelManager(server)
        manager.register_model(str(make_model()), name)
        manager.promote(name, 1, "staging")
        refused.add("DELETE")
        with pytest.raises(NotAllowedError, match=r"promoted of v1 is in the history.*Permission denied"):
            manager.promote(name, 1)
        champion = MlflowModelManager(server).champion(name)
        assert champion is not None
        assert champion.version == 1
        assert client(http_address).get_registered_model(name).aliases["production"] == "1"
        refused.clear()
        client(http_address).update_registered_model(name, "somebody's own words")
        refused.update(("POST", "PATCH", "PUT", "DELETE"))
        kinds_ = [event.kind for event in MlflowModelManager(server).history(name)]
        assert kinds_[-1] is EventKind.PROMOTED
        client(http_address).copy_model_version(f"models:/{name}/1", name)  # by hand
        with pytest.raises(NotAllowedError, match="v2 is not in the history yet"):
            MlflowModelManager(server).promote(name, 2)


def test_a_server_that_does_not_answer_is_named_within_seconds() -> None:
    port, begun = free_port(), time.monotonic()
    for address in (f"http://127.0.0.1:{port}", f"postgresql+psycopg://me:secret@127.0.0.1:{port}/mlflow"):
        with pytest.raises(ServerUnreachableError, match=f"127.0.0.1:{port}") as caught:
            MlflowModelManager(address)
        assert "secret" not in str(caught.value)
    assert time.monotonic() - begun < 30  # MLflow alone tries for minutes


def test_a_server_that_is_being_started_again_is_waited_for() -> None:
    port = free_port()

    def listen() -> None:
        time.sleep(1.0)
        with socket.create_server(("127.0.0.1", port)) as server:
            server.accept()

    with pytest.raises(ServerUnreachableError):
        require_listening(f"http://127.0.0.1:{port}")
    threading.Thread(target=listen, daemon=True).start()
    require_listening(f"http://127.0.0.1:{port}", seconds=60.0)


def test_a_model_that_was_made_in_the_ui_without_a_version_can_be_used(tmp_path: Path, tiny_model: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client(address).create_registered_model("made-in-the-ui")
    manager = MlflowModelManager(address)
    assert manager.champion("made-in-the-ui") is None
    assert manager.register_model(str(tiny_model), "made-in-the-ui").version == 1


def test_a_password_in_the_address_is_in_no_error() -> None:
    uri = "https://user:secret@tracking.example.org/"
    with pytest.raises(ServerUnreachableError) as told, answering(uri):
        raise MlflowException(f"API request to {uri}api/2.0/mlflow failed")
    assert "user:***@tracking.example.org/api/2.0" in str(told.value)
    assert "secret" not in "".join(traceback.format_exception(told.value))


def test_a_password_that_is_written_wrongly_is_hidden_too() -> None:
    for uri in ("postgresql://ratchet:s3cret@secret@db.example/mlflow", "mysql+pymysql://u:p@ss:secret@h/db"):
        assert "secret" not in shown(uri)
        assert shown(uri).endswith(("@db.example/mlflow", "@h/db"))
    with pytest.raises(ConfigError, match="write @ in a password as %40") as told:
        client(uri)
    assert "secret" not in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg://127.0.0.1:1/db?user=u&password=secret",
        "postgresql+psycopg://u:se/secret@127.0.0.1:1/db",
        "postgresql+psycopg://u:se#secret@127.0.0.1:1/db",
    ],
)
def test_a_databases_password_is_hidden_wherever_it_stands_in_the_address(uri: str) -> None:
    with pytest.raises(ServerUnreachableError, match=r"\*\*\*.*MLFLOW_TRACKING_URI") as told:
        client(uri)
    assert "secret" not in str(told.value)
    assert "127.0.0.1:1" in str(told.value)


def test_who_may_not_delete_files_leaves_the_version_that_leads_to_them(
    http_address: str, name: str, make_model: MakeModel
) -> None:
    refusing = True

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        return (403, "Permission denied") if refusing and method == "DELETE" and "/mlflow-artifacts/" in path else None

    with between(http_address, refuse) as server:
        manager = MlflowModelManager(server)
        location = manager.register_model(str(make_model()), name).location
        with pytest.raises(NotAllowedError, match=r"deleted of v1 is in the history.*Permission denied"):
            manager.delete_model(name, 1)
        manager.history(name)  # a question goes on with it, as far as it may
        assert client(http_address).search_model_versions(f"name = '{name}'")
        opened = client(http_address)
        run = opened.create_run(opened.create_experiment(f"beside {name}")).info.run_id
        opened.log_artifacts(run, str(make_model()), "deployment_model")
        opened.create_model_version(name, f"runs:/{run}/deployment_model", run)  # and with what others did
        assert manager.promote(name, 2).stage is Stage.PRODUCTION
        refusing = False
        manager.history(name)
        found = client(http_address).search_model_versions(f"name = '{name}'")
        assert [int(version.version) for version in found] == [2]
        assert not manager._ledger.store._files._list(location, "")


def test_who_may_only_read_loads_what_was_put_into_production_by_hand(
    http_address: str, name: str, make_model: MakeModel
) -> None:
    opened = client(http_address)
    run = opened.create_run(opened.create_experiment(f"by hand {name}")).info.run_id
    opened.log_artifacts(run, str(make_model()), "deployment_model")
    opened.create_registered_model(name)
    opened.create_model_version(name, f"runs:/{run}/deployment_model", run)
    opened.set_registered_model_alias(name, "production", "1")

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        reads = method == "GET" or path.endswith(("/search", "/search-versions"))
        return None if reads else (403, "Permission denied")

    with between(http_address, refuse) as server:
        assert MlflowModelManager(server).load_model(name, "production") is not None


def test_an_address_that_mlflow_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nonsense"):
        MlflowModelManager("nonsense://here")


def test_the_store_is_the_one_of_the_environment_or_lies_under_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking_uri() == "http://somewhere:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri() == embedded_uri() == f"sqlite:///{tmp_path}/home/mlflow.db"
    assert not (tmp_path / "home").exists()
    experiment = ensure_experiment("cats")
    assert ensure_experiment("cats") == experiment
    location = client().get_experiment(experiment).artifact_location
    assert location == (tmp_path / "home" / "mlartifacts").as_uri()


def test_a_deleted_experiment_of_the_name_is_told_apart(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    opened = client(address)
    opened.delete_experiment(experiment_on(opened, "cats", address))
    with pytest.raises(ExperimentNotFoundError, match="restore") as told:
        experiment_on(opened, "cats", address)
    command = str(told.value).split("`")[1]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    bin_path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    (tmp_path / "empty").mkdir()
    subprocess.run(
        command,
        shell=True,
        cwd=tmp_path / "empty",
        env={**environment, "PATH": bin_path},
        check=True,
        capture_output=True,
    )
    assert experiment_on(opened, "cats", address)


def _ensure(address: str, results: Any) -> None:
    results.put(experiment_on(client(address), "cats", address))


def test_two_processes_may_make_the_database_and_the_experiment_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    results, address = spawn.Queue(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    processes = [spawn.Process(target=_ensure, args=(address, results)) for _ in range(2)]
    for process in processes:
        process.start()
    ids = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(ids) == 1


def test_importing_the_registry_imports_neither_mlflow_nor_torch() -> None:
    code = (
        "import sys, ratchet.registry as r; r.MlflowModelManager; r.DirectoryModelManager; r.Event; r.PrunePlan; "
        "assert all(hasattr(r, name) for name in r.__all__); print({'mlflow', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_nothing_but_the_answer_reaches_the_terminal(tmp_path: Path, tiny_model: Path) -> None:
    code = (
        "import sys; from ratchet.registry import MlflowModelManager as M; m = M(sys.argv[1]); "
        "m.register_model(sys.argv[2], 'x'); m.promote('x', 1); m.download_model('x', 1, 'out'); "
        "print(m.champion('x').version)"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'mlflow.db'}", str(tiny_model)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("1\n", "")


@sqlite
def test_why_nothing_can_be_chosen_is_told_by_those_that_finished_before_a_thousand_that_failed(
    backend: Backend, name: str
) -> None:
    experiment = f"experiment {name}"
    backend.run(experiment, None, metrics={"val_iou": 0.5})
    failed = backend.run(experiment, None, metrics={"loss": 1.0}, status="FAILED")
    clone_runs(backend.address, failed, "loss", [1.0] * 1_000)
    with pytest.raises(MetricNotLoggedError, match=r"val_iou \(1\)"):
        MlflowModelManager(backend.address).best_run(experiment, "val_loss", "min")


@sqlite
def test_why_nothing_can_be_chosen_costs_as_little_among_thousands_of_runs(backend: Backend, name: str) -> None:
    finished = backend.run(f"experiment {name}", None, metrics={"val_iou": 0.5})
    clone_runs(backend.address, finished, "val_iou", [0.5] * 2_500)
    counting = Counting(client(backend.address))
    selection = MlflowSelection(counting, backend.address, MlflowFiles(counting, backend.address))  # type: ignore[arg-type]
    with pytest.raises(MetricNotLoggedError, match=r"among the newest 1,000: there are val_iou \(1000\)"):
        next(selection.candidates(f"experiment {name}", "val_loss", "min", None, "deployment_model"))
    assert counting.calls <= 3


@sqlite
def test_a_copy_that_the_disk_does_not_take_leaves_nothing(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, whole = client(backend.address), MlflowClient.log_model_artifacts
    kept = [experiment_on(opened, KEEPING_EXPERIMENT, backend.address)]
    before = {model.model_id for model in opened.search_logged_models(kept)}
    written = list[str]()

    def full(self: MlflowClient, model_id: str, directory: str) -> None:
        whole(self, model_id, directory)
        written.append(str(opened.get_logged_model(model_id).artifact_location))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", full)
    with pytest.raises(OSError, match="No space left"):
        MlflowModelManager(backend.address).register_model(str(make_model()), name)
    assert {model.model_id for model in opened.search_logged_models(kept)} == before
    assert not list(Path(written[0].removeprefix("file://")).glob("**/*.pt2"))


@sqlite
def test_a_registration_that_is_refused_leaves_no_copy(backend: Backend, name: str, make_model: MakeModel) -> None:
    opened = client(backend.address)
    kept = [experiment_on(opened, KEEPING_EXPERIMENT, backend.address)]
    before = {model.model_id for model in opened.search_logged_models(kept)}
    with pytest.raises(RegistryError, match="owner@site"):
        MlflowModelManager(backend.address).register_model(str(make_model()), name, tags={"owner@site": "ada"})
    assert {model.model_id for model in opened.search_logged_models(kept)} == before


@sqlite
def test_a_second_manager_of_a_process_reads_only_what_is_new(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowModelManager(backend.address).register_model(str(make_model()), name)
    asked, whole = list[int](), MlflowStore.log

    def log(self: MlflowStore, model: str, since: int) -> list[Event]:
        asked.append(since)
        return whole(self, model, since)

    monkeypatch.setattr(MlflowStore, "log", log)
    assert [event.kind for event in MlflowModelManager(backend.address).history(name)] == [EventKind.REGISTERED]
    assert asked
    assert 0 not in asked
