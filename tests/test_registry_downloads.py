"""Downloads into a folder that stays, as a volume does: one that is killed at any time is repeated as if it had not been."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from registry_backends import Backend, kinds

from ratchet.errors import ModelFilesError
from ratchet.registry.files import digests_of

pytest_plugins = ["registry_backends"]
pytestmark = [pytest.mark.parametrize("backend", kinds("directory"), indirect=True), pytest.mark.slow]

MakeModel = Callable[[], Path]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def killed(download: Callable[[], object], moves: int) -> bool:
    """Download in a process of its own that is killed after so many moves; returns whether it came that far."""
    move, done = Path.rename, itertools.count()

    def last(path: Path, target: Path) -> Path:
        if next(done) == moves:
            os.kill(os.getpid(), signal.SIGKILL)
        return move(path, target)

    def work() -> None:
        pytest.MonkeyPatch().setattr(Path, "rename", last)
        download()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_what_a_killed_download_left_is_replaced_also_by_another_version(
    backend: Backend, name: str, make_model: MakeModel, volume: Path, moves: int
) -> None:
    manager = backend.open()
    versions = [manager.register_model(str(make_model()), name) for _ in range(2)]
    for _ in range(2):
        assert killed(lambda: manager.download_model(name, 1, volume), moves)
    assert len(list(volume.glob(".ratchet-filling-????????"))) == 1
    manager.download_model(name, 2, volume)
    assert digests_of(volume) == versions[1].digests
    with pytest.raises(ModelFilesError, match="already holds something"):
        manager.download_model(name, 2, volume)


def test_what_killed_downloads_into_a_new_folder_left_beside_it_goes(
    backend: Backend, name: str, make_model: MakeModel, volume: Path
) -> None:
    manager = backend.open()
    made = manager.register_model(str(make_model()), name)
    for folder in ("cats", "cats-2"):
        assert killed(lambda folder=folder: manager.download_model(name, 1, volume / folder), 0)
    other = list(volume.glob(".ratchet-filling-cats-2-*"))
    assert killed(lambda: manager.download_model(name, 1, volume / "cats"), 0)
    assert digests_of(manager.download_model(name, 1, volume / "cats")) == made.digests
    assert sorted(volume.iterdir()) == sorted([volume / "cats", *other])
    manager.download_model(name, 1, volume / "cats-2")
    assert sorted(path.name for path in volume.iterdir()) == ["cats", "cats-2"]


def test_where_nothing_can_be_locked_what_another_may_be_at_stays(
    backend: Backend, name: str, make_model: MakeModel, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = backend.open()
    made = manager.register_model(str(make_model()), name)
    assert killed(lambda: manager.download_model(name, 1, volume), 1)

    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    with monkeypatch.context() as patch:
        patch.setattr("ratchet.registry.placing.fcntl.flock", refuse)
        with pytest.raises(ModelFilesError, match="already holds something"):
            manager.download_model(name, 1, volume)
        (volume.parent / "empty").mkdir()
        assert digests_of(manager.download_model(name, 1, volume.parent / "empty")) == made.digests
    (volume / ".ratchet-filling-names").write_text("")  # as after a loss of power
    with pytest.raises(ModelFilesError, match=r"cannot be read.*empty the directory"):
        manager.download_model(name, 1, volume)


def test_what_else_lies_beside_what_a_killed_download_left_stays(
    backend: Backend, name: str, make_model: MakeModel, volume: Path
) -> None:
    manager = backend.open()
    manager.register_model(str(make_model()), name)
    assert killed(lambda: manager.download_model(name, 1, volume), 2)
    (volume / "notes.txt").write_text("mine")
    with pytest.raises(ModelFilesError, match="already holds something"):
        manager.download_model(name, 1, volume)
    assert [path.name for path in volume.iterdir()] == ["notes.txt"]


def test_of_two_downloads_into_one_folder_at_once_the_second_waits_and_is_refused(
    backend: Backend, name: str, make_model: MakeModel, volume: Path
) -> None:
    made = backend.open().register_model(str(make_model()), name)
    with ThreadPoolExecutor(2) as pool:
        at_once = [pool.submit(backend.open().download_model, name, 1, volume) for _ in range(2)]
    errors = [error for download in at_once if (error := download.exception()) is not None]
    assert [type(error) for error in errors] == [ModelFilesError]
    assert digests_of(volume) == made.digests
