"""A person's word before production: the question and the answer, as events of the model's history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.errors import ConfigError
from ratchet.gate import Verdict
from ratchet.planning import FlowRun, Plan
from ratchet.registry import Event, EventKind, MlflowModelManager, ModelVersion, Stage
from ratchet.registry.questions import answer_to, question_of


class Answer(BaseModel):
    """What somebody said to a question; without a `name`, what the deadline said."""

    model_config = ConfigDict(frozen=True)

    decision: Literal["approve", "refuse"]
    name: str | None
    comment: str = ""

    @property
    def approved(self) -> bool:
        """Whether the challenger may go to production."""
        return self.decision == "approve"

    @property
    def sentence(self) -> str:
        """The answer in words."""
        by = "" if self.name is None else f" by {self.name}"
        return f"{'approved' if self.approved else 'refused'}{by}{f': {self.comment}' if self.comment else ''}"


def find_question(plan: Plan, version: int) -> Event | None:
    """Find the question that this flow run has asked already."""
    history = MlflowModelManager().history(plan.settings.model)
    return question_of(history, version, _flow_run(plan).id)


def ask(plan: Plan, verdict: Verdict, *, hours: float) -> Event:
    """Write the question down, once for a flow run; `until` of the event says how long it stands."""
    run = _flow_run(plan)
    return MlflowModelManager().record(
        plan.settings.model,
        EventKind.ASKED,
        version=verdict.challenger.version,
        reason=verdict.sentence,
        key=run.id,
        verdict_digest=verdict.digest,
        flow_run=run.id,
        until=(datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds"),
    )


def answered(plan: Plan, asked: Event) -> Answer | None:
    """Find the answer that was written down before, by a run that was taken up again after a crash."""
    found = answer_to(asked, MlflowModelManager().history(plan.settings.model))
    if found is None:
        return None
    return Answer(
        decision="approve" if found.kind is EventKind.APPROVED else "refuse", name=found.who, comment=found.reason
    )


def settle(plan: Plan, asked: Event, answer: Answer) -> Answer:
    """Write the answer down, once for a flow run, under the name that its author gave."""
    own = MlflowModelManager(who=answer.name)
    own.record(
        plan.settings.model,
        EventKind.APPROVED if answer.approved else EventKind.REFUSED,
        version=asked.version,
        reason=answer.comment,
        key=_flow_run(plan).id,
        verdict_digest=asked.verdict_digest,
        flow_run=asked.flow_run,
    )
    return answer


def turn_down(plan: Plan, version: int, reason: str) -> ModelVersion:
    """Archive a challenger that waited in staging in vain; where it is no longer there, nothing is done."""
    manager = MlflowModelManager()
    found = manager.version(plan.settings.model, version)
    if found.stage is not Stage.STAGING:
        return found
    return manager.transition_model(plan.settings.model, version, Stage.ARCHIVED, reason)


def _flow_run(plan: Plan) -> FlowRun:
    if plan.flow_run is None:
        raise ConfigError("nobody can be asked for approval outside of a flow run: leave approval out.")
    return plan.flow_run
