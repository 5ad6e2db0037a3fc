"""The watch over a data set: cheap while nothing changes, patient while files arrive, and told by the content."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from exported_models import BEST, Brightness, export
from parts import write_list, write_parts

from ratchet.data.watching import DataLook, look, sign
from ratchet.errors import DatasetNotFoundError
from ratchet.registry import MlflowModelManager
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client, tracking_uri
from ratchet.watching import look_at_data, trained_on

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLE = timedelta(minutes=10)


class Watcher:
    """Looks every five minutes; the content is the text of one file."""

    def __init__(self, folder: Path, known: str | None) -> None:
        self.folder, self.known = folder, known
        self.before: DataLook | None = None
        self.minutes, self.read = 0, 0

    def look(self) -> DataLook:
        def read() -> tuple[str, int]:
            self.read += 1
            return (self.folder / "image").read_text(), 0

        now = START + timedelta(minutes=self.minutes)
        self.before = look(self.folder, self.before, now=now, settle=SETTLE, read=read, known=lambda: self.known)
        self.minutes += 5
        return self.before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image").write_text("a")
    return tmp_path


def test_what_is_there_at_first_is_compared_with_what_was_trained_on(folder: Path) -> None:
    watcher = Watcher(folder, known="older")
    assert [watcher.look().previous for _ in range(5)] == [None, None, "older", None, None]
    watcher = Watcher(folder, known="a")
    assert [watcher.look().previous for _ in range(4)] == [None] * 4
    watcher = Watcher(folder, known=None)  # nothing was ever trained: a person begins
    assert [watcher.look().previous for _ in range(4)] == [None] * 4


def test_a_change_is_told_once_and_only_when_the_files_have_settled(folder: Path) -> None:
    watcher = Watcher(folder, known="a")
    for _ in range(3):
        watcher.look()
    for text in ("ab", "abc", "abcd"):  # more arrives between two looks
        (folder / "image").write_text(text)
        found = watcher.look()
        assert (found.settled, found.previous) == (False, None)
    assert [watcher.look().previous for _ in range(4)] == [None, "a", None, None]
    assert watcher.before is not None
    assert watcher.before.fingerprint == "abcd"


def test_while_nothing_changes_no_file_is_read(folder: Path) -> None:
    watcher = Watcher(folder, known="a")
    for _ in range(10):
        watcher.look()
    assert watcher.read == 1


def test_files_that_were_only_touched_are_read_again_but_are_no_change(folder: Path) -> None:
    watcher = Watcher(folder, known="a")
    for _ in range(3):
        watcher.look()
    os.utime(folder / "image", (1, 1))
    assert [watcher.look().previous for _ in range(5)] == [None] * 5
    assert watcher.read == 2


def test_a_folder_that_is_yet_to_come_is_waited_for(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "data", known=None)
    assert not watcher.look().settled
    assert watcher.read == 0


def test_the_signature_sees_names_sizes_and_times_at_any_depth_and_no_hidden_file(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    seen = {sign(folder)}
    (folder / "deep" / "er" / "mask").write_text("1")
    seen.add(sign(folder))
    (folder / "deep" / "er" / "mask").rename(folder / "deep" / "er" / "other")
    seen.add(sign(folder))
    os.utime(folder / "deep" / "er" / "other", (1, 1))
    seen.add(sign(folder))
    assert len(seen) == 4
    (folder / ".hidden").touch()
    assert sign(folder) in seen
    assert sign(folder / "absent") is None


OWN = ("datamodule=base/segmentation", "datamodule.idx_to_class={1: scratch, 2: dent}")
BEFORE = DataLook(signature="another", since=START, fingerprint="another")


@pytest.mark.parametrize("search", ["optimizer.lr=interval(1e-4,1e-2)", "sweep.sampler=tpe"])
def test_the_data_of_trials_that_are_searched_are_watched_too(folder: Path, search: str) -> None:
    found, watched = look_at_data("m", [*OWN, f"datamodule.data_path={folder}", search], BEFORE, settle=SETTLE)
    assert (watched, found.signature) == (folder, sign(folder))


def test_a_folder_that_is_not_there_is_told_unless_its_data_are_yet_to_be_made(tmp_path: Path) -> None:
    absent = f"datamodule.data_path={tmp_path / 'absent'}"
    with pytest.raises(DatasetNotFoundError, match=r"there is no folder .*/absent: "):
        look_at_data("m", [*OWN, absent], BEFORE, settle=SETTLE)
    found, _ = look_at_data("m", ["experiment=generic/shapes/segmentation/smp", absent], BEFORE, settle=SETTLE)
    assert (found.signature, found.settled, found.fingerprint) == ("", False, "another")


@pytest.mark.usefixtures("ratchet_home")
def test_images_that_are_in_no_list_are_told_until_they_are(tmp_path: Path) -> None:
    data = write_parts(tmp_path / "parts")
    for split, numbers in {"train": range(20), "val": range(20, 25), "test": range(25, 30)}.items():
        write_list(data, split, *numbers)
    asked = [*OWN, f"datamodule.data_path={data}"]
    found, _ = look_at_data("m", asked, BEFORE, settle=timedelta(0))
    again, _ = look_at_data("m", asked, found, settle=timedelta(0))
    assert (found.previous, again.previous) == ("another", None)
    assert found.note == again.note == "10 images are in no list, and take no part"
    write_list(data, "train", *range(20), *range(30, 40))
    listed, _ = look_at_data("m", asked, again, settle=timedelta(0))
    assert (listed.previous, listed.note) == (found.fingerprint, None)


@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("place", ["{}/train.txt", "../train.txt", ".lists/train.txt"])
def test_a_list_that_lies_elsewhere_is_watched_too(tmp_path: Path, place: str) -> None:
    data = write_parts(tmp_path / "parts")
    for split, numbers in {"train": range(20), "val": range(20, 25), "test": range(25, 30)}.items():
        write_list(data, split, *numbers)
    elsewhere = data / place.format(tmp_path)
    elsewhere.parent.mkdir(exist_ok=True)
    (data / "train.txt").rename(elsewhere)
    asked = [*OWN, f"datamodule.data_path={data}", f"datamodule.train_split_file={place.format(tmp_path)}"]
    found, _ = look_at_data("m", asked, BEFORE, settle=timedelta(0))
    write_list(elsewhere.parent, "train", *range(20), *range(30, 40))
    listed, _ = look_at_data("m", asked, found, settle=timedelta(0))
    assert (listed.previous, listed.note) == (found.fingerprint, None)


def test_a_link_to_nothing_is_left_out_and_what_cannot_be_looked_at_is_told(folder: Path) -> None:
    before = sign(folder)
    (folder / "gone").symlink_to(folder / "nowhere")
    assert sign(folder) == before
    (folder / "round").symlink_to(folder / "round")
    with pytest.raises(DatasetNotFoundError, match=r"round cannot be looked at"):
        sign(folder)


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_of_a_version_whose_run_was_cleaned_up_nobody_knows_the_data(tmp_path: Path) -> None:
    from mlflow.tracking._tracking_service.utils import _get_store

    store = client()
    run_id = store.create_run(ensure_experiment("m"), tags={"ratchet.data_fingerprint": "abc"}).info.run_id
    store.log_artifacts(run_id, str(export(tmp_path / "model", Brightness(BEST))), "deployment_model")
    MlflowModelManager().register_model(f"runs:/{run_id}/deployment_model", "m")
    assert trained_on("m") == "abc"
    store.delete_run(run_id)
    _get_store(tracking_uri())._hard_delete_run(run_id)  # as `mlflow gc` does
    assert trained_on("m") is None
