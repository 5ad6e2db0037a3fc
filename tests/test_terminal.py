"""What the commands answer, on whatever they write to, where an argument was forgotten or a sign cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from exported_models import BEST, Brightness, export
from registry_backends import Backend

from flows.cli import main
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Context, ModelRef, Policy, judge, write_record
from ratchet.registry.tracking import tracking_uri

RATCHET = str(Path(sys.executable).parent / "ratchet")
MODEL = "cats & dogs"


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    """The record of a first version that passes its floor."""
    right, wrong = np.full((30, 1), 80), np.full((30, 1), 10)
    counts = ImageCounts(tuple(f"{number}.png" for number in range(30)), ("cat",), right, wrong, wrong)
    context = Context(model=MODEL, challenger=ModelRef(version=1, digest="a"), gate_set="g")
    found = judge(policy=Policy(floor=0.1), challenger=counts, context=context)
    write_record(tmp_path / "gate", found, {"challenger": counts})
    return tmp_path / "gate" / "verdict.json"


def test_a_sign_that_the_encoding_lacks_is_spelt_out(verdict: Path, ratchet_home: Path) -> None:
    done = subprocess.run(
        [RATCHET, "gate", "replay", str(verdict)],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        encoding="latin-1",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"\N{CHECK MARK}" in done.stdout
    assert r"\N{GREATER-THAN OR EQUAL TO}" in done.stdout


def test_a_replay_of_a_file_says_where_its_digest_is_to_be_found(verdict: Path, ratchet_home: Path) -> None:
    done = CliRunner().invoke(main, ["gate", "replay", str(verdict)])
    assert f"compare: ratchet history '{MODEL}' --json)" in done.output, done.output


@pytest.mark.parametrize("given", ["discs", "/nowhere/verdict.json"])
def test_a_replay_without_its_version_asks_for_it(given: str, ratchet_home: Path) -> None:
    done = CliRunner().invoke(main, ["gate", "replay", given])
    assert done.exit_code == 2
    assert f"no file {given}: give VERSION" in done.output


@pytest.mark.slow
def test_of_a_loss_the_smallest_is_registered_unless_asked_and_the_largest_never(
    stored_home: Path, tmp_path: Path
) -> None:
    model, store = export(tmp_path / "deployment_model", Brightness(BEST)), Backend("sqlite", tracking_uri())
    best, _ = (store.run("losses", model, metrics={"val_loss_epoch": loss, "loss_epoch": loss}) for loss in (0.2, 0.9))
    asked = ["register", "losses", "--metric", "val_loss_epoch", "--model", "m"]
    wrong = CliRunner().invoke(main, [*asked, "--mode", "max"])
    assert (wrong.exit_code, "give --mode min" in wrong.output) == (1, True), wrong.output
    done = CliRunner().invoke(main, asked)
    assert f"v1 of m is the model of run {best}: val_loss_epoch=0.2\n" in done.output
    assert "another epoch's" not in done.output
    done = CliRunner().invoke(main, ["register", "losses", "--metric", "loss_epoch", "--model", "m"])
    assert "loss_epoch is the last value that was logged: the exported weights may be another epoch's" in done.output
