"""Judging and monitoring as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from ratchet import MlflowModelManager
from ratchet.gate import Policy, Verdict
from ratchet.monitoring.values import MonitorSettings, Reading
from ratchet.registry import EventKind
from tasks.events import Degraded, announce, announce_history
from tasks.progress import gate_progress
from tasks.step import step


@step("gate v{version}")
def judge_again(model: str, version: int, policy: Policy | str | None, against: int | None, data: str) -> Verdict:
    """Score a version and the champion on the gate set, and judge."""
    from ratchet.judgement.anytime import judge_anytime  # noqa: PLC0415
    from ratchet.judgement.records import judged_of  # noqa: PLC0415

    with gate_progress(model) as on_image:
        verdict = judge_anytime(
            model,
            version,
            manager=MlflowModelManager(),
            policy=policy,
            against=against,
            data_path=Path(data) if data else None,
            on_image=on_image,
        )
    judged = judged_of(MlflowModelManager().history(model), version)
    if judged and judged[-1].kind is EventKind.GATED:  # a mere comparison decides nothing, and is noted
        announce_history(model, EventKind.GATED, version)
    return verdict


@step("read {model}")
def read_champion(model: str, settings: MonitorSettings, data: str) -> Reading | None:
    """Score the champion on the newest labelled images."""
    from ratchet.monitoring.reading import take_reading  # noqa: PLC0415 (torch)

    with gate_progress(model) as on_image:
        path = Path(data) if data else None
        return take_reading(model, settings, manager=MlflowModelManager(), data_path=path, on_image=on_image)


@step("log the reading")
def log_reading(reading: Reading) -> str:
    """Announce the reading if production got worse, and add it to the curve, which somebody may have deleted."""
    from ratchet.monitoring.curve import log_reading  # noqa: PLC0415

    if reading.state == "degraded":
        announce(Degraded.of(reading))
    return log_reading(reading)
