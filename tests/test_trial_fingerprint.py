"""What makes two trials the same, and which may be continued by the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY

from ratchet.config import compose
from ratchet.errors import ConfigError
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


def test_what_the_users_own_code_does_is_part_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "my_losses.mine")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_losses").mkdir()
    (tmp_path / "my_losses" / "__init__.py").touch()
    helper = tmp_path / "my_losses" / "helper.py"
    (tmp_path / "my_losses" / "mine.py").write_text("from my_losses.helper import Mine")
    config = compose([*TINY, "+loss={_target_: my_losses.mine.Mine}"])

    def fingerprint(code: str) -> str:
        helper.write_text(code)
        return trial_fingerprint(config, "data")

    assert fingerprint("Mine = 1") == fingerprint("Mine = 1") != fingerprint("Mine = 2")
    assert trial_fingerprint(compose(TINY), "data") == trial_fingerprint(compose(TINY), "data")


@pytest.mark.parametrize(
    "override",
    [
        "backbone.model.encoder_weights={}",
        "+backbone.model.weights={}",
        "+backbone.model.pretrained_cfg_overlay={{file: {}}}",
        "+datamodule.weighing=[{}]",
    ],
)
def test_a_file_of_weights_is_known_by_its_content_wherever_it_is_named(tmp_path: Path, override: str) -> None:
    here, there = tmp_path / "a.pt", tmp_path / "b.pt"

    def fingerprint(path: Path, content: str) -> str:
        path.write_text(content)
        return trial_fingerprint(compose([*TINY, override.format(path)]), "data")

    assert (
        fingerprint(here, "some weights") == fingerprint(there, "some weights") != fingerprint(here, "others, longer")
    )


def test_a_name_is_no_file_though_one_is_called_so_and_what_is_written_to_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = "+callbacks.notes={_target_: pytorch_lightning.callbacks.Timer, duration: 00:00:10:00, file: notes.csv}"
    monkeypatch.chdir(tmp_path)
    config = compose([*TINY, noted])
    before = trial_fingerprint(config, "data")
    for name in ("unet", "notes.csv"):
        (tmp_path / name).write_text("something")
    assert trial_fingerprint(config, "data") == before


def test_code_that_cannot_be_imported_is_told_when_its_trials_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "nowhere_to_be_found")
    with pytest.raises(ConfigError, match=r"no package nowhere_to_be_found to import.*PYTHONPATH"):
        trial_fingerprint(compose([*TINY, "+loss={_target_: nowhere_to_be_found.X}"]), "data")


@pytest.mark.parametrize("override", ["trainer.devices=[1]", "trainer.log_every_n_steps=1"])
def test_neither_which_gpu_it_is_nor_that_every_step_is_logged_makes_another_trial(override: str) -> None:
    asked = compose([*TINY, override])
    assert trial_fingerprint(asked, "data") == trial_fingerprint(compose(TINY), "data")
    assert trial_fingerprint(asked, "data") != trial_fingerprint(compose([*TINY, "core.seed=7"]), "data")


def test_a_cosine_of_its_own_length_and_a_bound_in_steps_are_told_apart() -> None:
    assert fixed_length(compose([*TINY, "scheduler=cosine", "scheduler.T_max=50"])) is None
    assert "max_steps" in str(fixed_length(compose([*TINY, "+trainer.max_steps=5"])))
