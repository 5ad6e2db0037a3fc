"""The folders of interrupted trials on this machine: whether there are any, and which go when nobody takes them up."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ratchet.run_names import CHECKPOINT_TAG, CHECKPOINTS_PATH, RESUME_PATH
from ratchet.training.folder import TrialFolder, lock_folder, remove_folder

logger = logging.getLogger(__name__)

_FINGERPRINT = re.compile("[0-9a-f]{64}")  # other folders are somebody else's
KEPT_SECONDS = 14 * 24 * 3600.0
KEPT_BYTES = 20 * 10**9
YOUNG_SECONDS = 24 * 3600.0


def interrupted(home: Path) -> bool:
    """Whether a trial here has begun and not finished."""
    return any((home / "trials").glob("*/trial.json"))


def prune(
    home: Path,
    *,
    keep: set[str],
    paused: Collection[str] = (),
    seconds: float = KEPT_SECONDS,
    most: float = KEPT_BYTES,
) -> list[str]:
    """Remove the folders of trials that nobody works on: those not touched for `seconds`, and the oldest beyond `most` bytes.

    The fingerprints in `keep` stay. Whatever their size, so do those in `paused`, which a sweep that runs now may take up
    again though it holds no lock on them, and what is younger than a day. Returns a sentence for each that went.
    """
    told, total = [], 0
    root = home.absolute() / "trials"
    folders = [path for path in root.iterdir() if _FINGERPRINT.fullmatch(path.name)] if root.is_dir() else []
    measured = {path: _age_and_size(path) for path in folders}
    for path, (age, size) in sorted(measured.items(), key=lambda item: item[1]):
        fits = total + size <= most or path.name in paused
        if path.name in keep or age < min(YOUNG_SECONDS, seconds) or (age < seconds and fits):
            total += size
            continue
        try:
            held = lock_folder(path, wait=False)
            if held is None:
                continue
            with held:
                if age >= seconds:  # where only room was wanted, it can go on from there
                    _remove_uploads(home, path.name)
                remove_folder(path)
        except OSError as error:  # another user's, say: it ends no sweep
            logger.warning("the checkpoint of the interrupted trial %s stays: %s", path.name[:12], error)
            total += size
            continue
        told.append(
            f"removed the checkpoint of the interrupted trial {path.name[:12]}: {size / 1e6:.0f} MB, "
            f"not touched for {age / 86400:.1f} days"
        )
    return told


def _remove_uploads(home: Path, fingerprint: str) -> None:
    """Remove what the trial sent to the tracking server to be taken up elsewhere, unless another machine did so."""
    from ratchet.registry.mlflow_files import MlflowFiles  # noqa: PLC0415 - before the fork server has begun
    from ratchet.registry.tracking import client, tracking_uri  # noqa: PLC0415
    from ratchet.training.ownership import OWNER_TAG, machine  # noqa: PLC0415

    try:
        note = TrialFolder(home, fingerprint).note()
        if note is None:
            return
        store = client()
        run = store.get_run(note.run_id)
        own = run.data.tags.get(OWNER_TAG, "").startswith(f"{machine(home)}/")
        if run.info.status == "FINISHED" or not own:
            return
        if CHECKPOINT_TAG in run.data.tags:  # first: a tag that names what is gone would end whoever goes on from there
            store.delete_tag(note.run_id, CHECKPOINT_TAG)
        sent = [entry.path for entry in store.list_artifacts(note.run_id, CHECKPOINTS_PATH)]
        uploads = [path for path in sent if path.startswith(f"{RESUME_PATH}-")]
        MlflowFiles(store, tracking_uri()).lighten(note.run_id, uploads)
    except Exception:  # of a server or a store: it ends no sweep
        logger.warning("what the trial %s sent to the tracking server stays there", fingerprint[:12], exc_info=True)


def _age_and_size(path: Path) -> tuple[float, int]:
    """Seconds since a folder was touched, and its bytes. What a trial that is at work removes meanwhile is left out."""
    touched, sizes = [], dict[tuple[int, int], int]()  # a checkpoint that a snapshot keeps has two names
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with suppress(OSError):
                found = Path(folder, name).stat()
                touched.append(found.st_mtime)
                sizes[found.st_dev, found.st_ino] = found.st_size if name in files else 0
    if not touched:
        with suppress(OSError):
            touched.append(path.stat().st_mtime)
    return time.time() - max(touched, default=time.time()), sum(sizes.values())
