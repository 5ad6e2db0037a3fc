"""The record of a judgement in one folder: the verdict and the counts that it came from; and its replay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ratchet.errors import VerdictChangedError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate.artifact import read_counts, read_metadata, write_counts, write_metadata
from ratchet.gate.contrasts import needed_metadata
from ratchet.gate.digests import Metadata, counts_digest, metadata_digest
from ratchet.gate.judge import judge
from ratchet.gate.verdict import Verdict

VERDICT_FILE = "verdict.json"
_METADATA = "metadata"


def write_record(
    folder: Path, verdict: Verdict, counts: Mapping[str, ImageCounts], *, metadata: Metadata | None = None
) -> None:
    """Write `verdict.json` and, for each artifact that the verdict names, `<role>.parquet`.

    `counts` are by role: challenger, champion, anchor. Raises VerdictChangedError for counts or metadata other than
    the ones that the verdict was made from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for role, digest in verdict.counts.items():
        path = folder / f"{role}.parquet"
        if role == _METADATA:
            kept = needed_metadata(verdict.policy, counts["challenger"].names, metadata or {})
            _require(metadata_digest(kept), digest, "The metadata")
            write_metadata(kept, path)
        else:
            _require(counts_digest(counts[role]) if role in counts else None, digest, f"The counts of the {role}")
            write_counts(counts[role], path)
    (folder / VERDICT_FILE).write_text(verdict.to_json(), encoding="utf-8")


def replay(path: Path, *, digest: str | None = None) -> Verdict:
    """Derive a verdict again from the counts beside `verdict.json`, bit for bit; no model is run.

    `digest` is the verdict's own, as the registry keeps it. Raises VerdictChangedError, naming the file, when the
    verdict or an artifact is not what it was, or when the same inputs now give another verdict.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VerdictChangedError(f"{path} cannot be read: {error}.") from error
    if digest is not None:
        _require(hashlib.sha256(text.encode()).hexdigest(), digest, str(path))
    verdict = Verdict.from_json(text)
    counts: dict[str, ImageCounts] = {}
    metadata: Metadata = {}
    for role, expected in verdict.counts.items():
        artifact = path.parent / f"{role}.parquet"
        if role == _METADATA:
            metadata = read_metadata(artifact)
            _require(metadata_digest(metadata), expected, str(artifact))
        else:
            counts[role] = read_counts(artifact)
            _require(counts_digest(counts[role]), expected, str(artifact))
    again = judge(
        policy=verdict.policy,
        challenger=counts["challenger"],
        champion=counts.get("champion"),
        anchor=counts.get("anchor"),
        context=verdict.context,
        metadata=metadata,
        evidence=verdict.evidence,
    )
    if again.to_json() != text:
        raise VerdictChangedError(f"{path} does not follow from its artifacts: {_first_difference(verdict, again)}.")
    return again


def _require(actual: str | None, expected: str, what: str) -> None:
    if actual != expected:
        raise VerdictChangedError(
            f"{what} is not what the verdict was made from: its content is {(actual or 'absent')[:12]}, "
            f"not {expected[:12]}."
        )


def _first_difference(written: Verdict, derived: Verdict) -> str:
    for field in type(written).model_fields:
        was, now = (json.dumps(value.model_dump(mode="json")[field], sort_keys=True) for value in (written, derived))
        if was != now:
            return f"{field} is written as {was[:200]}, but comes out as {now[:200]}"
    return "the text is not the canonical one"
