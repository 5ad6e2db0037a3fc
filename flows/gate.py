"""The gate flow: a person has a version judged; nothing is promoted."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.judgement import judge_again
from tasks.runs import begin_run


@flow(name="gate", flow_run_name="{model}: gate v{version}")
def gate(model: str, version: int, policy: str | None = None, against: int | None = None) -> State[Any]:
    """Judge a version of a model against the champion, now.

    Args:
        model: The registered model's name.
        version: Which version is judged.
        policy: A preset: default, strict or permissive. Empty: the policy that the version was trained under.
        against: Judge against this version instead of the champion.
    """
    begin_run()
    verdict = judge_again(model, version, policy, against)
    return Completed(name=verdict.outcome, message=verdict.sentence, data=verdict)
