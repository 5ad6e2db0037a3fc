"""A backtest: past records judged by another policy, against the champion of their time and against its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Context, Evidence, ModelRef, Policy, judge
from ratchet.gate.backtest import Row, backtest
from ratchet.gate.evidence import Cost, find_leaks
from ratchet.gate.record import Record
from ratchet.gate.tables import backtest_summary

TRUTH = np.random.default_rng(0).integers(500, 2_000, (100, 2))
QUALITY = {1: 0.60, 2: 0.65, 3: 0.62, 4: 0.70}
THEN = {"floor": 0.3, "resamples": 1_000}


def counts(version: int) -> ImageCounts:
    share = np.clip(np.random.default_rng(version).normal(QUALITY[version], 0.05, TRUTH.shape), 0, 1)
    tp = (TRUTH * share).astype(np.int64)
    return ImageCounts(tuple(map(str, range(100))), ("cat", "dog"), tp, tp * 0, TRUTH - tp)


def record(version: int, champion: int | None, gate_set: str = "g", evidence: Evidence | None = None) -> Record:
    refs = {n: ModelRef(version=n, digest=f"d{n}") for n in (version, champion) if n is not None}
    context = Context(model="m", challenger=refs[version], champion=refs.get(champion or 0), gate_set=gate_set)
    tables = {"challenger": counts(version)} | ({"champion": counts(champion)} if champion else {})
    verdict = judge(
        policy=Policy.model_validate(THEN),
        challenger=tables["challenger"],
        champion=tables.get("champion"),
        context=context,
        evidence=evidence,
    )
    return Record(verdict, tables, {})


HISTORY = [record(1, None), record(2, 1), record(3, 2), record(4, 2)]


def run(policy: dict[str, Any], history: list[Record] | None = None) -> tuple[Row, ...]:
    return backtest(Policy.model_validate(THEN | policy), history or HISTORY)


def outcomes(rows: tuple[Row, ...], which: str) -> list[str]:
    return [getattr(row, which).outcome for row in rows]


def own_champions(rows: tuple[Row, ...]) -> list[int | None]:
    return [row.own.champion.version if row.own.champion else None for row in rows]


def test_the_policy_of_then_decides_as_then() -> None:
    rows = run({})
    assert [row.then.outcome for row in rows] == ["promote", "promote", "reject", "promote"]
    assert outcomes(rows, "same") == outcomes(rows, "own") == [row.then.outcome for row in rows]
    assert own_champions(rows) == [None, 1, 2, 2]


def test_a_leak_that_was_found_decides_though_nobody_knows_what_the_champion_saw() -> None:
    images = {str(number): f"sha{number}" for number in range(100)}
    leak = find_leaks(gate_images=images, challenger_training={"sha7"}, champion_training=None)
    row = run({"leak": True}, [record(2, 1, evidence=Evidence(leak=leak))])[0]
    assert row.same.outcome == "reject"
    clean = find_leaks(gate_images=images, challenger_training=set(), champion_training=None)
    row = run({"leak": True}, [record(2, 1, evidence=Evidence(leak=clean))])[0]
    assert (row.same.outcome, row.same.why) == ("unknown", "not recorded then: what the models were trained on")


def test_a_stricter_policy_has_its_own_line_of_champions() -> None:
    rows = run({"superiority": {"min_gain": 0.07}})
    assert outcomes(rows, "same") == ["promote", "reject", "reject", "reject"]
    assert own_champions(rows) == [None, 1, 1, 1]
    assert outcomes(rows, "own")[3] == "promote"  # 0.70 is 0.05 above v2, but 0.10 above v1
    assert rows[3].own.verdict is not None
    assert rows[3].own.verdict.champion == ModelRef(version=1, digest="d1")


def test_a_champion_that_was_not_scored_on_these_images_leaves_the_answer_unknown() -> None:
    rows = run({"superiority": {"min_gain": 0.07}}, [*HISTORY[:3], record(4, 2, gate_set="newer")])
    assert rows[3].own.outcome == "unknown"
    assert rows[3].own.why == "v1 was not scored on these gate images"
    assert rows[3].same.outcome == "reject"
    told = "along its own champions 1 (of 1 the record cannot tell, and they count as not promoted)"
    assert backtest_summary("strict", rows).endswith(told)


def test_too_few_samples_of_the_latency_leave_the_answer_unknown() -> None:
    cost = Cost(latency_ms=(9.0,) * 20, memory_mb=100.0, size_mb=5.0)
    timed = record(2, 1, evidence=Evidence(challenger_cost=cost, champion_cost=cost))
    few, enough = ({"latency_ratio": 2, "min_samples": least} for least in (100, 20))
    assert run({"budget": few}, [timed])[0].same.outcome == "unknown"
    assert run({"budget": enough}, [timed])[0].same.outcome == "promote"


def test_what_was_not_recorded_leaves_the_answer_unknown_unless_something_else_decides() -> None:
    rows = run({"leak": True, "serves": {}, "budget": {"size_mb": 50}})
    assert outcomes(rows, "same") == ["unknown", "unknown", "reject", "unknown"]
    assert "what the models were trained on; a trial of the export; the models' cost" in rows[0].same.why
    assert "not above zero" in rows[2].same.why
    for asked, missing in (
        ({"metric": "boundary_iou"}, "boundary IoU"),
        ({"group_by": "part"}, "the metadata column 'part'"),
        ({"non_inferiority": {"columns": ["site"]}}, "the metadata column 'site'"),
        ({"anchor": {}}, "the scores of the anchor"),
    ):
        second = run(asked)[1].same
        assert (second.outcome, missing in second.why) == ("unknown", True), second


def test_the_anchor_of_its_own_line_is_the_best_of_its_champions() -> None:
    loose = {"superiority": None, "non_inferiority": {"margin": 0.2, "classes": False, "overall": True}}
    for margin, outcome in ((0.01, "reject"), (0.2, "promote")):
        row = run(loose | {"anchor": {"margin": margin}})[2]
        assert row.own.outcome == outcome
        assert row.own.verdict is not None
        assert row.own.verdict.context.anchor == ModelRef(version=2, digest="d2")


def test_no_judgements_give_no_rows() -> None:
    assert backtest(Policy.model_validate(THEN), []) == ()


def test_counts_from_before_contours_were_counted_leave_the_answer_unknown() -> None:
    def with_contours(version: int) -> ImageCounts:
        bare = counts(version)
        return replace(bare, boundary=np.stack([bare.tp, bare.fp, bare.fn]) // 9)

    old, new = record(2, 1), record(3, 1)
    new = Record(new.verdict, {"challenger": with_contours(3), "champion": with_contours(1)}, {})
    rows = run({"metric": "boundary_iou", "anchor": {}}, [old, new])
    assert [row.same.outcome for row in rows] == ["unknown", "unknown"]  # there is no anchor in the records
    assert rows[1].own.verdict is not None
    assert rows[1].own.verdict.context.anchor == ModelRef(version=1, digest="d1")
