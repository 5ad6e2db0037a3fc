"""The outcome of a retraining: how far it went, and the words for it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.approval import Answer
from ratchet.data.samples import unlisted_note
from ratchet.errors import ConfigError
from ratchet.gate import Verdict
from ratchet.planning import ARRIVED, STOOD_TAG, Plan, failed_tag, titled
from ratchet.registry import BestRun, MlflowModelManager, ModelVersion
from ratchet.training.results import SweepOutcome, TrialResult

Status = Literal["promoted", "staged", "waiting", "rejected", "inconclusive", "refused", "unchanged", "skipped"]


class Outcome(BaseModel):
    """How a retraining ended: what people and programs read. `there`: the version is where the status says."""

    model_config = ConfigDict(frozen=True)

    status: Status
    model: str
    version: int
    champion: int | None
    summary: str
    there: bool = True
    note: str = ""
    sweep: SweepOutcome | None = None
    best_run: str | None = None
    verdict: Verdict | None = None
    answer: Answer | None = None

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """The trials as they ended; none where it was skipped."""
        return () if self.sweep is None else self.sweep.trials

    @property
    def message(self) -> str:
        """The summary, and what else is to be known."""
        return "; ".join(filter(None, [self.summary, self.note]))

    @property
    def title(self) -> str:
        """The outcome as the flow run is called: `cvsd_model: 4 trials → v7 promoted`."""
        if self.status == "skipped":
            return f"{self.model}: unchanged since v{self.version}"
        stays = "stays" if self.there else "is the best again"
        ended = {"waiting": "waits for approval", "unchanged": stays}.get(self.status, self.status)
        return f"{titled(self.model, len(self.trials))} → v{self.version} {ended}"


def conclude(plan: Plan, best: BestRun, sweep: SweepOutcome, verdict: Verdict, answer: Answer | None = None) -> Outcome:
    """Sum up a retraining that judged a challenger."""
    champion = MlflowModelManager().champion(plan.settings.model)
    status: Status
    if not verdict.passed:
        status = "rejected" if verdict.outcome == "reject" else "inconclusive"
    elif answer is not None and not answer.approved:
        status = "refused"
    else:
        status = "promoted" if plan.settings.to == "production" else "staged"
    summary = verdict.sentence if answer is None else f"{answer.sentence}; {verdict.sentence}"
    there = status != "promoted" or (champion is not None and champion.version == verdict.challenger.version)
    if not there:
        now = f"v{champion.version} is" if champion else "nothing is"
        summary = f"{summary}; it was promoted, and {now} in its place since"
    return Outcome(
        status=status,
        model=plan.settings.model,
        version=verdict.challenger.version,
        champion=champion.version if champion else None,
        summary=summary,
        there=there,
        note=sweep.remark,
        sweep=sweep,
        best_run=best.run_id,
        verdict=verdict,
        answer=answer,
    )


def stand(plan: Plan, best: BestRun, sweep: SweepOutcome, version: ModelVersion) -> Outcome:
    """Sum up a retraining whose best trial is the version that is there already; the version remembers these inputs."""
    manager = MlflowModelManager()
    tags = {STOOD_TAG: plan.fingerprint}
    if failed(plan, sweep) == "yes" or failed_tag(plan) in version.tags:
        tags[failed_tag(plan)] = failed(plan, sweep)
    manager.register_model(best.model_location, plan.settings.model, tags=tags)
    champion = manager.champion(plan.settings.model)
    return Outcome(
        status="unchanged",
        model=plan.settings.model,
        version=version.version,
        champion=champion.version if champion else None,
        summary=f"the best trial is that of v{version.version}, which {_known(plan, version)}",
        there=version.stage in ARRIVED[plan.settings.to],
        note=sweep.remark,
        sweep=sweep,
        best_run=best.run_id,
    )


def skip(plan: Plan) -> Outcome:
    """Sum up a retraining that had nothing new to do."""
    champion = MlflowModelManager().champion(plan.settings.model)
    version = plan.unchanged_since
    if version is None:
        raise ConfigError("this retraining has something new to do: it cannot be skipped.")
    return Outcome(
        status="skipped",
        model=plan.settings.model,
        version=version,
        champion=champion.version if champion else None,
        summary=f"skipped: unchanged since v{version}",
        note=unlisted_note(plan.sweep.trials[0].unlisted),
    )


def failed(plan: Plan, sweep: SweepOutcome) -> str:
    """Whether a trial of the list failed; a search has other points."""
    return "yes" if plan.sweep.space is None and any(trial.status == "failed" for trial in sweep.trials) else "no"


def _known(plan: Plan, version: ModelVersion) -> str:
    if version.stage in ARRIVED[plan.settings.to]:
        return f"is in {version.stage.value.lower()} already"
    return "was judged on these inputs before, and is not in production now"
