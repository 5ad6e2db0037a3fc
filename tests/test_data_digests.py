"""A file that nobody has touched is digested once, and one that anybody has touched is never taken for what it was."""

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from parts import module, write_pair

from ratchet.data import FolderDataModule
from ratchet.data.digests import DigestIndex, FileContent, Stamp


@pytest.fixture
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now count as left alone for long."""
    monkeypatch.setattr("ratchet.data.digests._AT_REST", -1)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "digests.db"


def cached(folder: Path, index: Path, **options: Any) -> FolderDataModule:
    return module(folder, cache=True, cache_path=index.parent, **options)


@contextmanager
def read_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the images and masks that are read in the block."""
    read, read_bytes = list[str](), Path.read_bytes

    def noted(path: Path) -> bytes:
        if path.suffix == ".png":
            read.append(path.name)
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", noted)
        yield read


@pytest.mark.usefixtures("at_rest")
def test_what_was_read_is_not_read_again_and_what_came_since_is(
    folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = module(folder).fingerprint
    with read_files(monkeypatch) as read:
        assert cached(folder, index).fingerprint == plain
    assert len(read) == 80
    with read_files(monkeypatch) as read:
        assert cached(folder, index, split_seed=2).fingerprint != plain
        assert cached(folder, index).fingerprint == plain
    assert read == []
    write_pair(folder, "part_40", 40)
    with read_files(monkeypatch) as read:
        grown = cached(folder, index).fingerprint
    assert sorted(read) == ["part_40.png"] * 2
    assert grown == module(folder).fingerprint != plain


@pytest.mark.usefixtures("at_rest")
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_change_shows_though_size_and_time_are_as_before(folder: Path, index: Path, kind: str) -> None:
    before = cached(folder, index).fingerprint
    path = folder / kind / "part_17.png"
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert cached(folder, index).fingerprint == module(folder).fingerprint != before


@pytest.mark.usefixtures("at_rest")
def test_a_file_in_anothers_place_is_read(folder: Path, index: Path) -> None:
    before = cached(folder, index).fingerprint
    (folder / "images" / "part_01.png").replace(folder / "images" / "part_02.png")
    write_pair(folder, "part_01", 1)
    assert cached(folder, index).fingerprint == module(folder).fingerprint != before


def test_what_may_still_be_written_is_not_believed(folder: Path, index: Path) -> None:
    assert cached(folder, index).fingerprint == module(folder).fingerprint
    assert not index.exists()


@pytest.mark.usefixtures("at_rest")
def test_without_a_cache_everything_is_read(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(folder, index).prepare()
    with read_files(monkeypatch) as read:
        module(folder, cache=False, cache_path=index.parent).prepare()
    assert len(read) == 80


@pytest.mark.usefixtures("at_rest")
@pytest.mark.parametrize("content", [b"no database", b""])
def test_an_index_that_is_none_is_said_and_the_files_are_read(
    folder: Path, index: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    index.parent.mkdir()
    index.write_bytes(content)
    assert cached(folder, index).fingerprint == module(folder).fingerprint
    assert ("digests.db cannot be used" in caplog.text) == bool(content)


@pytest.mark.usefixtures("at_rest")
def test_what_nobody_asks_for_is_forgotten(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        with closing(sqlite3.connect(index)) as database:
            (count,) = database.execute("SELECT count(*) FROM files").fetchone()
        return int(count)

    monkeypatch.setattr("ratchet.data.digests._today", lambda: 1000)
    cached(folder, index).prepare()
    (folder / "images" / "part_00.png").unlink()
    (folder / "masks" / "part_00.png").unlink()
    monkeypatch.setattr("ratchet.data.digests._today", lambda: 1060)
    cached(folder, index).prepare()  # asks for all that is there still
    monkeypatch.setattr("ratchet.data.digests._today", lambda: 1100)
    write_pair(folder, "part_40", 40)
    cached(folder, index).prepare()
    assert kept() == 80


def test_names_and_inodes_of_any_kind_are_kept_by_several_at_once(index: Path) -> None:
    moment = 10**18
    stamps = {Path(os.fsdecode(b"/data/\xff%d.png" % number)): Stamp(1, 2**63 + number, 5, 6) for number in range(1500)}
    contents = {path: FileContent(f"{number:064x}", 3, number) for number, path in enumerate(stamps)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: DigestIndex(index).keep(contents, stamps, asked=moment), range(4)))
    assert DigestIndex(index).find(stamps) == contents
    path = next(iter(stamps))
    for other in (Stamp(2, 2**63, 5, 6), Stamp(1, 2**63 + 1, 5, 6), Stamp(1, 2**63, 6, 6), Stamp(1, 2**63, 5, 7)):
        assert DigestIndex(index).find({path: other}) == {}


@pytest.mark.usefixtures("at_rest")
def test_a_stale_answer_to_stat_is_not_believed(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a client of NFS gives it for a minute, but not to one who opens the file."""
    before = cached(folder, index).fingerprint
    stale, stat = {path: path.stat() for path in folder.rglob("*.png")}, Path.stat
    path = folder / "masks" / "part_17.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(Path, "stat", lambda asked, **how: stale.get(asked) or stat(asked, **how))
    assert cached(folder, index).fingerprint == module(folder).fingerprint != before


def test_an_index_that_cannot_be_looked_for_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = module(folder, cache=True, cache_path=folder / ("x" * 300))
    assert data.fingerprint == module(folder).fingerprint
    assert "digests.db cannot be used" in caplog.text


@pytest.mark.usefixtures("at_rest")
def test_what_is_old_is_looked_for_once(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, connect = list[str](), sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        made = connect(*args, **options)
        made.set_trace_callback(said.append)
        return made

    monkeypatch.setattr("ratchet.data.digests.sqlite3.connect", traced)
    monkeypatch.setattr("ratchet.data.content._BLOCK", 4)
    cached(folder, index).prepare()
    assert sum(text.startswith("INSERT") for text in said) == 80
    assert sum(text.startswith("DELETE") for text in said) == 1
