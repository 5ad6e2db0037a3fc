"""What every model manager must do, held against every back end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from registry_backends import POSTGRES, Backend, kinds

from ratchet.errors import (
    ChampionMovedError,
    ExperimentNotFoundError,
    MetricNotLoggedError,
    ModelFilesError,
    ModelNotFoundError,
    NoFinishedRunError,
    NothingToRollBackError,
    ProtectedVersionError,
    QuarantinedError,
    RegistryError,
    UnknownStageError,
    VersionNotFoundError,
)
from ratchet.registry import AbstractModelManager, EventKind, Stage
from ratchet.registry.difference import difference_of
from ratchet.registry.tracking import client

pytest_plugins = ["registry_backends"]
pytestmark = pytest.mark.slow

# Both of MLflow's ways, with and without a server, and both kinds of database. What reaches a query or a column as it was
# given is tried on both databases, and from a server.
SOME = kinds("directory", "sqlite", "http_postgres" if POSTGRES.is_dir() else "http")
EACH = kinds("directory", "sqlite", "postgres", "http_postgres") if POSTGRES.is_dir() else kinds()
everywhere = pytest.mark.parametrize("backend", EACH, indirect=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not any(mark.args[0] == "backend" for mark in metafunc.definition.iter_markers("parametrize")):
        metafunc.parametrize("backend", SOME, indirect=True)


MakeModel = Callable[[], Path]


def test_a_registered_directory_becomes_version_1_with_all_that_was_said_of_it(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open(who="ada")
    made = manager.register_model(str(make_model()), name, "first try", {"type": "smp"})
    assert isinstance(manager, AbstractModelManager)
    assert (made.model, made.version, made.stage, made.aliases) == (name, 1, Stage.NONE, ())
    assert (made.description, made.tags["type"]) == ("first try", "smp")
    assert abs(made.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert made.digests is not None
    assert {"MLmodel", "model.pt", "model.json"} <= set(made.digests)
    assert manager.get_latest_version(name) == made == manager.version(name, "1") == manager.versions(name)[0]
    assert name in manager.models()
    (event,) = manager.history(name)
    assert (event.kind, event.version, event.who, event.reason) == (EventKind.REGISTERED, 1, "ada", "first try")


def test_registering_the_same_source_again_updates_the_version_and_adds_no_event(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, model = backend.open(), make_model()
    run = backend.run(f"experiment {name}", model)
    first = manager.register_model(f"runs:/{run}/deployment_model/model.pt", name, tags={"a": "1"})
    again = manager.register_model(f"runs:/{run}/deployment_model/", name, "now described", {"b": "2"})
    assert (first.run_id, first.version, again.version) == (run, 1, 1)
    assert (again.description, again.tags["a"], again.tags["b"]) == ("now described", "1", "2")
    assert len(manager.history(name)) == 1
    assert manager.register_model(str(model), name).version == 2


@pytest.mark.parametrize("what", ["nothing", "an empty directory", "no such run", "a run without a model"])
def test_a_location_without_a_model_leaves_no_registered_model_behind(
    backend: Backend, name: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    locations = {
        "nothing": str(tmp_path / "absent"),
        "an empty directory": str(tmp_path / "empty"),
        "no such run": f"runs:/{'0' * 32}/deployment_model",
        "a run without a model": f"runs:/{backend.run('no models', None)}/deployment_model",
    }
    manager = backend.open()
    with pytest.raises(ModelFilesError, match="no model at"):
        manager.register_model(locations[what], name)
    assert name not in manager.models()
    with pytest.raises(ModelNotFoundError, match=name):
        manager.versions(name)
    assert manager.champion(name) is None


@pytest.mark.parametrize("bad", ["", " ", "a/b", "a:b", "..", "x.history", "tab\there", "both'\""])
def test_a_name_that_no_model_may_have_is_refused(backend: Backend, bad: str, tiny_model: Path) -> None:
    with pytest.raises(RegistryError):
        backend.open().register_model(str(tiny_model), bad)


@everywhere
@pytest.mark.parametrize("odd", ["it's", 'say "x"', "ünï 🙂", "a.b-c_d e", "100%", "' or name='x"])
def test_a_name_with_odd_characters_works_throughout(backend: Backend, odd: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), odd)
    assert manager.promote(odd, 1).aliases == ("production",)
    assert [event.version for event in manager.history(odd)] == [1, 1]


@everywhere
def test_a_version_moves_through_the_stages_alone_in_each(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    for _ in range(3):
        manager.register_model(str(make_model()), name)
    assert manager.transition_model(name, 1, "STAGING", "demo").aliases == ("staging",)
    assert manager.transition_model(name, "1", "production").stage is Stage.PRODUCTION
    assert manager.transition_model(name, 2, "staging").stage is Stage.STAGING
    assert manager.transition_model(name, 3, "Staging").stage is Stage.STAGING
    stages = [version.stage for version in manager.versions(name)]
    assert stages == [Stage.PRODUCTION, Stage.ARCHIVED, Stage.STAGING]
    manager.transition_model(name, 3, "production")
    assert [version.stage for version in manager.versions(name)] == [Stage.ARCHIVED, Stage.ARCHIVED, Stage.PRODUCTION]
    assert [version.aliases for version in manager.versions(name)] == [(), (), ("production",)]
    assert manager.transition_model(name, 2, "none").stage is Stage.NONE
    champion = manager.champion(name)
    assert champion is not None
    assert champion.version == 3


def test_asking_for_what_is_already_so_adds_no_event(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    manager.promote(name, 1, expected_champion=None, reason="proven")
    events = manager.history(name)
    manager.promote(name, 1, expected_champion=None)
    manager.promote(name, 1, "staging")
    manager.transition_model(name, 1, "production", "again")
    manager.release(name, 1)
    assert manager.history(name) == events


def test_a_stage_or_version_that_does_not_exist_is_named_in_the_error(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    with pytest.raises(UnknownStageError, match="prod"):
        manager.transition_model(name, 1, "prod")
    for version in (7, "7", "champion", "", -1):
        with pytest.raises(VersionNotFoundError, match="versions are 1"):
            manager.promote(name, version)
    with pytest.raises(RegistryError, match="staging or production"):
        manager.promote(name, 1, "archived")
    assert len(manager.history(name)) == 1


def test_promotion_is_refused_when_the_champion_moved_and_changes_nothing(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for _ in range(3):
        manager.register_model(str(make_model()), name)
    manager.promote(name, 1, expected_champion=None)
    manager.promote(name, 2, expected_champion=1)
    before = manager.versions(name), manager.history(name)
    for stage in ("production", "staging"):
        for expected in (1, None, 3):
            with pytest.raises(ChampionMovedError, match="now it is v2"):
                manager.promote(name, 3, stage, expected_champion=expected)
    assert (manager.versions(name), manager.history(name)) == before


def test_the_champion_leaves_production_only_for_another(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    manager.promote(name, 1)
    for stage in ("none", "staging", "archived"):
        with pytest.raises(ProtectedVersionError, match="v1"):
            manager.transition_model(name, 1, stage)
    assert manager.version(name, "production").version == 1


def test_a_rollback_goes_back_quarantines_and_a_second_one_goes_further_back(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for number in (1, 2, 3):
        manager.register_model(str(make_model()), name, tags={"ratchet.fingerprint": f"print{number}"})
        manager.promote(name, number)
    twin = manager.register_model(str(make_model()), name, tags={"ratchet.fingerprint": "print3"}).version
    assert manager.rollback(name, "wrong masks").version == 2
    assert [version.quarantined for version in manager.versions(name)] == [False, False, True, False]
    assert manager.quarantined_fingerprints(name) == {"print3"}
    for number in (3, twin):
        for stage in ("staging", "production"):
            with pytest.raises(QuarantinedError, match="Release it first"):
                manager.promote(name, number, stage)
        with pytest.raises(QuarantinedError):
            manager.transition_model(name, number, "production")
    assert manager.rollback(name, "still wrong").version == 1
    before = manager.versions(name), manager.history(name)
    with pytest.raises(NothingToRollBackError, match="v1"):
        manager.rollback(name, "and again")
    assert (manager.versions(name), manager.history(name)) == before
    assert manager.release(name, 3, "masks corrected").quarantined is False
    assert manager.promote(name, twin).stage is Stage.PRODUCTION


def test_a_rollback_with_no_champion_says_so(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    with pytest.raises(NothingToRollBackError, match="no version in production"):
        manager.rollback(name, "why not")


def test_a_rollback_to_files_that_changed_is_refused(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    for number in (1, 2):
        manager.register_model(str(make_model()), name)
        manager.promote(name, number)
    _spoil(manager.version(name, 1).location, backend)
    before = manager.versions(name), manager.history(name)
    with pytest.raises(ModelFilesError, match=r"changed: model\.pt"):
        manager.rollback(name, "v2 is bad")
    assert (manager.versions(name), manager.history(name)) == before


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"no archive", r"torch cannot load model\.pt"), (None, r"holds no TorchScript file model\.pt")],
    ids=["no archive", "missing"],
)
def test_a_rollback_to_a_model_that_does_not_load_is_refused(
    backend: Backend, name: str, make_model: MakeModel, content: bytes | None, told: str
) -> None:
    manager, broken = backend.open(), make_model()
    (broken / "model.pt").unlink()
    if content is not None:
        (broken / "model.pt").write_bytes(content)
    for number, model in enumerate((broken, make_model()), start=1):
        manager.register_model(str(model), name)
        manager.promote(name, number)
    before = manager.versions(name), manager.history(name)
    with pytest.raises(ModelFilesError, match=told):
        manager.rollback(name, "v2 is bad")
    assert (manager.versions(name), manager.history(name)) == before


def _spoil(location: str, backend: Backend) -> None:
    """Append a byte to a kept model.pt, wherever the back end keeps it."""
    if location.startswith("mlflow-artifacts:"):
        repository = get_artifact_repository(location, tracking_uri=backend.address)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(repository.download_artifacts("model.pt", folder))
            path.write_bytes(path.read_bytes() + b"x")
            repository.log_artifact(str(path))
        return
    path = Path(location.removeprefix("file://")) / "model.pt"
    path.write_bytes(path.read_bytes() + b"x")


def test_deleting_spares_the_champion_and_the_rollback_target_unless_forced(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for number in (1, 2, 3):
        manager.register_model(str(make_model()), name)
        manager.promote(name, number)
    for number in (2, 3):
        with pytest.raises(ProtectedVersionError, match="force"):
            manager.delete_model(name, number)
    manager.delete_model(name, 1, "old")
    assert [version.version for version in manager.versions(name)] == [2, 3]
    with pytest.raises(VersionNotFoundError):
        manager.delete_model(name, 1)
    manager.delete_model(name, 2, force=True)
    with pytest.raises(NothingToRollBackError):
        manager.rollback(name, "no way back")
    manager.delete_model(name, 3, force=True)
    assert manager.champion(name) is None
    with pytest.raises(VersionNotFoundError, match="no versions"):
        manager.get_latest_version(name)
    assert manager.register_model(str(make_model()), name).version == 4


def test_downloaded_files_are_those_that_were_registered(
    backend: Backend, name: str, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, model = backend.open(), make_model()
    made = manager.register_model(str(model), name)
    manager.promote(name, 1)
    for number, version in enumerate((1, "1", "production")):
        got = manager.download_model(name, version, tmp_path / "got" / str(number))
        assert got == tmp_path / "got" / str(number)
        found = {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()}
        assert found == set(made.digests or ())
        assert (got / "data" / "model.pt2").read_bytes() == (model / "data" / "model.pt2").read_bytes()
    with pytest.raises(ModelFilesError, match="already holds"):
        manager.download_model(name, 1, tmp_path / "got")
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    monkeypatch.chdir(tmp_path / "volume")
    for place in (Path(), tmp_path / "link"):  # as a volume, they cannot be put somewhere else
        got = manager.download_model(name, 1, place)
        there = {path.name for path in got.iterdir()}
        assert {"MLmodel", "model.pt"} <= there
        assert not any(entry.startswith(".") for entry in there)
        for entry in (tmp_path / "volume").iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def test_a_changed_file_is_refused_and_nothing_is_left_of_the_download(
    backend: Backend, name: str, make_model: MakeModel, tmp_path: Path
) -> None:
    manager, model = backend.open(), make_model()
    made = manager.register_model(str(model), name)
    _spoil(made.location, backend)
    with pytest.raises(ModelFilesError, match=r"changed: model\.pt"):
        manager.download_model(name, 1, tmp_path / "got" / "model")
    assert list((tmp_path / "got").iterdir()) == []
    with pytest.raises(ModelFilesError, match=r"changed: model\.pt.*delete the version.*and register its source again"):
        manager.load_model(name, 1)
    assert manager.register_model(str(model), name).version == 1
    manager.delete_model(name, 1)
    again = manager.register_model(str(model), name)
    assert manager.load_model(name, again.version) is not None


def test_a_model_loads_as_torchscript_without_unpickling(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    manager, model = backend.open(), make_model()
    manager.register_model(str(model), name)
    manager.promote(name, 1)
    images = torch.rand(3, 3, 8, 8)
    expected = torch.jit.load(str(model / "model.pt"))(images)
    assert torch.equal(manager.load_model(name, "production")(images), expected)


def test_the_files_of_a_version_outlive_their_run(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    run = backend.run(f"experiment {name}", make_model())
    manager.register_model(f"runs:/{run}/deployment_model", name)
    if backend.kind == "directory":
        shutil.rmtree(next(Path(backend.address).glob(f"experiments/*/{run}")))
    else:
        opened = client(backend.address)
        root = opened.get_run(run).info.artifact_uri
        get_artifact_repository(root, tracking_uri=backend.address).delete_artifacts("deployment_model")
        opened.delete_run(run)
    assert manager.load_model(name, 1) is not None


def test_the_history_tells_who_was_champion_when(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open(who="ada")
    for _ in range(2):
        manager.register_model(str(make_model()), name)
    manager.promote(name, 1, reason="first", verdict_digest="d1", run_id="r1", flow_run="f1")
    manager.promote(name, 2, expected_champion=1, reason="better")
    manager.rollback(name, "worse after all")
    first, second, back = manager.history(name)[-3:]
    assert (first.verdict_digest, first.run_id, first.flow_run, first.replaced) == ("d1", "r1", "f1", None)
    assert (second.from_stage, second.replaced, second.expected, second.who) == (Stage.NONE, 1, 1, "ada")
    assert (back.kind, back.version, back.target, back.reason) == (EventKind.ROLLED_BACK, 2, 1, "worse after all")
    instant = timedelta(milliseconds=1)
    assert manager.champion_at(name, first.time - instant) is None
    assert [manager.champion_at(name, event.time) for event in (first, second, back)] == [1, 2, 1]
    with pytest.raises(RegistryError, match="time zone"):
        manager.champion_at(name, datetime(2026, 1, 1))


def test_a_verdict_is_written_down_once(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name, tags={"ratchet.fingerprint": "print"})
    first = manager.record(name, "gated", version=1, outcome="reject", reason="too weak", verdict_digest="abc")
    again = manager.record(name, "gated", version=1, outcome="reject", reason="too weak", verdict_digest="abc")
    other = manager.record(name, "gated", version=1, outcome="promote", verdict_digest="def")
    assert (first, other.outcome) == (again, "promote")
    assert [event.outcome for event in manager.history(name)] == [None, "reject", "promote"]
    assert first.fingerprint == "print"
    with pytest.raises(RegistryError, match="gated"):
        manager.record(name, "promoted", version=1)


@everywhere
def test_a_reason_of_any_characters_is_kept_as_it_is(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    reason = "<script>alert(1)</script> [x](javascript:y)\n\n# big 🙂 \x00 \ud800 %s {} ' \" \\ " + "long " * 500
    manager.promote(name, 1, reason=reason)
    assert backend.open().history(name)[-1].reason == reason
    with pytest.raises(RegistryError, match="at most"):
        manager.record(name, "noted", version=1, reason="x" * 5_001)


@everywhere
def test_the_best_run_is_registered(backend: Backend, name: str, make_model: MakeModel) -> None:
    experiment = f"experiment {name}"
    runs = [
        backend.run(experiment, make_model(), metrics={"val/IoU top-1": value, "val_loss": -value}, parameters=10)
        for value in (0.5, 0.9, 0.7)
    ]
    manager = backend.open()
    assert manager.register_best_model(experiment, "val/IoU top-1", name, "best", {"a": "b"}).run_id == runs[1]
    assert manager.register_best_model(experiment, "val_loss", name, mode="min").version == 1
    assert manager.register_best_model(experiment, "val_loss", name, mode="max").run_id == runs[0]
    assert len(manager.history(name)) == 2


@everywhere
def test_runs_that_must_not_win_do_not(backend: Backend, name: str, make_model: MakeModel, tmp_path: Path) -> None:
    experiment, model = f"experiment {name}", make_model()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "notes.txt").write_text("no model")
    for value in (float("nan"), float("inf"), float("-inf")):
        backend.run(experiment, model, metrics={"score": value})
    for status in ("FAILED", "KILLED", "RUNNING"):
        backend.run(experiment, model, metrics={"score": 0.99}, status=status)
    backend.run(experiment, None, metrics={"score": 0.98})
    backend.run(experiment, tmp_path / "broken", metrics={"score": 0.97})
    backend.run(experiment, model, metrics={"other": 1.0})
    good = backend.run(experiment, model, metrics={"score": 0.5})
    assert backend.open().register_best_model(experiment, "score", name).run_id == good
    lowest = backend.open().best_run(experiment, "score", "min")
    assert (lowest.run_id, lowest.value) == (good, 0.5)


@everywhere
def test_ties_go_to_fewer_parameters_then_to_the_earlier_run(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    experiment, model, manager = f"experiment {name}", make_model(), backend.open()
    unknown = backend.run(experiment, model, metrics={"score": 0.5})
    assert manager.best_run(experiment, "score").run_id == unknown
    backend.run(experiment, model, metrics={"score": 0.5})
    assert manager.best_run(experiment, "score").run_id == unknown
    backend.run(experiment, model, metrics={"score": 0.5}, parameters=1000)
    small = backend.run(experiment, model, metrics={"score": 0.5}, parameters=99)
    backend.run(experiment, model, metrics={"score": 0.5}, parameters=99)
    for mode in ("min", "max"):
        assert manager.best_run(experiment, "score", mode).run_id == small


@everywhere
def test_the_selection_can_be_bound_to_the_runs_of_one_sweep(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    experiment, model, manager = f"experiment {name}", make_model(), backend.open()
    backend.run(experiment, model, metrics={"score": 0.9}, tags={"ratchet.sweep": "old"})
    mine = backend.run(experiment, model, metrics={"score": 0.5}, tags={"ratchet.sweep": "it's new"})
    tags = {"ratchet.sweep": "it's new"}
    assert manager.best_run(experiment, "score", tags=tags).run_id == mine
    assert manager.register_best_model(experiment, "score", name, run_tags=tags).run_id == mine
    with pytest.raises(NoFinishedRunError, match="none yet"):
        manager.best_run(experiment, "score", tags={"ratchet.sweep": "none yet"})


def test_each_reason_for_no_selection_has_its_error_and_lists_what_there_is(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, experiment = backend.open(), f"experiment {name}"
    backend.run(experiment, None, metrics={"score": 0.9}, status="FAILED")
    with pytest.raises(ExperimentNotFoundError, match=experiment):
        manager.register_best_model("no such experiment", "score", name)
    with pytest.raises(NoFinishedRunError, match="1 FAILED"):
        manager.register_best_model(experiment, "score", name)
    backend.run(experiment, None, metrics={"score": 0.9, "loss": float("nan"), "rate": float("inf")})
    for metric in ("scores", "loss", "rate"):
        with pytest.raises(MetricNotLoggedError, match=r"there are score \(1\)$"):
            manager.register_best_model(experiment, metric, name)
    with pytest.raises(NoFinishedRunError, match="holds a model"):
        manager.register_best_model(experiment, "score", name)
    with pytest.raises(RegistryError, match="mode"):
        manager.register_best_model(experiment, "score", name, mode="largest")
    assert name not in manager.models()


def test_an_operation_leaves_log_and_projection_in_agreement(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for number in (1, 2, 3):
        manager.register_model(str(make_model()), name)
        manager.promote(name, number, "production" if number < 3 else "staging")
    manager.rollback(name, "bad")
    look = manager._ledger.look(name)
    assert look is not None
    assert difference_of(look) is None
    assert look.notes.intents == {}
    assert look.notes.projected >= look.state.moved_at


def test_another_process_that_died_before_it_wrote_the_projection_is_mended(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for _ in range(2):
        manager.register_model(str(make_model()), name)
    manager.promote(name, 1)
    ledger = manager._ledger
    ledger.append(name, ledger.event(EventKind.PROMOTED, 2))
    assert ledger.store.observe(name).aliases == {"production": 1}
    assert [version.stage for version in backend.open().versions(name)] == [Stage.ARCHIVED, Stage.PRODUCTION]
    assert ledger.store.observe(name).aliases == {"production": 2}
    assert [event.kind for event in manager.history(name)][-1] is EventKind.PROMOTED


def test_a_change_made_by_hand_is_noticed_recorded_and_kept(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    for _ in range(3):
        manager.register_model(str(make_model()), name)
    manager.promote(name, 1)
    manager.promote(name, 2)
    store = manager._ledger.store
    store.set_alias(name, "production", 1)
    champion = backend.open().champion(name)
    assert champion is not None
    assert champion.version == 1
    assert (manager.history(name)[-1].kind, manager.history(name)[-1].outside) == (EventKind.CHANGED_OUTSIDE, True)
    with pytest.raises(ChampionMovedError):
        manager.promote(name, 3, expected_champion=2)
    store.set_stage(name, 3, Stage.PRODUCTION)
    assert [version.stage for version in manager.versions(name)] == [Stage.ARCHIVED, Stage.ARCHIVED, Stage.PRODUCTION]
    store.drop_alias(name, "production")
    assert manager.version(name, 3).aliases == ("production",)
    store.delete_version(name, 3)
    assert manager.champion(name) is None
    assert manager.history(name)[-1].outside
    assert manager.rollback_target(name) == replace(manager.version(name, 1))


def test_a_question_ends_at_a_time_of_a_zone(backend: Backend, name: str, make_model: MakeModel) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    for until in (None, "soon", "2126-12-01T12:00"):
        with pytest.raises(RegistryError, match=r"say when the question ends, with a time zone"):
            manager.record(name, "asked", version=1, until=until)
    asked = manager.record(name, "asked", version=1, until="2126-12-01T12:00:00+02:00")
    assert asked.until == "2126-12-01T10:00:00+00:00"


def test_what_a_killed_writer_wrote_last_is_no_change_by_hand_however_long_ago_it_was(
    backend: Backend, name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = backend.open()
    for number in (1, 2):
        manager.register_model(str(make_model()), name)
        manager.promote(name, number)
    monkeypatch.setattr("ratchet.registry.ledger._DEAD_AFTER", timedelta())
    manager._ledger.store.open_intent(name, "of one that was killed")
    manager._ledger.store.set_alias(name, "production", 1)
    champion = backend.open().champion(name)
    assert champion is not None
    assert champion.version == 2
    assert EventKind.CHANGED_OUTSIDE not in {event.kind for event in manager.history(name)}
    look = manager._ledger.look(name)
    assert look is not None
    assert look.notes.intents == {}


def test_every_version_that_was_champion_once_is_known_until_it_is_deleted_or_quarantined(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager = backend.open()
    for _ in range(5):
        manager.register_model(str(make_model()), name)
    assert manager.champions(name) == ()
    for number in (1, 3, 2, 4):
        manager.promote(name, number)
    manager.promote(name, 5, "staging")
    assert [version.version for version in manager.champions(name)] == [1, 2, 3, 4]
    manager.rollback(name, "bad")
    manager.delete_model(name, 1)
    assert [version.version for version in manager.champions(name)] == [2, 3]
    manager.release(name, 4)
    assert [version.version for version in manager.champions(name)] == [2, 3, 4]


def test_pruning_takes_old_versions_that_are_archived_rejected_or_inconclusive_and_leaves_the_rest(
    backend: Backend, name: str, make_model: MakeModel
) -> None:
    manager, experiment = backend.open(), f"experiment {name}"
    runs = [backend.run(experiment, make_model(), metrics={"score": 0.5}) for _ in range(8)]
    for run in runs:
        manager.register_model(f"runs:/{run}/deployment_model", name)
    for number in (1, 2, 3, 4):
        manager.promote(name, number)
    manager.record(name, "gated", version=5, outcome="inconclusive", reason="luck may explain it")
    manager.record(name, "gated", version=6, outcome="reject", reason="worse", anchor=1)
    manager.promote(name, 7, "staging")
    assert manager.prune(name, keep=0, rollbacks=1, dry_run=True).goes == (2, 5, 6)
    planned = manager.prune(name, keep=1, rollbacks=1, dry_run=True)
    assert planned.goes == (2, 5)
    assert planned.stays[1] == "an anchor of the gate"
    assert set(planned.runs) == {runs[1], runs[4]}
    manager.record(name, "noted", version=8, reason="looked at on other images", anchor=4)
    assert manager.prune(name, keep=1, rollbacks=1, dry_run=True).stays[1] == "an anchor of the gate"
    assert len(manager.versions(name)) == 8
    assert manager.prune(name, keep=1, rollbacks=1) == planned
    assert [version.version for version in manager.versions(name)] == [1, 3, 4, 6, 7, 8]
    assert manager.prune(name, keep=1, rollbacks=1).goes == ()
    assert manager.rollback(name, "still possible").version == 3
    with pytest.raises(ModelFilesError, match="no model at"):
        manager.register_model(f"runs:/{runs[1]}/deployment_model", "another")
    assert manager.register_model(f"runs:/{runs[7]}/deployment_model", "another").version >= 1
    with pytest.raises(RegistryError, match="keep"):
        manager.prune(name, keep=-1)
