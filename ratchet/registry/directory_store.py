"""The history, the versions and the projection in plain files, for machines without any server.

Below the root: `models/<name>/` with `history/<number>.json`, `versions/<number>/`, `aliases/<alias>`, `notes/` and
`description.md`. Every file comes into being whole: written beside its place, then linked or renamed into it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ratchet.errors import ModelFilesError, RegistryError
from ratchet.registry.events import Event, decode, encode
from ratchet.registry.files import cannot_be_copied, digests_of, manifest_digest, require_model
from ratchet.registry.store import Found, Kept, Notes, Observed, Source, Store
from ratchet.registry.values import Stage
from ratchet.run_names import FINGERPRINT_TAG

_DELETED = "deleted"  # marks the directory of a deleted version, so that its number is not given again


class DirectoryStore(Store):
    """One registry in one directory. Needs a file system with hard links and atomic renames (any POSIX one)."""

    def __init__(self, root: Path) -> None:
        """`root` is made when something is first written."""
        self._root = root

    @property
    def place(self) -> str:
        """The directory."""
        return str(self._root.absolute())

    def _model(self, model: str) -> Path:
        return self._root / "models" / file_name(model)

    def log(self, model: str, since: int) -> list[Event]:
        """The files of `history/`, whose names are the numbers."""
        events = []
        for number, path in _numbered(self._model(model) / "history"):
            if number >= since:
                entry = _read_json(path)
                events.append(decode(entry["event"], number, datetime.fromisoformat(entry["time"])))
        return events

    def append(self, model: str, event: Event) -> None:
        """Link the entry to the first free number: linking fails where another was faster, and never overwrites."""
        folder = self._model(model) / "history"
        folder.mkdir(parents=True, exist_ok=True)
        entry = json.dumps({"time": datetime.now(UTC).isoformat(), "event": encode(event)})
        temporary = _written_beside(folder / "entry", entry)
        try:
            while True:
                last = max((number for number, _ in _numbered(folder)), default=0)
                try:
                    os.link(temporary, folder / f"{last + 1:08d}.json")
                    return
                except FileExistsError:
                    continue
        finally:
            temporary.unlink()

    def notes(self, model: str) -> Notes:
        """`projected`, and one file in `notes/` for each writer."""
        folder = self._model(model) / "notes"
        intents = {path.name: datetime.fromisoformat(text) for path in _files(folder) if (text := _text(path))}
        return Notes(int(_text(folder.parent / "projected") or 0), intents)

    def open_intent(self, model: str, token: str) -> None:
        """Write the file."""
        _put(self._model(model) / "notes" / token, datetime.now(UTC).isoformat())

    def close_intent(self, model: str, token: str) -> None:
        """Remove the file."""
        (self._model(model) / "notes" / token).unlink(missing_ok=True)

    def mark_projected(self, model: str, head: int) -> None:
        """Write the file."""
        _put(self._model(model) / "projected", str(head))

    def models(self) -> tuple[str, ...]:
        """The directories that hold versions."""
        folder = self._root / "models"
        found = folder.iterdir() if folder.is_dir() else ()
        return tuple(sorted(plain_name(path.name) for path in found if (path / "versions").is_dir()))

    def observe(self, model: str) -> Observed | None:
        """Read everything."""
        folder = self._model(model)
        if not (folder / "versions").is_dir():
            return None
        aliases = {path.name: int(text) for path in _files(folder / "aliases") if (text := _text(path))}
        versions = {
            number: _found(number, path)
            for number, path in _numbered(folder / "versions")
            if not (path / _DELETED).exists()
        }
        return Observed(
            description=_text(folder / "description.md"),
            aliases={alias: number for alias, number in aliases.items() if number in versions},
            versions=versions,
        )

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Replace the file in one step."""
        _put(self._model(model) / "aliases" / alias, str(version))

    def drop_alias(self, model: str, alias: str) -> None:
        """Remove the file."""
        (self._model(model) / "aliases" / alias).unlink(missing_ok=True)

    def set_stage(self, model: str, version: int, stage: Stage) -> None:
        """Replace the file."""
        _put(self._model(model) / "versions" / str(version) / "stage", stage.value)

    def set_description(self, model: str, text: str) -> None:
        """Replace the file."""
        _put(self._model(model) / "description.md", text)

    def resolve(self, location: str) -> Source:
        """A path, or `runs:/<id>/<path>` among the runs of this directory."""
        path, run_id, fingerprint = Path(location), None, None
        if location.startswith("runs:/"):
            run_id, _, inside = location.removeprefix("runs:/").partition("/")
            run = next(iter(self._root.glob(f"experiments/*/{file_name(run_id)}")), None)
            if run is None:
                raise ModelFilesError(f"no model at {location}: there is no run {run_id} below {self._root}")
            path, fingerprint = run / inside, _read_json(run / "run.json")["tags"].get(FINGERPRINT_TAG)
        directory = path.parent if path.is_file() else path
        if not directory.is_dir():
            raise ModelFilesError(f"no model at {location}: {directory} is not a directory")
        require_model({entry.name for entry in directory.iterdir()}, location)
        place = str(directory.resolve())
        digest = manifest_digest(digests_of(directory))
        return Source(place, f"{place} sha256:{digest}", run_id=run_id, fingerprint=fingerprint)

    def keep(self, model: str, source: Source) -> Kept:
        """Copy to `incoming/`, from where the version takes it, and hash the copy."""
        incoming = self._root / "incoming" / str(uuid.uuid4())
        shutil.copytree(source.location, incoming / "model")
        return Kept(str(incoming / "model"), digests_of(incoming / "model"), handle=str(incoming))

    def discard(self, location: str) -> None:
        """Remove files below the root."""
        path = Path(location).resolve()
        if path.is_relative_to(self._root.resolve()):
            shutil.rmtree(path, ignore_errors=True)

    def create_version(
        self, model: str, kept: Kept, source: Source, *, description: str, tags: Mapping[str, str]
    ) -> int:
        """Rename the whole version to the first free number: renaming fails where another was faster."""
        incoming, versions = Path(kept.handle), self._model(model) / "versions"
        facts = {"run_id": source.run_id, "created": datetime.now(UTC).isoformat()}
        _put(incoming / "version.json", json.dumps(facts))
        _put(incoming / "description.md", description)
        for key, value in tags.items():
            _put(incoming / "tags" / file_name(key), value)
        versions.mkdir(parents=True, exist_ok=True)
        while True:
            number = max((number for number, _ in _numbered(versions)), default=0) + 1
            try:
                incoming.rename(versions / str(number))
                return number
            except OSError:
                if not (versions / str(number)).exists():
                    raise

    def update_version(self, model: str, version: int, *, description: str | None, tags: Mapping[str, str]) -> None:
        """One file for each."""
        folder = self._model(model) / "versions" / str(version)
        if description is not None:
            _put(folder / "description.md", description)
        for key, value in tags.items():
            _put(folder / "tags" / file_name(key), value)

    def delete_version(self, model: str, version: int) -> None:
        """Mark the directory and take the aliases along; the number stays taken."""
        folder = self._model(model)
        if (folder / "versions" / str(version)).is_dir():
            _put(folder / "versions" / str(version) / _DELETED, datetime.now(UTC).isoformat())
        for path in _files(folder / "aliases"):
            if _text(path) == str(version):
                path.unlink(missing_ok=True)

    def is_shared(self, model: str, seen: Found) -> bool:
        """Never: each version is a directory of its own."""
        return False

    def lighten(self, run_id: str, paths: Sequence[str], *, going: tuple[str, int]) -> bool:
        """Remove below the run's directory, where no version has its files."""
        for run in self._root.glob(f"experiments/*/{file_name(run_id)}"):
            for path in paths:
                shutil.rmtree(run / path, ignore_errors=True)
        return True

    def beside(self, run_id: str, *, going: Collection[tuple[str, int]]) -> frozenset[str]:
        """No runs: sweeps are tracked on MLflow alone."""
        return frozenset()

    def fetch(self, location: str, into: Path) -> None:
        """Copy."""
        try:
            shutil.copytree(location, into)
        except OSError as error:
            raise cannot_be_copied(location, error) from error


def _found(number: int, folder: Path) -> Found:
    facts = _read_json(folder / "version.json")
    return Found(
        version=number,
        stage=Stage.parse(_text(folder / "stage") or "none"),
        run_id=facts["run_id"],
        location=str(folder / "model"),
        description=_text(folder / "description.md"),
        created=datetime.fromisoformat(facts["created"]),
        tags={plain_name(path.name): _text(path) for path in _files(folder / "tags")},
    )


def file_name(name: str) -> str:
    """The name as one that a file may have, without loss; a leading dot is kept for our temporary files."""
    text = quote(name, safe=" -")
    return "%2E" + text[1:] if text.startswith(".") else text


def plain_name(name: str) -> str:
    """What `file_name` was given."""
    return unquote(name)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The entries whose names are numbers, in order."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(path.stem), path) for path in found if path.stem.isdecimal())


def _files(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if not path.name.startswith("."))


def _text(path: Path) -> str:
    """The text of a file, or nothing if it is not there (any more)."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path} cannot be read: {error}") from error
    return found


def _written_beside(path: Path, text: str) -> Path:
    """A new file in the same directory, flushed to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return temporary


def _put(path: Path, text: str) -> None:
    _written_beside(path, text).replace(path)
