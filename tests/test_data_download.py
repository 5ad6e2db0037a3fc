"""The pets are downloaded whole or not at all, from a real server on this machine."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ratchet.data import OxfordPetDataModule
from ratchet.errors import DatasetNotFoundError, DownloadError

OPTIONS: dict[str, Any] = {
    "input_height": 16,
    "input_width": 16,
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "val_size": 0.5,
}


def encoded(array: np.ndarray, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, file_format)
    return buffer.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def pet_archives() -> dict[str, bytes]:
    names = [f"Cat_{number}" for number in range(12)]
    rng = np.random.default_rng(0)
    images = {f"images/{n}.jpg": encoded(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), "JPEG") for n in names}
    trimaps = {
        f"annotations/trimaps/{n}.png": encoded(rng.integers(1, 4, (20, 30), dtype=np.uint8), "PNG") for n in names
    }
    lists = {
        "annotations/trainval.txt": "".join(f"{n} 1 1 1\n" for n in names[:8]).encode(),
        "annotations/test.txt": "".join(f"{n} 1 1 1\n" for n in names[8:11]).encode(),
        "annotations/trimaps/._Cat_0.png": b"resource fork",
        "images/Cat_0.mat": b"matlab",
    }
    return {
        "images.tar.gz": archive({**images, "images/Cat_0.mat": lists.pop("images/Cat_0.mat")}),
        "annotations.tar.gz": archive({**trimaps, **lists}),
    }


@dataclass
class PetServer:
    url: str
    files: dict[str, bytes]
    checksums: dict[str, str]
    served: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PetServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = pet_archives()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            if name not in files:
                self.send_error(404)
                return
            pets.served.append(name)
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[name])))
            self.end_headers()
            self.wfile.write(files[name])

        def log_message(self, *arguments: object) -> None:
            """Keep the output of the tests clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        checksums = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in files.items()}
        pets = PetServer(f"http://127.0.0.1:{http.server_port}/pets", files, checksums)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield pets
        http.shutdown()


def pets_at(path: Path, server: PetServer, **options: Any) -> OxfordPetDataModule:
    settings = {**OPTIONS, "download_url": server.url, "checksums": server.checksums, **options}
    return OxfordPetDataModule(data_path=path, **settings)


def test_missing_pets_are_downloaded_and_ready_to_train_on(tmp_path: Path, server: PetServer) -> None:
    data = pets_at(tmp_path / "pets", server)
    data.prepare()
    assert len(data.samples["train"]) + len(data.samples["val"]) == 8
    assert len(data.samples["test"]) == 3
    assert set(data.evaluation_dataset("test")[0]["mask"].unique().tolist()) == {0, 1}
    assert sorted(path.name for path in (tmp_path / "pets").iterdir() if path.is_dir()) == ["annotations", "images"]


def test_pets_that_are_there_are_not_downloaded_again(tmp_path: Path, server: PetServer) -> None:
    first = pets_at(tmp_path, server).fingerprint
    assert pets_at(tmp_path, server).fingerprint == first
    assert sorted(server.served) == ["annotations.tar.gz", "images.tar.gz"]


def test_only_the_archive_that_is_missing_is_downloaded(tmp_path: Path, server: PetServer) -> None:
    with tarfile.open(fileobj=io.BytesIO(server.files["images.tar.gz"])) as tar:
        tar.extractall(tmp_path, filter="data")
    pets_at(tmp_path, server).prepare()
    assert server.served == ["annotations.tar.gz"]


def test_two_at_once_download_once(tmp_path: Path, server: PetServer) -> None:
    with ThreadPoolExecutor(2) as pool:
        prints = list(pool.map(lambda _: pets_at(tmp_path, server).fingerprint, range(2)))
    assert prints[0] == prints[1]
    assert sorted(server.served) == ["annotations.tar.gz", "images.tar.gz"]


def test_an_archive_with_another_checksum_is_refused_and_nothing_is_left(tmp_path: Path, server: PetServer) -> None:
    server.files["annotations.tar.gz"] = archive({"annotations/trainval.txt": b"x"})
    with pytest.raises(DownloadError, match=r"annotations\.tar\.gz has MD5 .*RATCHET_OXFORD_PET"):
        pets_at(tmp_path, server).prepare()
    assert not (tmp_path / "annotations").exists()
    assert not list(tmp_path.glob(".download-*"))


def test_a_download_that_breaks_off_never_passes_as_a_data_set(tmp_path: Path, server: PetServer) -> None:
    whole = server.files["images.tar.gz"]
    server.files["images.tar.gz"] = whole[: len(whole) // 2]
    with pytest.raises(DownloadError, match="incomplete"):
        pets_at(tmp_path, server).prepare()
    assert not (tmp_path / "images").exists()
    server.files["images.tar.gz"] = whole
    pets_at(tmp_path, server).prepare()


def test_what_a_killed_download_left_is_removed(tmp_path: Path, server: PetServer) -> None:
    (tmp_path / ".download-killed" / "unpacked").mkdir(parents=True)
    pets_at(tmp_path, server).prepare()
    assert not list(tmp_path.glob(".download-*"))


def test_an_archive_that_writes_outside_is_refused(tmp_path: Path, server: PetServer) -> None:
    server.files["images.tar.gz"] = archive({"images/a.jpg": b"x", "../../outside.txt": b"x"})
    checksums = {**server.checksums, "images.tar.gz": hashlib.md5(server.files["images.tar.gz"]).hexdigest()}
    with pytest.raises(DownloadError, match="outside"):
        pets_at(tmp_path / "a" / "b", server, checksums=checksums).prepare()
    assert not list(tmp_path.rglob("outside.txt"))


def test_an_archive_of_something_else_is_refused(tmp_path: Path, server: PetServer) -> None:
    server.files["images.tar.gz"] = archive({"photos/a.jpg": b"x"})
    checksums = {**server.checksums, "images.tar.gz": hashlib.md5(server.files["images.tar.gz"]).hexdigest()}
    with pytest.raises(DownloadError, match="does not hold the folder 'images'"):
        pets_at(tmp_path, server, checksums=checksums).prepare()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/nobody-listens",
        "http://pets.invalid/data",  # a name that never resolves (RFC 2606)
        "file:///etc",
    ],
)
def test_without_a_network_the_error_says_how_to_use_a_copy(tmp_path: Path, server: PetServer, url: str) -> None:
    with pytest.raises(DownloadError, match=r"RATCHET_OXFORD_PET or datamodule\.data_path") as caught:
        pets_at(tmp_path, server, download_url=url).prepare()
    assert url in str(caught.value)


def test_an_address_without_archives_is_named(tmp_path: Path, server: PetServer) -> None:
    with pytest.raises(DownloadError, match=r"nothing/cats\.tar\.gz.*404"):
        pets_at(tmp_path, server, download_url=f"{server.url}/nothing", checksums={"cats.tar.gz": "0" * 32}).prepare()


def test_folders_of_something_else_are_not_taken_for_pets(tmp_path: Path, server: PetServer) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"trainval\.txt"):
        pets_at(tmp_path, server).prepare()
    assert server.served == []


def test_nothing_is_downloaded_into_a_folder_that_was_to_be_there(
    tmp_path: Path, server: PetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_OXFORD_PET", str(tmp_path / "mistyped"))
    with pytest.raises(DatasetNotFoundError, match=r"RATCHET_OXFORD_PET=.*mistyped is no folder"):
        pets_at(tmp_path / "mistyped", server).prepare()
    assert not (tmp_path / "mistyped").exists()
