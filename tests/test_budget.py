"""Lengths of time, and when a sweep is to stop."""

from __future__ import annotations

import math

import pytest

from ratchet.duration import parse_duration, shown_duration
from ratchet.settings import SweepSettings
from ratchet.training.budget import SweepBudget

SETTINGS = {
    "parallel": None,
    "force": False,
    "checkpoint_minutes": 5,
    "overlap": True,
    "upload_minutes": None,
    "max_time": None,
    "max_trials": None,
    "target": None,
    "trial_max_time": None,
    "sampler": None,
    "halving": False,
    "halving_eta": 3,
    "halving_min_epochs": 1,
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("45s", 45), ("1.5m", 90), ("1d 2h", 93600), ("10", 10), (10, 10)],
)
def test_a_length_of_time_is_read_as_people_write_it(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "1h-5m", "soon"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 2h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0s"), (59.6, "1m"), (61, "1m01s"), (3599.9, "1h"), (5400, "1h30m"), (90000, "25h")]
)
def test_a_length_of_time_is_shown_in_two_units(seconds: float, shown: str) -> None:
    assert shown_duration(seconds) == shown


def budget(mode: str = "max", **settings: object) -> SweepBudget:
    return SweepBudget(SweepSettings.model_validate(SETTINGS | settings), metric="m", mode=mode)  # type: ignore[arg-type]


def test_a_target_is_reached_from_its_own_side_and_never_by_nan() -> None:
    assert budget(target=0.8).used_up([{"m": 0.79}, {"m": math.nan}, {}]) is None
    assert "reached with 0.8100" in str(budget(target=0.8).used_up([{"m": 0.7}, {"m": 0.81}]))
    assert budget("min", target=0.8).used_up([{"m": 0.81}]) is None
    assert "reached with 0.7000" in str(budget("min", target=0.8).used_up([{"m": 0.9}, {"m": 0.7}]))


def test_a_small_target_is_told_with_its_digits() -> None:
    assert "reached with 1.235e-05" in str(budget("min", target=2e-5).used_up([{"m": 1.2346e-5}]))


def test_time_runs_out_and_without_a_bound_it_does_not() -> None:
    assert budget(max_time=1e-9).used_up([]) == "max_time 0s reached"
    assert budget(max_time="2h").used_up([]) is None
    assert budget().used_up([]) is None
    before = SweepSettings.model_validate(SETTINGS | {"max_time": "2h"})
    assert SweepBudget(before, metric="m", mode="max", spent=7200).used_up([]) == "max_time 2h reached"
    waited = budget(max_time=1e-9)
    waited.wait(60.0)  # for another sweep's GPU
    assert waited.used_up([]) is None
