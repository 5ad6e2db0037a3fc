"""The record of a judgement in one folder: the verdict and the counts that it came from; and its replay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import VerdictChangedError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate.artifact import read_counts, read_metadata, write_counts, write_metadata
from ratchet.gate.contrasts import needed_metadata
from ratchet.gate.digests import Metadata, counts_digest, metadata_digest
from ratchet.gate.judge import judge
from ratchet.gate.policy import Policy
from ratchet.gate.verdict import STATISTIC, STATISTIC_VERSION, Verdict

VERDICT_FILE = "verdict.json"
_IMAGES_FILE = "images.json"
_METADATA = "metadata"


def write_record(
    folder: Path,
    verdict: Verdict,
    counts: Mapping[str, ImageCounts],
    *,
    metadata: Metadata | None = None,
    images: Mapping[str, str] | None = None,
) -> None:
    """Write `verdict.json` and, for each artifact that the verdict names, `<role>.parquet`.

    `counts` are by role: challenger, champion, anchor. `images`, the content of each image by its name, nothing is derived
    from: they tell the images again where files were renamed. Raises VerdictChangedError for counts or metadata other than
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
    if images is not None:
        (folder / _IMAGES_FILE).write_text(json.dumps(dict(images), indent=1) + "\n", encoding="utf-8")
    (folder / VERDICT_FILE).write_text(verdict.to_json(), encoding="utf-8")


@dataclass(frozen=True)
class Record:
    """A verdict with all that it was made from, every artifact checked against the digest that the verdict names.

    `images` is the content of each image by its name, under no digest; None: an older Ratchet's record.
    """

    verdict: Verdict
    counts: Mapping[str, ImageCounts]
    metadata: Metadata
    images: Mapping[str, str] | None = None


def read_record(path: Path, *, digest: str | None = None) -> Record:
    """Read `verdict.json` and the artifacts beside it.

    `digest` is that of the text, as the registry keeps it: a later Ratchet may write the same verdict with more fields. Without
    it, the text must be what this one writes. Raises VerdictChangedError, naming the file, when one of them is not what it
    was, and NewerVerdictError for one that only a newer Ratchet can read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VerdictChangedError(f"{path} cannot be read: {error}.") from error
    if digest is not None:
        _require(hashlib.sha256(text.encode()).hexdigest(), digest, str(path))
    verdict = Verdict.from_json(text)
    if digest is None and verdict.to_json() != text:
        raise VerdictChangedError(
            f"{path} is not the text that Ratchet wrote: its values are the same, its form is not."
        )
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
    if "challenger" not in counts:
        raise VerdictChangedError(f"{path} names no counts of the challenger: nothing can be derived from it.")
    return Record(verdict, counts, metadata, _read_images(path.with_name(_IMAGES_FILE), counts["challenger"].names))


def _read_images(path: Path, names: Collection[str]) -> dict[str, str] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerdictChangedError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict) or found.keys() != set(names):
        raise VerdictChangedError(f"{path} does not name the images of the counts.")
    return found


def replay(path: Path, *, digest: str | None = None) -> Verdict:
    """Derive a verdict again from the counts beside `verdict.json`, bit for bit; no model is run.

    Of one by another version of the statistic, the words of its checks may be others.
    Raises VerdictChangedError as `read_record` does, and when the same inputs now give another verdict.
    """
    record = read_record(path, digest=digest)
    again = judge_again(record, record.verdict.policy)
    if again.to_json() != record.verdict.to_json():
        used = record.verdict.context.versions.get(STATISTIC, "1")
        if used != str(STATISTIC_VERSION) and _figures(again) == _figures(record.verdict):
            return record.verdict  # only the words have changed since
        if used != str(STATISTIC_VERSION):
            raise VerdictChangedError(
                f"{path} was derived by version {used} of the statistic, and this is version {STATISTIC_VERSION}, which gives "
                "another verdict. Its artifacts are what they were: derive it by the Ratchet that it names, or judge again."
            )
        raise VerdictChangedError(
            f"{path} does not follow from its artifacts: {_first_difference(record.verdict, again)}."
        )
    return record.verdict


def judge_again(record: Record, policy: Policy) -> Verdict:
    """What this policy says of a record."""
    return judge(
        policy=policy,
        challenger=record.counts["challenger"],
        champion=record.counts.get("champion"),
        anchor=record.counts.get("anchor"),
        context=record.verdict.context,
        metadata=record.metadata,
        evidence=record.verdict.evidence,
    )


def _figures(verdict: Verdict) -> dict[str, Any]:
    values = verdict.model_dump(mode="json")
    return values | {"checks": [{**check, "why": ""} for check in values["checks"]]}


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
    raise AssertionError("the texts of equal fields differ")
