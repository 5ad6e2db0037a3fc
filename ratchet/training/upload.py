"""Which checkpoints a run's artifacts hold: the exported one, what to go on from, and snapshots while it is trained."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from ratchet.registry.tracking import tracking_uri
from ratchet.run_names import CHECKPOINT_TAG, CHECKPOINTS_PATH, RESUME_PATH
from ratchet.settings import TrialConfig
from ratchet.training.fingerprint import fixed_length
from ratchet.training.folder import FACTS_FILE, RESUME_FILE, Snapshot, link
from ratchet.training.run import TrialRun

_TIMES_ITS_COST = 20  # at most 5 % of the time is spent on uploads


class Uploads:
    """Sends a snapshot every so many minutes to a tracking server, so that a machine without this disk can go on."""

    def __init__(self, run: TrialRun, *, minutes: float | None) -> None:
        """None: never. Nor where the tracking store is a file of this machine."""
        self._run = run
        self._seconds = None if minutes is None or tracking_uri().startswith(("sqlite:", "file:")) else 60 * minutes
        self._last = time.monotonic()

    def __call__(self, snapshot: Snapshot) -> None:
        """Send it, if it is time; the tag that names it is written when it is there."""
        if self._seconds is None or snapshot.facts.trained or time.monotonic() - self._last < self._seconds:
            return
        self._run.confirm_owner()
        started, path = time.monotonic(), f"{RESUME_PATH}-{snapshot.facts.step}"
        self._run.log_artifacts(snapshot.path, path)
        self._run.tag({CHECKPOINT_TAG: json.dumps({"step": snapshot.facts.step, "path": path})})
        _delete_uploads(self._run, but=path)
        self._last = time.monotonic()
        self._seconds = max(self._seconds, _TIMES_ITS_COST * (self._last - started))


def withdraw(run: TrialRun) -> None:
    """Delete the snapshots that were uploaded."""
    if CHECKPOINT_TAG in run.tags:  # first: a tag that names what is gone would end whoever goes on from there
        run.delete_tag(CHECKPOINT_TAG)
    _delete_uploads(run)


def _delete_uploads(run: TrialRun, *, but: str | None = None) -> None:
    """Also those that a process which was killed meanwhile had not named yet, or not deleted."""
    for path in run.names(CHECKPOINTS_PATH):
        if path.startswith(f"{RESUME_PATH}-") and path != but:
            run.delete_artifacts(path)


def keep_checkpoints(config: TrialConfig, snapshot: Snapshot, exported: Path, into: Path) -> None:
    """Write the exported weights, and the last snapshot where a longer training could go on from it."""
    selection = config.export.checkpoint_selection
    into.mkdir(parents=True)
    if exported == snapshot.resume:
        weights = torch.load(exported, map_location="cpu", weights_only=True)["state_dict"]
        torch.save({"state_dict": weights}, into / f"{selection}.ckpt")
    else:
        link(str(exported), str(into / f"{selection}.ckpt"))
    if fixed_length(config) is not None:
        return
    for file in [snapshot.path / FACTS_FILE, snapshot.path / RESUME_FILE, *snapshot.checkpoints.rglob("*.ckpt")]:
        if file != exported or file == snapshot.resume:  # the other exported one is there already
            target = into / "resume" / file.relative_to(snapshot.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            link(str(file), str(target))
