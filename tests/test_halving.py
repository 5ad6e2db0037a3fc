"""Successive halving: the rungs, what is compared there, and who goes on."""

from __future__ import annotations

import math

import optuna
import pytest
from conftest import TINY
from optuna.trial import TrialState
from test_budget import SETTINGS

from ratchet.config import compose
from ratchet.errors import ConfigError
from ratchet.settings import SweepSettings
from ratchet.training.halving import exported_value, require_rungs, rungs
from ratchet.training.pruning import SynchronousHalving, pruner
from ratchet.training.study_storage import again


def settings(**changes: object) -> SweepSettings:
    return SweepSettings.model_validate(SETTINGS | {"halving": True} | changes)


def test_each_rung_is_eta_times_as_far_as_the_one_before_and_none_is_at_the_end() -> None:
    assert rungs(settings(), 20) == (1, 3, 9)
    assert rungs(settings(halving_eta=2, halving_min_epochs=2), 16) == (2, 4, 8)
    assert rungs(settings(halving_min_epochs=8), 8) == ()


@pytest.mark.parametrize(
    ("selection", "count", "compared"),
    [
        ([], 2, 0.6),  # by the smallest loss, as what is exported is chosen
        ([], 4, 0.6),  # the first of equals; an epoch without a finite loss is none
        ([], 5, 0.3),
        (["callbacks.model_checkpoint.monitor=val_iou", "callbacks.model_checkpoint.mode=max"], 2, 0.8),
        (
            ["trainer.max_epochs=9", "+callbacks.model_checkpoint.every_n_epochs=2"],
            5,
            0.6,
        ),  # the second or the fourth; the fifth is not kept
        (["trainer.max_epochs=9", "+callbacks.model_checkpoint.every_n_epochs=4"], 3, math.nan),
        (["export.checkpoint_selection=last"], 3, 0.7),
        ([], 0, math.nan),
    ],
)
def test_a_rung_compares_what_would_be_exported_there(selection: list[str], count: int, compared: float) -> None:
    logged = {"val_iou": [0.8, 0.6, 0.7, 0.5, 0.3], "val_loss_epoch": [0.5, 0.4, math.nan, 0.4, 0.1]}
    value = exported_value(compose([*TINY, *selection]), logged.__getitem__, count)
    assert value == pytest.approx(compared, nan_ok=True)


@pytest.mark.parametrize("every", ["5", "null"])
def test_a_rung_before_the_first_validation_is_refused_rather_than_prunes_all(every: str) -> None:
    halved = [*TINY, "trainer.max_epochs=10", "sweep.halving=true", "sweep.halving_min_epochs=2"]
    require_rungs(compose([*halved, "trainer.check_val_every_n_epoch=2"]))
    with pytest.raises(ConfigError, match="check_val_every_n_epoch"):
        require_rungs(compose([*halved, f"trainer.check_val_every_n_epoch={every}"]))
    kept = "+callbacks.model_checkpoint.every_n_epochs=3"
    with pytest.raises(ConfigError, match=r"set sweep\.halving_min_epochs to 3 or more"):
        require_rungs(compose([*halved, kept]))
    require_rungs(compose([*halved, kept, "sweep.halving_min_epochs=3"]))


def test_validations_within_an_epoch_are_refused() -> None:
    config = compose([*TINY, "trainer.max_epochs=8", "sweep.halving=true", "+trainer.val_check_interval=0.25"])
    with pytest.raises(ConfigError, match=r"leave trainer\.val_check_interval=0\.25 out"):
        require_rungs(config)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_one_in_eta_goes_on_whatever_the_order_in_which_they_came(direction: str) -> None:
    study = optuna.create_study(direction=direction, pruner=SynchronousHalving(3))  # type: ignore[arg-type]
    sign = 1 if direction == "maximize" else -1
    values = [0.3, 0.9, 0.1, math.nan, 0.8, 0.2, 0.7, 0.75, 0.4, 0.6, 0.5, 0.05]
    trials = [study.ask() for _ in values]
    for trial, value in zip(trials, values, strict=True):
        trial.report(sign * value, 1)
    going_on = [value for trial, value in zip(trials, values, strict=True) if not trial.should_prune()]
    assert sorted(going_on, reverse=True) == [0.9, 0.8, 0.75]  # 11 of 12 are finite


def test_the_last_one_always_goes_on() -> None:
    study = optuna.create_study(direction="maximize", pruner=SynchronousHalving(4))
    first, second = study.ask(), study.ask()
    first.report(0.1, 3)
    second.report(0.2, 3)
    assert (first.should_prune(), second.should_prune()) == (True, False)


def test_a_trial_that_was_begun_again_has_one_place_at_its_rung() -> None:
    study = optuna.create_study(direction="maximize", pruner=pruner(settings(), synchronous=False))
    first = study.ask()
    first.report(0.9, 1)
    assert not first.should_prune()
    study.tell(first, state=TrialState.FAIL)
    again(study, study.trials[0])
    study.ask()  # the same again, with its place
    last = False
    for value in (0.85, 0.7, 0.6, 0.5, 0.88):
        trial = study.ask()
        trial.report(value, 1)
        last = trial.should_prune()
    assert not last  # two of six go on
