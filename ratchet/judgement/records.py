"""The records of judgements: where they lie among a run's artifacts, how they come back, and how worn a gate set is."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import ModelFilesError, RegistryError, VerdictChangedError
from ratchet.gate import ModelRef
from ratchet.gate.record import VERDICT_FILE
from ratchet.registry import EventKind
from ratchet.registry.locations import local_path
from ratchet.registry.pages import artifact_page
from ratchet.registry.searches import ensure_experiment, find_run
from ratchet.registry.tracking import answering, client, tracking_uri
from ratchet.run_names import DATA_FINGERPRINT_TAG

if TYPE_CHECKING:
    from ratchet.gate import Verdict
    from ratchet.gate.record import Record
    from ratchet.registry import Event, LedgerModelManager, ModelVersion

REPORT_FILE = "report.html"
JUDGEMENTS = "ratchet-judgements"
"""The experiment that keeps the records of versions without a run of their own."""

_ORIGIN = {"data": DATA_FINGERPRINT_TAG, "code": "mlflow.source.git.commit"}


def model_ref(version: ModelVersion) -> ModelRef:
    """Name a version by the content of its files. Raises `ModelFilesError` where no hashes of them are recorded."""
    if version.digests is None:
        raise ModelFilesError(
            f"{version.model} v{version.version} was registered without the hashes of its files, so no verdict on it could "
            "be checked again. Register its model once more with `register_model`."
        )
    digest = hashlib.sha256(json.dumps(version.digests, sort_keys=True).encode()).hexdigest()
    return ModelRef(version=version.version, digest=digest)


def judgement_path(digest: str) -> str:
    """Where a verdict, its evidence and its report lie among the artifacts of the challenger's run."""
    return f"gate/{digest[:12]}"


def keep_record(folder: Path, verdict: Verdict, challenger: ModelVersion) -> str:
    """Upload a folder to the challenger's run, or to a new run where it has none; return the run's id."""
    own = None if challenger.run_id is None else find_run(challenger.run_id)
    run_id = str(own.info.run_id) if own is not None and own.info.lifecycle_stage == "active" else _new_run(verdict)
    with answering(tracking_uri()):
        client().log_artifacts(run_id, str(folder), judgement_path(verdict.digest))
    return run_id


def keep_file(path: Path, verdict: Verdict, run_id: str) -> None:
    """Put a file into a record that is kept, in the place of the one with its name."""
    with answering(tracking_uri()):
        client().log_artifact(run_id, str(path), judgement_path(verdict.digest))


def record_location(digest: str, run_id: str) -> str:
    """Where a person finds the record: a page of the tracking server, or a path where the store lies on this machine."""
    with answering(tracking_uri()):
        info = client().get_run(run_id).info
    page = artifact_page(str(info.experiment_id), run_id, judgement_path(digest))
    return page or f"{local_path(info.artifact_uri) or info.artifact_uri}/{judgement_path(digest)}"


def judgements(history: Iterable[Event]) -> list[Event]:
    """Of every version, the judgement that it was promoted on, or else its last against a champion; oldest first."""
    events = tuple(history)
    versions = {event.version for event in _with_record(events) if event.kind is EventKind.GATED}
    found = (_deciding(events, version) or _gated(events, version)[-1] for version in versions)
    return sorted(found, key=lambda event: event.number)


def _gated(history: Iterable[Event], version: int) -> list[Event]:
    return [e for e in judged_of(history, version) if e.kind is EventKind.GATED and e.counts]


def _deciding(history: Iterable[Event], version: int) -> Event | None:
    """The judgement that its last promotion names, or else the last before that, or at all; None where there is none."""
    events = tuple(history)
    promoted = [e for e in events if e.kind is EventKind.PROMOTED and e.version == version and e.counts]
    gated = [e for e in _gated(events, version) if not promoted or e.number < promoted[-1].number]
    on = [e for e in gated if promoted and e.verdict_digest == promoted[-1].verdict_digest]
    return next(reversed(on or gated), None)


def last_verdict(manager: LedgerModelManager, model: str, version: int, *, digest: str = "") -> Event:
    """The last judgement of a version, deleted or not, or its last comparison; or the last with the digest that begins so.

    Raises `RegistryError` where there is none.
    """
    found = [e for e in judged_of(manager.history(model), version) if str(e.verdict_digest).startswith(digest)]
    if not found:
        manager.version(model, version)
        which = f"the verdict {digest}" if digest else "a verdict"
        raise RegistryError(f"there is no record of {which} on {model} v{version}: ratchet gate {model} {version}")
    return (found if digest else _gated(found, version) or found)[-1]


def judged_of(history: Iterable[Event], version: int) -> list[Event]:
    """The judgements and comparisons of a version, oldest first."""
    return [event for event in _with_record(history) if event.version == version]


def _with_record(history: Iterable[Event]) -> list[Event]:
    return [event for event in history if event.verdict_digest and event.gate_set and event.run_id]


def fetch_record(event: Event, folder: Path) -> Path:
    """Download what a judgement left; return the path of its verdict.

    Raises `VerdictChangedError` if it is gone, `RegistryError` where it is there and cannot be had.
    """
    run_id, path = str(event.run_id), judgement_path(str(event.verdict_digest))
    folder.mkdir(parents=True, exist_ok=True)
    run = find_run(run_id)
    with answering(tracking_uri()):
        # Asked first: a download of what is not there fails like one from a server in trouble.
        if run is None or not client().list_artifacts(run_id, path):
            raise VerdictChangedError(f"the record of v{event.version}'s verdict, {path} of run {run_id}, is gone")
        return Path(client().download_artifacts(run_id, path, str(folder))) / VERDICT_FILE


def origin(version: ModelVersion) -> dict[str, str]:
    """What the version was trained from, as far as its run says: fingerprint of the `data`, commit of the `code`."""
    if version.run_id is None:
        return {}
    run = find_run(version.run_id)  # it may be gone: the version outlives it
    tags = {} if run is None else run.data.tags
    return {key: tags[tag] for key, tag in _ORIGIN.items() if tag in tags}


def kept_verdict(event: Event) -> Verdict | None:
    """The verdict of a judgement; None where its record is gone, or is not what it was.

    Raises `NewerVerdictError` for one that only a newer Ratchet can read.
    """
    from ratchet.gate import Verdict  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="verdict-") as folder:
        try:
            text = fetch_record(event, Path(folder)).read_text(encoding="utf-8")
            if hashlib.sha256(text.encode()).hexdigest() != event.verdict_digest:
                return None
            return Verdict.from_json(text)
        except (VerdictChangedError, OSError, UnicodeDecodeError):
            return None


def promoted_on(manager: LedgerModelManager, version: ModelVersion) -> Record | None:
    """The record of the judgement that a version was promoted on, or else judged by last before; None: there is none of it.

    Raises `NewerVerdictError`.
    """
    from ratchet.gate.record import read_record  # noqa: PLC0415

    decided = _deciding(manager.history(version.model), version.version)
    if decided is None:
        return None
    with tempfile.TemporaryDirectory(prefix="verdict-") as folder:
        try:
            record = read_record(fetch_record(decided, Path(folder)), digest=decided.verdict_digest)
        except VerdictChangedError:
            return None
    # A model that was deleted and made anew begins with version 1 again.
    same = version.digests is not None and record.verdict.challenger == model_ref(version)
    return record if same else None


def earlier_uses(history: Iterable[Event], gate_set: str, challenger: ModelVersion) -> int:
    """How many other challengers were judged on this gate set; one that was judged twice counts once."""
    return len({event.version for event in history if event.gate_set == gate_set} - {challenger.version})


def _new_run(verdict: Verdict) -> str:
    name = f"{verdict.model} v{verdict.challenger.version}"
    experiment = ensure_experiment(JUDGEMENTS)
    with answering(tracking_uri()):
        run = client().create_run(experiment, run_name=name, tags={"ratchet.judges": name})
        client().set_terminated(run.info.run_id)
    return str(run.info.run_id)
