"""What makes two trials the same, and which may be continued by the other."""

from __future__ import annotations

import pytest
from conftest import TINY

from ratchet.config import compose
from ratchet.training.fingerprint import fixed_length, schedule_fingerprint, trial_fingerprint


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        ("scheduler=constant", None),
        ("scheduler=plateau", None),
        ("scheduler=step", None),
        ("scheduler=one_cycle", "OneCycleLR"),
        ("scheduler=cosine", "CosineAnnealingLR"),
    ],
)
def test_more_epochs_of_a_trial_are_known_as_such_and_tied_schedules_say_why_not(
    scheduler: str, reason: str | None
) -> None:
    short, long = (compose([*TINY, scheduler, f"trainer.max_epochs={epochs}"]) for epochs in (3, 7))
    assert trial_fingerprint(short, "data") != trial_fingerprint(long, "data")
    assert schedule_fingerprint(short, "data") == schedule_fingerprint(long, "data")
    assert schedule_fingerprint(short, "data") != schedule_fingerprint(short, "other data")
    obstacle = fixed_length(long)
    assert (obstacle is None) if reason is None else (reason in str(obstacle))


def test_a_cosine_of_its_own_length_and_a_bound_in_steps_are_told_apart() -> None:
    assert fixed_length(compose([*TINY, "scheduler=cosine", "scheduler.T_max=50"])) is None
    assert "max_steps" in str(fixed_length(compose([*TINY, "+trainer.max_steps=5"])))
