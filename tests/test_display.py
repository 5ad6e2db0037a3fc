"""What a terminal shows of a sweep: names as they are, on a screen of any size, and lines where there is no screen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.terminal import open_console
from ratchet.training.display import live_table, print_sweep, show_sweep
from ratchet.training.progress import CACHING, Progress
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


def test_what_is_scored_has_no_training_left_and_a_low_screen_hides_no_more_than_it_does() -> None:
    progress = Progress(phase="scoring", epoch=8, max_epochs=20, seconds_left=7_080)
    trials = [TrialResult(name=f"t{n}", fingerprint=str(n), status="running", progress=progress) for n in range(3)]

    def shown(number: int, rows: int) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(live_table(trials[:number], metric="val_iou", rows=rows))
        return console.file.getvalue()

    assert "1h58m" not in shown(3, 5)
    assert "and 2 more" in shown(3, -2)
    assert "more" not in shown(1, 0)


@pytest.mark.parametrize(
    ("name", "phase", "seen"),
    [
        ("resnet18 lr=0.00123", "scoring", "resnet18 lr=0.00123"),
        ("unet resnet18 lr=0.00123 batch_size=16", "waiting for another process that trains it", "unet resnet18"),
    ],
)
def test_in_80_columns_a_trial_is_one_line_and_the_last_one_is_seen_at_work(name: str, phase: str, seen: str) -> None:
    figures = {"val_iou": 0.7012, "val_loss_epoch": 0.3}
    trials = [
        TrialResult(name=name, fingerprint=str(number), status="finished", seconds=754, metrics=figures)
        for number in range(10)
    ]
    at_work = Progress(
        phase="training",
        epoch=7,
        max_epochs=120,
        step=700,
        steps_per_epoch=100,
        metrics={"loss": 0.25, "val_iou": 0.6102},
        seconds_left=3_700,
    )
    for number, progress in ((10, Progress(phase=phase)), (11, at_work)):
        trials.append(TrialResult(name=name, fingerprint=str(number), status="running", seconds=754, progress=progress))
    screen = io.StringIO()
    console = Console(file=screen, width=80, height=24, force_terminal=True)
    console.print(live_table(trials, metric="val_iou", size=12, rows=16))
    lines = screen.getvalue().splitlines()
    assert len(lines) == 12 + 5  # a title, a head of three lines, an end
    for shown in (seen, "7/120", "0.2500", "0.6102", "12m34s", "1h02m"):
        assert shown in lines[-2]


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_what_is_piped_is_told_in_lines_also_where_colours_are_forced(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", kind)
    console = open_console(stderr=True)
    assert console.width == 200
    with show_sweep(console) as on_progress:
        on_progress([TrialResult(name="unet", fingerprint="a", status="finished", metrics={"val_iou": 0.5})])
    assert capsys.readouterr().err == "unet: finished, val_iou 0.5000\n"


def _states() -> list[TrialResult]:
    at_work = Progress(phase="training", epoch=4, validated=3, max_epochs=20, step=30, steps_per_epoch=10)
    at_work = at_work.model_copy(update={"metrics": {"val_iou": 0.6102, "val_loss_epoch": 0.3}, "seconds_left": 62})
    decoding = Progress(phase=CACHING, step=45, steps_per_epoch=300)
    figures = {"val_iou": 0.7}
    return [
        TrialResult(name="a", fingerprint="a", status="reused", metrics=figures),
        TrialResult(name="b", fingerprint="b", status="pruned", note="not among the best 1 in 2"),
        TrialResult(name="c", fingerprint="c", status="failed", error="killed: out of memory", progress=decoding),
        TrialResult(name="d", fingerprint="d", status="stopped", note="max_time 1s reached"),
        TrialResult(name="e", fingerprint="e", status="running", progress=at_work),
        TrialResult(name="f", fingerprint="f", progress=decoding),
        TrialResult(name="g", fingerprint="g"),
    ]


def test_the_live_table_has_a_line_for_every_state_and_a_bar_for_what_is_decoded() -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(live_table(_states(), metric="val_iou", rows=20))
    title, *lines = [line.strip() for line in screen.getvalue().splitlines()]
    assert title == "Sweep: 4 of 7 trials, 1 reused, 1 pruned, 1 failed"
    told = {line.split()[1]: line for line in lines if line[:1] == "│"}
    assert list(told) == list("abcdefg")
    for name, state in {"a": "reused", "b": "pruned", "c": "failed", "d": "stopped", "g": "waiting"}.items():
        assert state in told[name]
    assert {"4/20", "0.6102", "1m02s"} <= set(told["e"].split())
    assert "━" in told["e"]
    assert "caching 45/300" in told["f"]
    assert "━" in told["f"]


def test_in_lines_every_change_is_told_once_and_decoding_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*trials: TrialResult) -> list[str]:
        show(trials)
        return capsys.readouterr().out.splitlines()

    with show_sweep(open_console()) as show:
        assert told(*_states()) == [
            "a: reused, val_iou 0.7000",
            "b: pruned: not among the best 1 in 2",
            "c: failed: killed: out of memory",
            "d: stopped: max_time 1s reached",
            "e: epoch 3/20, val_iou 0.6102, 1m02s left",
            "f: caching images, 45 of 300",
        ]
        assert told(*_states()) == []
        later = TrialResult(name="f", fingerprint="f", progress=Progress(phase=CACHING, step=90, steps_per_epoch=300))
        assert told(later) == []
        monkeypatch.setattr("ratchet.training.display._SECONDS_BETWEEN", 0.0)
        assert told(later) == ["f: caching images, 90 of 300"]


def test_a_small_loss_keeps_its_digits(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"val_loss_epoch": 0.0000234567}
    trial = TrialResult(name="unet", fingerprint="a", status="finished", run_id="1", metrics=metrics)
    with show_sweep(open_console(), metric="val_loss_epoch") as on_progress:
        on_progress([trial])
    console = open_console()
    print_sweep(SweepOutcome(trials=(trial,), metric="val_loss_epoch", mode="min"), console, errors=console)
    console.print(live_table([trial], metric="val_loss_epoch", rows=5))
    told, *tables = capsys.readouterr().out.splitlines()
    assert told == "unet: finished, val_loss_epoch 2.346e-05"
    assert "".join(tables).count("2.346e-05") == 3  # once at the end; live as loss and metric
