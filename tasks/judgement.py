"""Judging and monitoring as Prefect tasks."""

from __future__ import annotations

from prefect import task

from ratchet import MlflowModelManager
from ratchet.gate import Verdict
from ratchet.monitoring import MonitorSettings
from ratchet.registry import EventKind
from tasks.events import announce_history
from tasks.progress import gate_progress


@task(task_run_name="gate v{version}")
def judge_again(model: str, version: int, policy: str | None, against: int | None) -> Verdict:
    """Score a version and the champion on the gate set, and judge."""
    from ratchet.judgement.anytime import judge_anytime  # noqa: PLC0415

    with gate_progress() as on_image:
        verdict = judge_anytime(
            model, version, manager=MlflowModelManager(), policy=policy, against=against, on_image=on_image
        )
    announce_history(model, EventKind.GATED, version)
    return verdict
