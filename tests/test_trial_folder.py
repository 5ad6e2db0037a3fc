"""A trial's folder and the hold on its run: real locks, real dead processes, a real tracking store."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from ratchet.errors import TrainingError, TrialTakenError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import CHECKPOINT_TAG, HEARTBEAT_TAG
from ratchet.training.checkpoint import Snapshots, StraightToDisk
from ratchet.training.folder import FACTS_FILE, Facts, Note, Snapshot, TrialFolder, link, lock_folder
from ratchet.training.leftovers import prune
from ratchet.training.ownership import OWNER_TAG, Ownership, await_owner, machine

HOLD = """
import sys, time
from pathlib import Path
from ratchet.training.folder import TrialFolder
with TrialFolder(Path(sys.argv[1]), "abc").locked():
    print("held", flush=True)
    time.sleep(600)
"""


def facts(step: int = 0) -> Facts:
    return Facts(epoch=1, step=step, trained=False, stopped=False, seconds=1.0, peak_memory=1.0, best=None)


def publish(folder: TrialFolder, step: int) -> None:
    folder.publish(facts(step), lambda path: path.write_text(f"state {step}"))


def test_a_dead_process_holds_nothing_and_a_live_one_is_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told = threading.Event()
    held = threading.Event()

    def take() -> None:
        with TrialFolder(tmp_path, "abc").locked(on_wait=told.set):
            held.set()

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    assert told.wait(60)
    assert not held.is_set()
    assert prune(tmp_path, keep=set(), seconds=0.0) == []  # what is worked on stays
    os.kill(holder.pid, signal.SIGKILL)
    assert held.wait(60)
    holder.wait()
    holder.stdout.close()


def test_a_snapshot_takes_the_place_of_the_one_before_with_its_checkpoints(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "abc")
    with folder.locked():
        folder.begin()
        assert folder.newest() is None
        (folder.checkpoints / "one.ckpt").write_text("one")
        publish(folder, 1)
        (folder.checkpoints / "one.ckpt").unlink()
        (folder.checkpoints / "two.ckpt").write_text("two")
        (folder.path / "draft").mkdir()  # as a process leaves it that dies while it writes
        folder.begin()
        snapshot = folder.newest()
        assert snapshot is not None
        assert (snapshot.facts.step, snapshot.resume.read_text()) == (1, "state 1")
        assert [file.name for file in folder.checkpoints.iterdir()] == ["one.ckpt"]
        publish(folder, 2)
        folder.settle()
        assert len(list(folder.path.glob("snapshot-*"))) == 1
        folder.remove()
    with folder.locked():
        assert folder.newest() is None


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems do not say when they were started")
def test_a_snapshot_that_is_not_on_the_disk_yet_counts_until_the_machine_is_started_again(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "abc")
    with folder.locked():
        folder.begin()
        publish(folder, 1)
    (folder.path / "newest").unlink()  # as a process leaves it that dies before it is on the disk
    after = TrialFolder(tmp_path, "abc")
    newest = after.newest()
    assert newest is not None
    assert newest.facts.step == 1
    (newest.path / "boot").write_text("at another time, or elsewhere")
    assert after.newest() is None


def test_a_snapshot_that_its_machine_did_not_get_onto_the_disk_counts_for_nobody_else(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "abc")
    with folder.locked():
        folder.begin()
        publish(folder, 1)
    lost = folder.path / "snapshot-000001"  # as a machine leaves it that loses its power meanwhile
    lost.mkdir()
    (lost / FACTS_FILE).write_text(facts(2).model_dump_json())
    after = TrialFolder(tmp_path, "abc")
    with after.locked():
        newest = after.newest()
        assert newest is not None
        assert newest.facts.step == 1
        publish(after, 3)
        here = after.newest()
        assert here is not None
        assert here.facts.step == 3  # for the process that made it, at once
    assert not lost.exists()
    for_others = TrialFolder(tmp_path, "abc").newest()
    assert for_others is not None
    assert for_others.facts.step == 3


def test_a_snapshot_that_cannot_be_put_on_the_disk_is_an_error_and_the_one_before_stays(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "abc")
    with folder.locked():
        folder.begin()
        publish(folder, 1)
        folder.settle()
        broken = folder.publish(facts(2), lambda path: block_the_name(folder, path))
        with pytest.raises(OSError, match="newest"):
            folder.settle()
        assert not broken.path.exists()
        newest = folder.newest()
        assert newest is not None
        assert newest.facts.step == 1


def test_a_snapshot_that_came_without_its_empty_folder_of_checkpoints_is_gone_on_from(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, "abc")
    with folder.locked():
        folder.begin()
        uploaded = folder.path / "fetched"
        uploaded.mkdir()
        (uploaded / "resume.ckpt").write_text("state 7")
        (uploaded / FACTS_FILE).write_text(facts(7).model_dump_json())
        folder.adopt(uploaded)
        folder.begin()
        assert list(folder.checkpoints.iterdir()) == []
        publish(folder, 8)
        newest = folder.newest()
        assert newest is not None
        assert newest.facts.step == 8


def block_the_name(folder: TrialFolder, path: Path) -> None:
    path.write_text("state 2")
    (folder.path / "newest.draft").mkdir()


def test_a_folder_whose_files_keep_a_name_while_they_are_open_is_given_up_in_silence(tmp_path: Path) -> None:
    """As on NFS. Here something else puts files back while it is removed."""
    folder = TrialFolder(tmp_path, "f")
    over = threading.Event()

    def put_back() -> None:
        while not over.is_set():
            with suppress(FileNotFoundError):
                (folder.path / ".nfs0001").touch()

    with folder.locked():
        folder.begin()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(put_back)
            folder.remove()
            over.set()
        assert {path.name for path in folder.path.glob("*")} <= {".nfs0001"}


def test_old_and_large_leftovers_go_with_a_message_and_the_newest_stay(tmp_path: Path) -> None:
    new, middle, old = (hashlib.sha256(name.encode()).hexdigest() for name in ("new", "middle", "old"))
    for age, name in ((0, new), (1.2, middle), (2, old), (2, "patient-001")):
        folder = TrialFolder(tmp_path, name)
        with folder.locked():
            folder.begin()
            (folder.checkpoints / "kept.ckpt").write_bytes(bytes(3_000_000))
            publish(folder, 1)
        for entry in folder.path.rglob("*"):
            os.utime(entry, (time.time() - 86400 * age,) * 2)
        (folder.path / "gone").symlink_to("nowhere")  # as what a trial at work removes between two looks
    told = prune(tmp_path, keep={middle}, seconds=1.5 * 86400)
    assert len(told) == 1
    assert f"interrupted trial {old[:12]}: 3 MB" in told[0]  # the snapshot has it too, and it is one file
    assert "2.0 days" in told[0]
    assert prune(tmp_path, keep={middle}, most=100.0) == []
    told = prune(tmp_path, keep=set(), most=100.0)
    assert f"interrupted trial {middle[:12]}" in told[0]
    left = {path.name for path in (tmp_path / "trials").iterdir()}
    assert left == {new, "patient-001"}  # a sweep may have paused the one a moment ago, and the other is no trial


def test_a_leftover_that_cannot_be_removed_keeps_no_other_from_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    roots, ours = (hashlib.sha256(name).hexdigest() for name in (b"root's", b"ours"))
    for name, days in ((roots, 3), (ours, 2)):
        folder = TrialFolder(tmp_path, name)
        with folder.locked():
            folder.begin()
        for entry in folder.path.rglob("*"):
            os.utime(entry, (time.time() - 86400 * days,) * 2)

    def lock(path: Path, *, wait: bool) -> Any:
        if path.name == roots:
            raise PermissionError(errno.EACCES, "Permission denied", str(path / "lock"))
        return lock_folder(path, wait=wait)

    monkeypatch.setattr("ratchet.training.leftovers.lock_folder", lock)
    assert len(prune(tmp_path, keep=set(), seconds=86400)) == 1
    assert {path.name for path in (tmp_path / "trials").iterdir()} == {roots}
    assert f"interrupted trial {roots[:12]} stays: " in caplog.text
    assert "Permission denied" in caplog.text


def test_what_another_sweep_has_paused_stays_whatever_its_size_until_it_is_old(tmp_path: Path) -> None:
    paused = hashlib.sha256(b"paused").hexdigest()
    folder = TrialFolder(tmp_path, paused)
    with folder.locked():
        folder.begin()
        publish(folder, 1)
    for entry in folder.path.rglob("*"):
        os.utime(entry, (time.time() - 1.5 * 86400,) * 2)
    assert prune(tmp_path, keep=set(), paused={paused}, most=0.0) == []
    assert len(prune(tmp_path, keep=set(), paused={paused}, most=0.0, seconds=86400)) == 1


def test_a_snapshot_that_stays_behind_the_next_one_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, removed = TrialFolder(tmp_path, "abc"), shutil.rmtree

    def as_on_a_network_file_system(path: Path, ignore_errors: bool = False, **options: Any) -> None:
        if not ignore_errors and Path(path).name == "snapshot-000000":
            raise OSError(errno.ENOTEMPTY, "Directory not empty: .nfs0001")
        if Path(path).name != "snapshot-000000":
            removed(path, ignore_errors=ignore_errors, **options)

    with folder.locked():
        folder.begin()
        publish(folder, 1)
        folder.settle()
        monkeypatch.setattr(shutil, "rmtree", as_on_a_network_file_system)
        publish(folder, 2)
        folder.settle()
    newest = TrialFolder(tmp_path, "abc").newest()
    assert newest is not None
    assert newest.facts.step == 2


class Slow(pl.LightningModule):
    """Takes a fifth of a second for each of three batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2)
        loss: torch.Tensor = self.layer(batch).sum()
        return loss

    def validation_step(self, batch: torch.Tensor) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())


@pytest.mark.parametrize(
    ("spent", "disk", "steps"),
    [(0.0, 5e8, [1, 2, 3]), (1e6, 5e8, [3]), (0.0, 1.0, [3])],
    ids=["a trial that began just now", "one of twelve days", "a disk that would take half a minute for two weights"],
)
def test_within_an_epoch_a_snapshot_comes_when_a_kill_would_cost_a_twentieth_of_the_trials_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spent: float, disk: float, steps: list[int]
) -> None:
    monkeypatch.setattr("ratchet.training.checkpoint._SECONDS_TO_LOSE", 0.0)
    monkeypatch.setattr("ratchet.training.checkpoint._BYTES_A_SECOND", disk)
    monkeypatch.setattr("ratchet.training.checkpoint._TIMES_FIRST", 0.1)
    monkeypatch.setattr("ratchet.training.checkpoint._TIMES_ITS_COST", 0.1)
    folder, taken = TrialFolder(tmp_path, "abc"), list[int]()

    def upload(snapshot: Snapshot) -> None:
        taken.append(snapshot.facts.step)
        time.sleep(1.0)  # which is bounded by itself, and keeps no later snapshot away

    keep = Snapshots(
        folder, seed=0, minutes=5, pause_at=None, ends_for_good=False, before=lambda: None, after=upload,
        seconds=lambda: spent, peak_memory=lambda: 0.0,
    )  # fmt: skip
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    with folder.locked():
        folder.begin()
        trainer = pl.Trainer(max_epochs=1, callbacks=[keep], default_root_dir=tmp_path, **quiet)
        trainer.strategy.checkpoint_io = StraightToDisk()
        trainer.fit(Slow(), torch.utils.data.DataLoader(torch.zeros(3, 1)))
    assert taken == steps


@pytest.mark.parametrize(("score", "kept"), [(0.4, True), (float("inf"), False), (float("-inf"), False)])
def test_of_a_metric_that_was_never_finite_no_epoch_is_the_best(tmp_path: Path, score: float, kept: bool) -> None:
    folder = TrialFolder(tmp_path, "abc")
    keeps = ModelCheckpoint(dirpath=folder.checkpoints / "model_checkpoint", monitor="val_iou")
    keeps.best_model_path = str(folder.checkpoints / "model_checkpoint" / "epoch=0.ckpt")
    keeps.best_model_score = torch.tensor(score)
    snapshots = Snapshots(
        folder, seed=0, minutes=5, pause_at=None, ends_for_good=False, before=lambda: None, after=lambda _: None,
        seconds=lambda: 0.0, peak_memory=lambda: 0.0,
    )  # fmt: skip
    trainer = pl.Trainer(callbacks=[keeps], logger=False, enable_progress_bar=False, enable_model_summary=False)
    assert (snapshots._best(trainer) is not None) == kept


@pytest.mark.usefixtures("stored_home")
def test_a_run_is_never_taken_from_a_live_owner_and_only_once_from_a_dead_one(stored_home: Path) -> None:
    store = client()
    alive = Ownership(store, "there/1", beat=0.05)
    run = store.create_run(ensure_experiment("tiny"), tags=alive.tags())
    alive.start(run.info.run_id)
    waited: list[str] = []
    freed = threading.Event()

    def wait() -> None:
        await_owner(store, run.info.run_id, "here/1", on_wait=waited.append, stale=2.0, poll=0.05)
        freed.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not freed.wait(4.0)  # twice as long as a silence may last
    assert waited == [alive.owner]
    alive.stop()
    assert freed.wait(60)
    waiter.join()

    found = store.get_run(run.info.run_id)
    heirs = [Ownership(store, f"here/{number}") for number in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda heir: heir.claim(found, settle=2.0), heirs)) == [False, True]
    for heir in heirs:
        heir.stop()

    store.set_terminated(run.info.run_id, "KILLED")  # ended, so that nobody has to be waited for
    took: list[str] = []
    yielded: list[str] = []

    def take_up(heir: Ownership, after: float) -> None:
        time.sleep(after)
        here = heir.owner.rpartition("/")[0]
        while True:
            found = await_owner(store, run.info.run_id, here, on_wait=yielded.append, poll=0.05)
            if found.info.status == "FINISHED":
                return
            if heir.claim(found, settle=2.0):
                took.append(heir.owner)
                time.sleep(1.5)  # it fetches a checkpoint
                heir.confirm()
                heir.stop()
                store.set_terminated(run.info.run_id)
                return

    with ThreadPoolExecutor(3) as pool:
        afters = (0.0, 0.5, 2.75)
        begun = [pool.submit(take_up, Ownership(store, f"heir/{n}", beat=0.2), after) for n, after in enumerate(afters)]
        for each in begun:
            each.result(60)  # raises what it raised
    assert len(took) == 1
    assert set(yielded) == set(took)
    alive.run_id = run.info.run_id
    with pytest.raises(TrialTakenError, match="took over"):
        alive.confirm()


@pytest.mark.usefixtures("stored_home")
def test_an_owner_of_this_machine_needs_no_waiting_nor_one_that_is_silent_for_hours(stored_home: Path) -> None:
    store, here = client(), machine(stored_home)
    assert machine(stored_home) == here

    other = stored_home / "other" / "trials"
    other.mkdir(parents=True)
    (other / "home-id").touch()  # as a power cut leaves it
    with ThreadPoolExecutor(8) as pool:
        (name,) = set(pool.map(machine, [other.parent] * 8))
    assert name == machine(other.parent) != here
    assert name.rpartition("/")[2]
    experiment = ensure_experiment("tiny")
    dead = store.create_run(experiment, tags=Ownership(store, here).tags())
    long_ago = {OWNER_TAG: "there/1/2/3", HEARTBEAT_TAG: "2020-01-01T00:00:00+00:00"}
    silent = store.create_run(experiment, tags=long_ago)
    for run in (dead, silent):
        found = await_owner(store, run.info.run_id, here, on_wait=pytest.fail, stale=600)
        assert found.info.run_id == run.info.run_id


def test_a_checkpoint_that_is_written_anew_leaves_the_snapshot_that_links_it(tmp_path: Path) -> None:
    kept, linked = tmp_path / "checkpoints" / "best.ckpt", tmp_path / "snapshot.ckpt"
    StraightToDisk().save_checkpoint({"epoch": 0}, kept)
    link(str(kept), str(linked))
    StraightToDisk().save_checkpoint({"epoch": 1}, kept)
    assert [torch.load(file)["epoch"] for file in (kept, linked)] == [1, 0]
    assert list(kept.parent.iterdir()) == [kept]


FREE_AND_TAKE = """
import resource
from ratchet.training.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take_and_free():
    before = faults()
    bytearray(b"x") * 200_000_000
    return faults() - before

take_and_free()
given_back = take_and_free()
keep_freed_memory()
take_and_free()
print(given_back, take_and_free())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_was_freed_is_not_asked_from_the_kernel_again() -> None:
    ran = subprocess.run([sys.executable, "-c", FREE_AND_TAKE], capture_output=True, text=True, check=True)
    given_back, kept = map(int, ran.stdout.split())
    assert kept < given_back / 10


def snapshots_of(folder: TrialFolder, **given: Any) -> Snapshots:
    usual = {"seed": 0, "minutes": 5, "pause_at": None, "ends_for_good": False, "before": lambda: None}
    rest = {"after": lambda _: None, "seconds": lambda: 0.0, "peak_memory": lambda: 0.0}
    return Snapshots(folder, **{**usual, **rest, **given})


def test_a_callback_of_a_longer_name_does_not_choose_the_exported_epoch(tmp_path: Path) -> None:
    folder, kept = TrialFolder(tmp_path, "abc"), list[ModelCheckpoint]()
    for key, monitor in (("model_checkpoint_iou", "val_iou"), ("model_checkpoint", "val_loss")):
        kept.append(ModelCheckpoint(dirpath=folder.checkpoints / key, monitor=monitor))
        kept[-1].best_model_path = str(folder.checkpoints / key / "e.ckpt")
    assert snapshots_of(folder)._best(pl.Trainer(callbacks=kept, logger=False)) == "model_checkpoint/e.ckpt"  # type: ignore[arg-type]


def test_no_snapshot_comes_between_a_step_and_its_validation_where_steps_are_counted_over_epochs(
    tmp_path: Path,
) -> None:
    folder, taken = TrialFolder(tmp_path, "abc"), list[int]()
    keep = snapshots_of(folder, minutes=0, after=lambda snapshot: taken.append(snapshot.facts.step))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    every = {"check_val_every_n_epoch": None, "val_check_interval": 4}
    images = torch.utils.data.DataLoader(torch.zeros(3, 1))
    with folder.locked():
        folder.begin()
        trainer = pl.Trainer(max_epochs=2, callbacks=[keep], default_root_dir=tmp_path, **every, **quiet)
        trainer.fit(Slow(), images, images)
    assert 5 in taken
    assert 4 not in taken


class Tells(pl.Callback):
    """A callback of one's own that logs where an epoch ends, and where it begins."""

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.log("begun", float(trainer.current_epoch))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.log("own", 1.0)


def test_what_a_callback_logs_at_an_epochs_ends_keeps_no_training_from_going_on(tmp_path: Path) -> None:
    def kill(snapshot: Snapshot) -> None:
        if snapshot.facts.step == 4:  # within the second epoch of three steps
            raise InterruptedError

    folder = TrialFolder(tmp_path, "abc")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    images = torch.utils.data.DataLoader(torch.zeros(3, 1))
    with folder.locked():
        folder.begin()
        keep = [Tells(), snapshots_of(folder, minutes=0, after=kill)]
        with pytest.raises(InterruptedError):
            pl.Trainer(max_epochs=2, callbacks=keep, default_root_dir=tmp_path, **quiet).fit(Slow(), images)
        newest = folder.newest()
        assert newest is not None
        keep = [Tells(), snapshots_of(folder, minutes=0)]
        again = pl.Trainer(max_epochs=2, callbacks=keep, default_root_dir=tmp_path, **quiet)
        again.fit(Slow(), images, ckpt_path=str(newest.resume), weights_only=True)
    assert again.global_step == 6
    assert float(again.callback_metrics["own"]) == 1.0
    assert float(again.callback_metrics["begun"]) == 1.0  # that of this epoch, which had begun before


@pytest.mark.parametrize("best", ["/elsewhere/e.ckpt", "../../elsewhere/e.ckpt"])
def test_a_snapshot_that_came_from_a_server_writes_nothing_outside_its_folder(best: str) -> None:
    with pytest.raises(TrainingError, match="outside of it"):
        Facts.model_validate_json(json.dumps(facts().model_dump() | {"best": best}))


@pytest.mark.parametrize("path", ["/a/m/../../data", "local:///a/data", "s3://bucket/data"])
def test_a_checkpoint_that_came_from_a_server_removes_nothing_outside_its_folder(tmp_path: Path, path: str) -> None:
    keep = snapshots_of(TrialFolder(tmp_path, "abc"))
    state = {keep.state_key: {"checkpoints": "/a"}, "ModelCheckpoint{}": {"best_k_models": {path: 0.5}}}
    with pytest.raises(TrainingError, match=re.escape(path)):
        keep.on_load_checkpoint(pl.Trainer(logger=False), Slow(), {"callbacks": state})


def test_what_an_abandoned_trial_uploaded_goes_with_its_folder(stored_home: Path, tmp_path: Path) -> None:
    store, names = client(), list[list[str]]()
    for owner in (f"{machine(tmp_path)}/1/2", "there/x/1/2"):
        tags = {CHECKPOINT_TAG: "{}", OWNER_TAG: owner}
        run_id = store.create_run(ensure_experiment("tiny"), tags=tags).info.run_id
        (tmp_path / "resume.ckpt").write_bytes(b"state")
        for path in ("checkpoints/resume-9", "checkpoints"):
            store.log_artifact(run_id, str(tmp_path / "resume.ckpt"), path)
        store.set_terminated(run_id, "KILLED")
        folder = TrialFolder(tmp_path, hashlib.sha256(owner.encode()).hexdigest())
        with folder.locked():
            folder.write_note(Note(run_id=run_id, forced=False))
        assert len(prune(tmp_path, keep=set(), seconds=0)) == 1
        assert (CHECKPOINT_TAG in store.get_run(run_id).data.tags) == owner.startswith("there")
        names.append([entry.path for entry in store.list_artifacts(run_id, "checkpoints")])
    here, on_another_machine = names
    assert here == ["checkpoints/resume.ckpt"]
    assert on_another_machine == ["checkpoints/resume-9", "checkpoints/resume.ckpt"]
