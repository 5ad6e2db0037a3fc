"""The gate flow: a person has a version judged; nothing is promoted."""

# No `from __future__ import annotations` here: as in flows/retrain.py.

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ratchet.form import PolicyChoice, chosen_policy
from ratchet.gate.policy import Policy
from tasks.judgement import judge_again
from tasks.runs import begin_run


@flow(name="gate", flow_run_name="{model}: gate v{version}")
def gate(
    model: str,
    version: int,
    policy: PolicyChoice = "as configured",
    own_policy: Policy = Policy(),  # noqa: B008 - it is frozen, and the form shows it
    against: int | None = None,
    data: str = "",
) -> State[Any]:
    """Judge a version of a model against the champion, now.

    Args:
        model: The registered model's name.
        version: Which version is judged.
        policy: The rules, by their name. As configured: those it was judged by first. Own: those filled in below.
        own_policy: Rules of your own, for this judgement. They count when *policy* is *own*.
        against: Judge against this version instead of the champion.
        data: Folder of the data set, on the worker's machine. Empty: where the version was trained on it.
    """
    begin_run()
    verdict = judge_again(model, version, chosen_policy(policy, own_policy), against, data)
    return Completed(name=verdict.outcome, message=verdict.sentence, data=verdict)
