"""The table of a sweep's trials, where a page has room for all of them and where it has not."""

from __future__ import annotations

import html
import re

import pytest

from ratchet.settings import Mode
from ratchet.training.markdown import short_trial_table
from ratchet.training.results import SweepOutcome, TrialResult


def outcome(values: list[float], mode: Mode) -> SweepOutcome:
    trials = tuple(
        TrialResult(name=f"lr={n}", fingerprint=str(n), status="finished", run_id=f"{n:032}", metrics={"m": value})
        for n, value in enumerate(values)
    )
    failed = TrialResult(name="lr=9", fingerprint="x", status="failed", metrics={"m": 99.0}, error="out of memory")
    return SweepOutcome(trials=(failed, *trials), metric="m", mode=mode)


def table(found: SweepOutcome, room: int) -> str:
    return short_trial_table(found, best=None, link=lambda run_id: f"#/{run_id}", room=room, rest="comparison.html")


def test_a_table_that_fits_is_whole_and_in_the_order_of_the_trials() -> None:
    whole = table(outcome([0.1, 0.3], "max"), 5000)
    assert [line.split("|")[2].strip()[:5] for line in whole.split("\n")[2:]] == ["lr=9", "[lr=0", "[lr=1"]


def test_a_name_and_an_error_keep_their_signs() -> None:
    trial = TrialResult(name="_target_=a*b*c", fingerprint="1", status="failed", error=r"Adam.__init__() \| ~x~")
    row = table(SweepOutcome(trials=(trial,), metric="m", mode="max"), 5000).split("\n")[2]
    assert not re.search(r"(?<!\w)_|_(?!\w)|[*~]", row)
    assert r"_target_=a*b*c" in html.unescape(row)
    assert r"Adam.__init__() \\| ~x~" in html.unescape(row)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_too_many_the_best_are_kept_and_the_others_counted(mode: Mode) -> None:
    values = [float("nan"), *(n / 1000 for n in range(300))]
    short = table(outcome(values, mode), 2000)
    assert len(short) <= 2000
    first, second = (300, 299) if mode == "max" else (1, 2)
    rows = short.split("\n")[2:-2]
    assert [row.split("[")[1].split("]")[0] for row in rows[:2]] == [f"lr={first}", f"lr={second}"]
    assert 10 < len(rows) < 40
    assert short.endswith(f"The best {len(rows)} of 302; comparison.html has all.")


def test_a_small_value_keeps_its_digits() -> None:
    whole = table(outcome([0.0000234567, 1234567.0], "min"), 5000)
    assert "| 2.346e-05 |" in whole
    assert "| 1.235e+06 |" in whole
