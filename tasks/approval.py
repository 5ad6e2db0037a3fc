"""The question to a person: the flow run is suspended, and goes on when somebody answers on its page, or too late."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, State, StateType
from prefect.events import emit_event
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.run_input import keyset_from_base_key
from prefect.runtime import deployment, flow_run
from prefect.states import Scheduled
from pydantic import Field

from ratchet import MlflowModelManager, approval
from ratchet.approval import Answer
from ratchet.errors import ConfigError, RegistryError
from ratchet.gate import Verdict
from ratchet.outcome import Outcome
from ratchet.planning import Plan
from ratchet.registry import BestRun, Event, EventKind, ModelVersion
from ratchet.registry.pages import version_page
from ratchet.registry.questions import deadline
from tasks.kept import Chosen, keep_plan, kept_plan
from tasks.run_page import describe_run, own_report, write_page
from tasks.runs import QUESTION, is_pause, own_states, read_all_runs
from tasks.step import step, warned_of

_RESUMED, EXPIRED = "Resuming", "Deadline"  # states; the first is Prefect's
_SECONDS_TO_BE_KNOWN = 10.0  # a server reads its automations every five seconds, and an event before that is not seen


class Approval(RunInput):
    """What a person is asked on the page of a flow run. Prefect does not know who that is, so it asks."""

    decision: Literal["approve", "refuse"] = Field(
        description="approve puts the model into production; refuse archives it."
    )
    name: str = Field(min_length=1, max_length=100, description="Your name. It goes into the model's history.")
    comment: str = Field("", max_length=2000, description="Why. It goes into the model's history too.")


def require_deployment() -> None:
    """Raise `ConfigError` where a flow run could not be suspended, before anything is trained for nothing."""
    if deployment.id is None:
        raise ConfigError(
            "approval needs a deployment: without one nothing would take the run up again when somebody answers. Start it "
            "from a deployment (ratchet deploy, or `retrain.serve()`), or leave approval out."
        )
    if kept_plan() is not None:
        return  # it has asked already
    with get_client(sync_client=True) as client:
        limits = client.read_deployment(UUID(deployment.id)).concurrency_options
    if limits is not None and limits.collision_strategy is ConcurrencyLimitStrategy.CANCEL_NEW:
        raise ConfigError(
            f"approval: the deployment {deployment.name} cancels a run that goes on while another one of the model runs, and so "
            "the answer with it. Set collision: queue in the model file and deploy it, or leave approval out."
        )


def ask_for_approval(plan: Plan, best: BestRun, verdict: Verdict, outcome: Outcome, hours: float) -> Answer:
    """Show what would be promoted, ask, and suspend the flow run: what comes after runs in another process, when it is answered.

    Called again in the same flow run, it asks no second time. After `hours` without an answer the answer is no.
    """
    asked = ask(plan, best, verdict, outcome, hours)
    return approval.answered(plan, asked) or settle(plan, asked, _answer(asked, outcome.model))


def earlier_answer(plan: Plan, version: int) -> Answer | None:
    """What this flow run was answered before it was interrupted, if it has asked."""
    asked = approval.find_question(plan, version)
    return None if asked is None else approval.answered(plan, asked)


@step("ask for approval")
def ask(plan: Plan, best: BestRun, verdict: Verdict, outcome: Outcome, hours: float) -> Event:
    """Show the report, see to it that the question's time ends, and write the question into the history."""
    known = approval.find_question(plan, outcome.version)
    if known is not None:
        return known
    waiting = outcome.model_copy(update={"status": "waiting"})
    assert outcome.sweep is not None
    keep_plan(plan, Chosen(sweep=outcome.sweep, best=best))
    with warned_of("the question has no report"):
        write_page(waiting)
    describe_run(waiting.title)
    _set_alarm(hours)
    return approval.ask(plan, verdict, hours=hours)


@step("write the answer down")
def settle(plan: Plan, asked: Event, answer: Answer) -> Answer:
    """Write the answer into the history."""
    return approval.settle(plan, asked, answer)


@step("turn v{version} down")
def turn_down(plan: Plan, version: int, reason: str) -> ModelVersion:
    """Take a challenger out of staging that will not go further."""
    return approval.turn_down(plan, version, reason)


def end_questions() -> list[str]:
    """Take up the runs whose question's time has ended, and that no alarm has taken up. Returns their names.

    The alarm of a question counts once: it does not come where its server was down then, nor for a run that was cancelled,
    and then retried.
    """
    ended, paused = [], FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    with get_client(sync_client=True) as client:
        for run in read_all_runs(client, paused):
            if run.state is None or is_pause(run.state):
                continue  # by a person, which stays until that person resumes it
            model = next((tag.removeprefix("model:") for tag in run.tags if tag.startswith("model:")), None)
            try:
                history = MlflowModelManager().history(model) if model else ()
            except RegistryError:  # the question of another registry, or of a model that was deleted
                continue
            asked = next((e for e in history if e.kind is EventKind.ASKED and e.flow_run == str(run.id)), None)
            if asked is not None and deadline(asked) <= datetime.now(UTC):
                client.set_flow_run_state(run.id, Scheduled(name=EXPIRED, message="Nobody answered in time."))
                ended.append(run.name)
    return ended


def _answer(asked: Event, model: str) -> Answer:
    states = own_states()
    # By their key: somebody may have paused the run on its page too, and resumed it.
    own, ours = f"{QUESTION}v{asked.version}-", questions_about(asked.version, states)
    after = states[ours[-1] + 1] if ours else None
    resumed = after.timestamp if after is not None and after.name == _RESUMED else None
    if (after is not None and after.name == EXPIRED) or (resumed or datetime.now(UTC)) >= deadline(asked):
        return Answer(decision="refuse", name=None, comment=f"nobody answered until {_told(deadline(asked))}")
    if resumed is None:
        # Prefect suspends once for a key; a run that was taken up without an answer, after a crash, needs another.
        question = Approval.with_initial_data(description=_question(asked, model))
        suspend_flow_run(wait_for_input=question, key=f"{own}{len(ours) + 1}")
    with get_client(sync_client=True) as client:
        key = keyset_from_base_key(f"suspended-{own}{len(ours)}")["response"]
        return Answer.model_validate_json(client.read_flow_run_input(UUID(flow_run.id), key))


def questions_about(version: int, states: Sequence[State]) -> list[int]:
    """The places of the suspensions that asked about a version: an answer about another one is none."""
    own = f"{QUESTION}v{version}-"
    return [number for number, state in enumerate(states) if str(state.state_details.pause_key).startswith(own)]


def _question(asked: Event, model: str) -> str:
    pages = {"the report": own_report(model), "MLflow": version_page(model, asked.version)}
    links = ", ".join(f"[{name}]({page})" for name, page in pages.items() if page is not None)
    parts = [
        f"**May v{asked.version} of {model} go to production?** {asked.reason}.",
        "Its report could not be written." if pages["the report"] is None else "",
        f"See {links}." if links else "",
        f"Without an answer until {_told(deadline(asked))} it is refused.",
    ]
    return " ".join(filter(None, parts))


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _set_alarm(hours: float) -> None:
    """Tell Prefect when to take this run up again; the automation that does it is kept for all runs that ask as long.

    An event of our own says how long, since Prefect's event of the suspension knows the run's tags from minutes before.
    """
    name = f"ratchet: approvals end after {hours:g} hours"
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(name):
            client.create_automation(
                AutomationCore(
                    name=name,
                    description="A question that nobody answered: the run goes on, and ends as refused.",
                    tags=["ratchet-approvals"],
                    trigger=_silence(hours),
                    actions=[
                        ChangeFlowRunState(
                            state=StateType.SCHEDULED, name=EXPIRED, message="Nobody answered in time.", force=False
                        )
                    ],
                )
            )
            time.sleep(_SECONDS_TO_BE_KNOWN)
    emit_event(_asked(hours), resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"})


def _asked(hours: float) -> str:
    return f"ratchet.approval.asked.{hours:g}h"


def _silence(hours: float) -> EventTrigger:
    ends = (
        _RESUMED,
        "Cancelling",
        "Cancelled",
        "Failed",
        "Completed",
    )  # a crashed run is taken up, and asks no second time
    return EventTrigger(
        posture=Posture.Proactive,
        after={_asked(hours)},
        expect={f"prefect.flow-run.{name}" for name in ends},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        threshold=1,
        within=max(timedelta(hours=hours), timedelta(seconds=10)),  # Prefect takes no less
    )
