"""What a terminal shows of trials whose names and errors hold what looks like markup."""

from __future__ import annotations

import pytest

from flows.terminal import open_console
from ratchet.training.display import print_sweep
from ratchet.training.results import SweepOutcome, TrialResult

ERROR = "[/pytorch/third_party/gloo/pair.cc:534] Connection closed :warning:"


def test_names_and_errors_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    trials = (
        TrialResult(name="types=[pt2]", fingerprint="a", status="finished", run_id="1", metrics={"val_iou": 0.5}),
        TrialResult(name="types=[pt2,onnx]", fingerprint="b", status="failed", error=ERROR),
    )
    outcome = SweepOutcome(trials=trials, metric="val_iou", mode="max", stopped=None)
    print_sweep(outcome, open_console(), errors=open_console(stderr=True))
    shown = capsys.readouterr()
    assert "types=[pt2] " in shown.out
    assert f"types=[pt2,onnx] failed: {ERROR}" in shown.err
