"""The record of a judgement: Parquet artifacts, their digests, and the replay that notices any change."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ratchet.errors import NewerVerdictError, VerdictChangedError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import (
    Context,
    ModelRef,
    NonInferiority,
    Policy,
    Verdict,
    counts_digest,
    judge,
    read_counts,
    replay,
    write_counts,
    write_record,
)
from ratchet.gate.record import read_record
from ratchet.gate.verdict import STATISTIC

POLICY = Policy(
    floor=0.1, resamples=1_000, group_by="part", non_inferiority=NonInferiority(margin=0.2, columns=("site",))
)


def random_counts(seed: int, images: int = 60) -> ImageCounts:
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(100, 200, (images, 2))
    tp = random.integers(50, 100, (images, 2))
    return ImageCounts(
        tuple(f"{i}.png" for i in range(images)), ("cat", "dög"), tp, random.integers(0, 50, (images, 2)), truth - tp
    )


def record(folder: Path) -> Verdict:
    challenger, champion = random_counts(1), random_counts(2)
    metadata = {
        "part": {name: str(i // 2) for i, name in enumerate(challenger.names)},
        "site": {name: "ab"[i % 2] for i, name in enumerate(challenger.names)},
        "unread": {"0.png": "x"},
    }
    models = {"challenger": ModelRef(version=2, digest="b"), "champion": ModelRef(version=1, digest="a")}
    context = Context.model_validate({"model": "m", "gate_set": "g", **models})
    verdict = judge(policy=POLICY, challenger=challenger, champion=champion, context=context, metadata=metadata)
    write_record(folder, verdict, {"challenger": challenger, "champion": champion}, metadata=metadata)
    return verdict


def test_what_a_newer_ratchet_has_written_is_told_as_that_and_not_as_tampering(tmp_path: Path) -> None:
    told = json.loads(record(tmp_path).to_json())
    for newer in (told | {"later": 1}, told | {"outcome": "wait"}):
        with pytest.raises(NewerVerdictError, match=r"a newer Ratchet, of which (later|outcome) is not known here"):
            Verdict.from_json(json.dumps(newer))
    with pytest.raises(VerdictChangedError, match="This is no verdict: outcome"):
        Verdict.from_json(json.dumps({key: value for key, value in told.items() if key != "outcome"}))


def test_the_images_of_a_record_are_those_of_its_counts(tmp_path: Path) -> None:
    verdict, counts = record(tmp_path), {"challenger": random_counts(1), "champion": random_counts(2)}
    path, file = tmp_path / "verdict.json", tmp_path / "images.json"
    assert read_record(path).images is None  # an older Ratchet's
    images = {name: f"sha {name}" for name in counts["challenger"].names}
    metadata = read_record(path).metadata
    write_record(tmp_path, verdict, counts, metadata=metadata, images=images)
    assert read_record(path).images == images
    for text in (file.read_text()[:-20], json.dumps(images | {"more": "x"}), "[]"):
        file.write_text(text)
        with pytest.raises(VerdictChangedError, match=r"images\.json"):
            read_record(path)


def test_a_verdict_by_another_statistic_is_told_apart_from_one_that_was_changed(tmp_path: Path) -> None:
    verdict = record(tmp_path)
    for versions, told in (
        (verdict.context.versions | {STATISTIC: "1"}, "version 1 of the statistic, and this is version"),
        (verdict.context.versions | {STATISTIC: "4"}, "version 4 of the statistic, and this is version"),
        (verdict.context.versions, "does not follow from its artifacts: images_needed"),
    ):
        context = verdict.context.model_copy(update={"versions": versions})
        other = verdict.model_copy(update={"context": context, "images_needed": 12_345})
        (tmp_path / "verdict.json").write_text(other.to_json(), encoding="utf-8")
        with pytest.raises(VerdictChangedError, match=told):
            replay(tmp_path / "verdict.json")


def test_a_verdict_in_the_words_of_another_version_is_derived_again(tmp_path: Path) -> None:
    verdict = record(tmp_path)
    for version, derived in (("4", True), (verdict.context.versions[STATISTIC], False)):
        context = verdict.context.model_copy(update={"versions": verdict.context.versions | {STATISTIC: version}})
        checks = tuple(check.model_copy(update={"why": "as it was worded"}) for check in verdict.checks)
        other = verdict.model_copy(update={"context": context, "checks": checks})
        (tmp_path / "verdict.json").write_text(other.to_json(), encoding="utf-8")
        if derived:
            assert replay(tmp_path / "verdict.json").to_json() == other.to_json()
        else:
            with pytest.raises(VerdictChangedError, match="does not follow from its artifacts: checks"):
                replay(tmp_path / "verdict.json")


def test_counts_survive_the_file_with_all_that_is_optional(tmp_path: Path) -> None:
    plain = random_counts(1)
    images = len(plain.names)
    full = dataclasses.replace(
        plain,
        pixels=np.full(images, 1_000),
        correct=np.full(images, 900),
        nonfinite=np.zeros(images, dtype=np.int64),
        boundary=np.arange(3 * images * 2).reshape(3, images, 2),
    )
    for counts in (plain, full):
        write_counts(counts, tmp_path / "counts.parquet")
        again = read_counts(tmp_path / "counts.parquet")
        assert counts_digest(again) == counts_digest(counts)
        assert again.names == counts.names
        assert again.classes == counts.classes
    assert counts_digest(full) != counts_digest(plain)


def test_one_pixel_more_is_another_digest() -> None:
    counts = random_counts(1)
    tp = counts.tp.copy()
    tp[7, 1] += 1
    assert counts_digest(dataclasses.replace(counts, tp=tp)) != counts_digest(counts)


def test_a_replay_gives_the_same_verdict_to_the_last_bit(tmp_path: Path) -> None:
    verdict = record(tmp_path)
    again = replay(tmp_path / "verdict.json", digest=verdict.digest)
    assert again.to_json() == verdict.to_json()
    assert sorted(verdict.counts) == ["challenger", "champion", "metadata"]


@pytest.mark.parametrize("role", ["challenger", "champion"])
def test_a_changed_artifact_is_named(role: str, tmp_path: Path) -> None:
    record(tmp_path)
    write_counts(random_counts(3), tmp_path / f"{role}.parquet")
    with pytest.raises(VerdictChangedError, match=role):
        replay(tmp_path / "verdict.json")


@pytest.mark.parametrize("role", ["challenger", "metadata"])
def test_an_absent_artifact_is_named(role: str, tmp_path: Path) -> None:
    record(tmp_path)
    (tmp_path / f"{role}.parquet").unlink()
    with pytest.raises(VerdictChangedError, match=role):
        replay(tmp_path / "verdict.json")


def test_a_damaged_artifact_is_named(tmp_path: Path) -> None:
    record(tmp_path)
    (tmp_path / "challenger.parquet").write_bytes(b"PAR1 no longer PAR1")
    with pytest.raises(VerdictChangedError, match=r"challenger\.parquet"):
        replay(tmp_path / "verdict.json")


def test_a_file_of_other_columns_is_no_counts(tmp_path: Path) -> None:
    record(tmp_path)
    (tmp_path / "challenger.parquet").write_bytes((tmp_path / "metadata.parquet").read_bytes())
    with pytest.raises(VerdictChangedError, match="does not hold per-image counts"):
        replay(tmp_path / "verdict.json")


def test_an_outcome_changed_by_hand_does_not_follow_from_the_counts(tmp_path: Path) -> None:
    verdict = record(tmp_path)
    other = "promote" if verdict.outcome != "promote" else "reject"
    path = tmp_path / "verdict.json"
    path.write_text(path.read_text().replace(f'"outcome":"{verdict.outcome}"', f'"outcome":"{other}"'))
    with pytest.raises(VerdictChangedError, match="outcome"):
        replay(path)


def test_a_consistent_record_under_another_digest_than_the_registrys_is_refused(tmp_path: Path) -> None:
    record(tmp_path)
    with pytest.raises(VerdictChangedError, match=r"verdict\.json"):
        replay(tmp_path / "verdict.json", digest="0" * 64)


def test_a_text_that_an_earlier_ratchet_wrote_without_a_field_holds_by_the_digest_of_the_text(tmp_path: Path) -> None:
    verdict, path = record(tmp_path), tmp_path / "verdict.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))
    del earlier["format"]
    text = json.dumps(earlier, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert read_record(path, digest=digest).verdict.to_json() == verdict.to_json()
    again = replay(path, digest=digest)
    assert (again.to_json(), again.digest) == (verdict.to_json(), digest)  # by which the history knows it
    with pytest.raises(VerdictChangedError, match="its form is not"):
        read_record(path)
    with pytest.raises(VerdictChangedError, match=r"verdict\.json"):
        read_record(path, digest=verdict.digest)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"outcome": "promote"}'])
def test_a_text_that_is_no_verdict_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(text)
    with pytest.raises(VerdictChangedError, match="no verdict"):
        replay(path)


def test_counts_other_than_the_judged_ones_are_not_recorded(tmp_path: Path) -> None:
    verdict = record(tmp_path)
    with pytest.raises(VerdictChangedError, match="champion"):
        write_record(tmp_path, verdict, {"challenger": random_counts(1), "champion": random_counts(3)})
