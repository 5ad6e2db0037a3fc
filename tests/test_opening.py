"""How a trial's run is opened, shared, left and cleaned, where several processes and machines may be at it."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from conftest import TINY

from ratchet.config import compose
from ratchet.errors import TrialTakenError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import CHECKPOINT_TAG, FAILURE_TAG, FINGERPRINT_TAG, NESTED_TAG, THREADS_TAG
from ratchet.training import opening
from ratchet.training.fitting import _keep_threads
from ratchet.training.folder import Facts, Note, Snapshot, TrialFolder
from ratchet.training.opening import Beginning, begin
from ratchet.training.ownership import OWNER_TAG, Ownership, await_owner, machine
from ratchet.training.plan import plan_trials
from ratchet.training.progress import Progress
from ratchet.training.run import TrialRun, close_dead_run
from ratchet.training.trial import run_trial
from ratchet.training.upload import Uploads, withdraw

FACTS = Facts(epoch=1, step=5, trained=False, stopped=False, seconds=1.0, peak_memory=1.0, best=None)


@pytest.fixture
def run(stored_home: Path) -> TrialRun:
    """A run that this process has just opened."""
    ownership = Ownership(client(), "here/1")
    return TrialRun.create(client(), compose(list(TINY)), ownership, name="a", tags={})


def beginning(home: Path, tags: Mapping[str, str] = MappingProxyType({}), **told: Any) -> Beginning:
    config = compose([*TINY, f"core.home={home}"])
    folder = TrialFolder(config.core.home, "f" * 64)
    with folder.locked():
        return begin(
            config,
            folder,
            name="a",
            fingerprint="f" * 64,
            data_fingerprint="d",
            tags=tags,
            on_wait=told.get("on_wait", lambda _: None),
            on_start=lambda _: None,
        )


def test_two_machines_that_begin_a_trial_in_the_same_moment_do_not_both_train_it(
    stored_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_experiment("tiny")
    looked, both, turns, create = threading.Barrier(2), threading.Barrier(2), itertools.count(), TrialRun.create

    def in_the_same_moment(*given: Any, **options: Any) -> TrialRun:
        first_time = next(turns) < 2
        if first_time:
            looked.wait(120)  # both have looked, and found nothing
        run = create(*given, **options)
        if first_time:
            both.wait(120)
        return run

    monkeypatch.setattr(TrialRun, "create", in_the_same_moment)
    monkeypatch.setattr(opening, "_MOST_SECONDS_TO_YIELD", 2.0)
    monkeypatch.setattr(opening, "await_owner", partial(await_owner, poll=0.1))
    waits = list[str]()
    with ThreadPoolExecutor() as pool:
        homes = [tmp_path / "one", tmp_path / "other"]
        begun = [pool.submit(beginning, home, on_wait=waits.append) for home in homes]
        until = time.monotonic() + 120
        while not (waits and any(done.done() for done in begun)) and time.monotonic() < until:
            time.sleep(0.1)
        (first,) = [done.result().run for done in begun if done.done()]
        assert first is not None
        assert waits
        client().set_terminated(first.run_id, "FAILED")  # so that the one that waits has its turn
        ends = [done.result(120).run for done in begun]
    assert len({end.run_id for end in ends if end is not None}) == 2
    for end in ends:
        assert end is not None
        end._ownership.stop()


def test_a_process_that_is_killed_while_it_adopts_an_upload_goes_on_in_the_run_that_uploaded_it(
    stored_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, marks = ensure_experiment("tiny"), {FINGERPRINT_TAG: "f" * 64}
    own, further = (client().create_run(experiment, tags=marks).info.run_id for _ in range(2))
    home = tmp_path / "home"
    folder = TrialFolder(home, "f" * 64)
    with folder.locked():
        folder.begin()
        folder.write_note(Note(run_id=own, forced=False))
        folder.publish(FACTS, lambda path: path.write_bytes(b"5") and None)
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "snapshot.json").write_text(FACTS.model_copy(update={"step": 50}).model_dump_json())
    (sent / "resume.ckpt").write_bytes(b"50")
    client().log_artifacts(further, str(sent), "checkpoints/resume-50")
    client().set_tag(further, CHECKPOINT_TAG, json.dumps({"step": 50, "path": "checkpoints/resume-50"}))
    for run_id in (own, further):
        client().set_terminated(run_id, "FAILED")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(opening, "_resumed", killed)
        beginning(home)
    begun = beginning(home)
    assert begun.run is not None
    begun.run._ownership.stop()
    assert (begun.run.run_id, begun.note) == (further, "resumed at epoch 1, step 50")


def test_a_run_of_another_experiment_is_not_nested_in_this_sweep(stored_home: Path, tmp_path: Path) -> None:
    marks = {FINGERPRINT_TAG: "f" * 64, OWNER_TAG: f"{machine(tmp_path)}/1"}
    own = client().create_run(ensure_experiment("elsewhere"), tags=marks).info.run_id
    client().set_terminated(own, "KILLED")
    folder = TrialFolder(tmp_path, "f" * 64)
    with folder.locked():
        folder.write_note(Note(run_id=own, forced=False))
    begun = beginning(tmp_path, tags={NESTED_TAG: "a run of tiny"})
    assert begun.run is not None
    begun.run._ownership.stop()
    assert (begun.run.run_id, NESTED_TAG in client().get_run(own).data.tags) == (own, False)


@pytest.mark.parametrize("error", [RuntimeError("no route to host"), KeyboardInterrupt()])
def test_who_slept_while_another_machine_finished_its_run_does_not_close_it(
    run: TrialRun, error: BaseException
) -> None:
    with pytest.raises(type(error)), run:
        client().set_tag(run.run_id, OWNER_TAG, "there/1/2/3")
        client().set_terminated(run.run_id, "FINISHED")
        raise error
    found = client().get_run(run.run_id)
    assert (found.info.status, FAILURE_TAG in found.data.tags) == ("FINISHED", False)


def test_who_lost_its_run_uploads_nothing_into_it_and_deletes_nothing_of_it(run: TrialRun, tmp_path: Path) -> None:
    (tmp_path / "resume.ckpt").write_bytes(b"further")
    client().log_artifact(run.run_id, str(tmp_path / "resume.ckpt"), "checkpoints/resume-9")
    uploads = Uploads(run, minutes=0)
    uploads._seconds = 0.0  # as where the store is a server
    with pytest.raises(TrialTakenError), run:
        client().set_tag(run.run_id, OWNER_TAG, "there/1/2/3")
        uploads(Snapshot(path=tmp_path, facts=FACTS))
    assert run.names("checkpoints") == ["checkpoints/resume-9"]


@pytest.mark.trains
def test_a_training_that_lost_its_run_stops_at_the_next_beat_and_leaves_the_run_to_its_owner(
    stored_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "Ownership", partial(Ownership, beat=0.1))
    (trial,) = plan_trials([compose([*TINY, "trainer.max_epochs=500"])])
    runs = list[str]()

    def lose(progress: Progress) -> None:
        if progress.phase == "training":
            client().set_tag(runs[-1], OWNER_TAG, "there/1/2/3")  # at each step: a beat may just be writing its own

    with pytest.raises(TrialTakenError, match="there/1/2/3 took over"):
        run_trial(
            trial.config,
            name=trial.name,
            fingerprint=trial.fingerprint,
            tags={},
            on_start=runs.append,
            report=lose,
        )
    found = client().get_run(runs[-1])
    assert (found.info.status, found.data.tags[OWNER_TAG]) == ("RUNNING", "there/1/2/3")
    assert FAILURE_TAG not in found.data.tags


def test_a_run_that_another_machine_has_claimed_since_it_was_read_is_not_closed(run: TrialRun) -> None:
    read = client().get_run(run.run_id).data.tags[OWNER_TAG]
    client().set_tag(run.run_id, OWNER_TAG, "there/1/2/3")
    close_dead_run(run.run_id, "KILLED", "its process died", owner=read)
    assert client().get_run(run.run_id).info.status == "RUNNING"
    close_dead_run(run.run_id, "KILLED", "its process died", owner="there/1/2/3")
    assert client().get_run(run.run_id).info.status == "KILLED"


def test_of_the_uploads_none_is_left_behind_though_a_process_was_killed_between_them(
    run: TrialRun, tmp_path: Path
) -> None:
    (tmp_path / "resume.ckpt").write_bytes(b"whole")
    for path in ("checkpoints/resume-7", "checkpoints/resume-9", "checkpoints/resume"):
        client().log_artifact(run.run_id, str(tmp_path / "resume.ckpt"), path)
    run.tag({CHECKPOINT_TAG: json.dumps({"step": 9, "path": "checkpoints/resume-9"})})
    client().delete_tag(run.run_id, CHECKPOINT_TAG)  # as who took it for dead did
    withdraw(run)
    kept = [name for path in run.names("checkpoints") for name in run.names(path)]
    assert kept == ["checkpoints/resume/resume.ckpt"]
    assert CHECKPOINT_TAG not in client().get_run(run.run_id).data.tags


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_a_deterministic_training_keeps_the_threads_that_it_began_with(run: TrialRun) -> None:
    torch.set_num_threads(2)
    _keep_threads(run)
    assert client().get_run(run.run_id).data.tags[THREADS_TAG] == "2"
    torch.set_num_threads(1)  # of a sweep that trains two at once
    _keep_threads(run)
    assert torch.get_num_threads() == 2


@pytest.mark.trains
def test_who_lost_its_run_does_not_pause_it(stored_home: Path) -> None:
    (trial,) = plan_trials([compose([*TINY, "trainer.max_epochs=2"])])
    runs = list[str]()

    def lose(progress: Progress) -> None:
        if progress.validated:
            client().set_tag(runs[-1], OWNER_TAG, "there/1/2/3")

    with pytest.raises(TrialTakenError):
        run_trial(
            trial.config,
            name="a",
            fingerprint=trial.fingerprint,
            tags={},
            on_start=runs.append,
            report=lose,
            until_epoch=1,
        )
    assert client().get_run(runs[-1]).info.status == "RUNNING"
