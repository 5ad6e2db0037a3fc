"""The steps of one retraining, each safe to take again: plan, train, select, register, judge, move."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ratchet.config import data_module
from ratchet.data.samples import metadata_columns
from ratchet.errors import GateError, ModelNotFoundError
from ratchet.gate import Policy, Verdict
from ratchet.gate.contrasts import needed_metadata
from ratchet.gate.digests import metadata_digest
from ratchet.judgement.records import kept_verdict, model_ref, promoted_on
from ratchet.outcome import failed
from ratchet.planning import (
    ARRIVED,
    FLOW_RUN_TAG,
    NOTE,
    RETRAINING_TAG,
    FlowRun,
    Plan,
    failed_tag,
    gave,
    is_over,
    turned_down,
)
from ratchet.registry import BestRun, EventKind, MlflowModelManager, ModelVersion, Stage
from ratchet.registry.questions import answer_to, question_of
from ratchet.registry.tracking import client
from ratchet.run_names import FINGERPRINT_TAG, PARENT_TAG, SELECTED_TAG
from ratchet.training.results import OnProgress, SweepOutcome

if TYPE_CHECKING:
    from ratchet.data.datamodule import SegmentationDataModule
    from ratchet.judgement.judging import OnImage
    from ratchet.training.plan import SweepPlan
    from ratchet.training.preview import Preview

_JUDGEMENTS = 3  # where production changes each time that one is made, the last one stands, and promotes nothing


def train(
    plan: Plan, *, on_plan: Callable[[Preview], None] = lambda _: None, on_progress: OnProgress = lambda _: None
) -> SweepOutcome:
    """Run the trials; what has been trained already is reused. Raises `SweepFailedError`.

    What is to be trained anew is so once in a flow run, however often that is interrupted.
    """
    from ratchet.training.sweep import run  # noqa: PLC0415 - imports what trains

    sweep = plan.sweep
    if sweep.settings.force and plan.flow_run is not None:
        sweep = sweep.model_copy(update={"begun_by": plan.flow_run.id})
        sweep = _unforced_where_done(sweep, plan.flow_run) if sweep.space is None else sweep
    tags = plan.marks if plan.note is None else plan.marks | {"mlflow.note.content": plan.note}
    return run(sweep, tags=tags, on_plan=on_plan, on_progress=on_progress)


def _unforced_where_done(sweep: SweepPlan, flow_run: FlowRun) -> SweepPlan:
    from ratchet.training.reuse import TrainedBefore  # noqa: PLC0415 - opens MLflow

    before, own = (
        TrainedBefore(),
        f" and attributes.status = 'FINISHED' and tags.`{FLOW_RUN_TAG}` LIKE '%{flow_run.id}'",
    )
    done = {t.fingerprint for t in sweep.trials if before.runs(t.fingerprint, condition=own)}
    trials = [t.unforced() if t.fingerprint in done else t for t in sweep.trials]
    return sweep.model_copy(update={"trials": tuple(trials)})


def select(plan: Plan, sweep: SweepOutcome) -> BestRun:
    """Choose the best trial of this sweep by the metric of its exported weights. Raises `RegistryError`.

    Of a search that several machines share it may be elsewhere; where all was to be trained anew, it is one that was.
    """
    settings = plan.settings
    anew = {trial.run_id for trial in sweep.trials if trial.run_id} if plan.sweep.settings.force else None
    return MlflowModelManager().best_run(
        plan.config.core.name, settings.metric, settings.mode, tags={plan.sweep.tag: "true"}, among=anew
    )


def standing(plan: Plan, best: BestRun) -> ModelVersion | None:
    """The version of the best trial where it is as far already as it may go, and was brought there by another retraining.

    So is one that these very inputs gave before, and that was rejected, rolled back or replaced: a trial of them had failed; and
    one that a person has turned down, whatever inputs gave it.
    """
    manager, model = MlflowModelManager(), plan.settings.model
    try:
        versions = [version for version in manager.versions(model) if version.run_id == best.run_id]
    except ModelNotFoundError:
        return None
    found = next((version for version in versions if version.stage in ARRIVED[plan.settings.to]), None)
    if found is None:
        before = [v for v in versions if turned_down(manager, v) or (gave(plan, v) and is_over(manager, plan, v))]
        others = [version for version in before if not plan.made(version)]
        return others[-1] if others else None
    if plan.flow_run is None:
        return found
    own = (EventKind.STAGED, EventKind.ASKED, EventKind.PROMOTED)
    mine = [event for event in manager.history(model) if event.kind in own and event.flow_run == plan.flow_run.id]
    # This flow run moved it itself, or has asked about it, before it was interrupted.
    return None if any(event.version == found.version for event in mine) else found


def register(plan: Plan, best: BestRun, sweep: SweepOutcome) -> ModelVersion:
    """Register the best trial's model as the challenger; the same run again gives the same version.

    Where a trial failed, its tags say so: the next retraining on these inputs tries that trial again.
    """
    # Of the run, not of the trials: a search that several machines share may have its best trial elsewhere.
    run = client().get_run(best.run_id)
    fingerprint, parent = run.data.tags[FINGERPRINT_TAG], run.data.params.get("backbone.init_from", "None")
    manager = MlflowModelManager()
    return manager.register_model(
        best.model_location,
        plan.settings.model,
        None if _is_described(manager, plan.settings.model, best.run_id) else plan.note,
        tags={
            RETRAINING_TAG: plan.fingerprint,
            failed_tag(plan): failed(plan, sweep),
            FINGERPRINT_TAG: fingerprint,
            SELECTED_TAG: best.selected_by,
            **({PARENT_TAG: parent} if parent != "None" else {}),
            **plan.marks,
        },
    )


def _is_described(manager: MlflowModelManager, model: str, run_id: str) -> bool:
    """Whether a person has written on the version of this run, which is registered already, what it is like."""
    try:
        written = [version.description for version in manager.versions(model) if version.run_id == run_id]
    except ModelNotFoundError:
        return False
    return any(text and not re.fullmatch(rf"{re.escape(NOTE)}\S+", text.strip()) for text in written)


def gate(plan: Plan, version: int, *, on_image: OnImage = None) -> Verdict:
    """Judge the challenger against the champion of this moment; the outcome is recorded on the version.

    A verdict that is there already, under the same policy, on the same images, with the same metadata where the policy
    reads it, and against the same champion, holds. So does the one that a person is being asked about or has refused, and
    one that was approved while production is the same.
    Raises `RegistryError`, `DataError`, `GateError`: then nothing may be promoted.
    """
    manager = MlflowModelManager()
    shown = _shown(plan, version, manager)
    if shown is not None:
        return shown
    data = data_module(plan.config.datamodule, only=plan.trials[0].samples)  # what has come since may be half there
    if _judged_on_more(manager, plan.settings.model, data):
        data = data_module(plan.config.datamodule)
    kept = _last(manager, plan.settings.model, version)
    if kept is not None and _holds(kept, plan.policy, data):
        return kept
    from ratchet.judgement.judging import judge_version  # noqa: PLC0415 - imports torch, which planning does not need

    for _ in range(_JUDGEMENTS):
        verdict = judge_version(
            plan.settings.model, version, data=data, policy=plan.policy, manager=manager, on_image=on_image
        )
        champion = manager.champion(plan.settings.model)
        # Somebody may have put this very version there meanwhile: it is not judged against itself.
        if (champion and champion.version) in (version, verdict.champion and verdict.champion.version):
            break
    return verdict


def _judged_on_more(manager: MlflowModelManager, model: str, data: SegmentationDataModule) -> bool:
    """Whether the champion was promoted on gate images that this run, planned before they came, would leave out."""
    champion = manager.champion(model)
    record = None if champion is None else promoted_on(manager, champion)
    if data.only is None or record is None or record.images is None:
        return False
    digests = data.image_digests(data.gate_split)
    return not set(record.images.values()) <= {digests[sample.name] for sample in data.gate_samples}


def _holds(kept: Verdict, policy: Policy, data: SegmentationDataModule) -> bool:
    """Whether a verdict is by this policy, on the gate's images as they are now, with what the policy reads of them.

    A leak is looked for again: by what a trial was selected may be another metric since.
    """
    if any(check.rule == "leak" and not check.passed for check in kept.checks):
        return False
    samples = data.gate_samples
    needed = needed_metadata(policy, tuple(sample.name for sample in samples), metadata_columns(samples))
    digest = metadata_digest(needed) if needed else None
    return (kept.policy, kept.gate_set, kept.counts.get("metadata")) == (policy, data.gate_fingerprint, digest)


def _shown(plan: Plan, version: int, manager: MlflowModelManager) -> Verdict | None:
    """The verdict that this flow run has shown to a person, if it holds. New data do not matter: they came after it."""
    history = manager.history(plan.settings.model)
    asked = question_of(history, version, plan.flow_run.id if plan.flow_run else None)
    if asked is None:
        return None
    answer = answer_to(asked, history)
    final = answer is None or answer.kind is EventKind.REFUSED
    return _last(manager, plan.settings.model, version, digest=asked.verdict_digest, whoever_is_champion=final)


def _last(
    manager: MlflowModelManager,
    model: str,
    version: int,
    *,
    digest: str | None = None,
    whoever_is_champion: bool = False,
) -> Verdict | None:
    """The version's last verdict, or the one with this digest, if it was made against today's champion.

    It must be of the files that both have: a model that was deleted and made anew begins with version 1 again.
    """
    judged = manager.version(model, version)
    gated = [event for event in manager.own_history(judged) if event.kind is EventKind.GATED]
    named = [event for event in gated if digest in (None, event.verdict_digest)]
    verdict = kept_verdict(named[-1]) if named else None
    if verdict is None or judged.digests is None or verdict.challenger != model_ref(judged):
        return None
    if whoever_is_champion:
        return verdict
    champion = manager.champion(model)
    if champion is None or verdict.champion is None:
        return verdict if champion is None and verdict.champion is None else None
    # A challenger that is in production was put there on the strength of this verdict, just before an interruption.
    if champion.version == version:
        return verdict
    return verdict if champion.digests is not None and model_ref(champion) == verdict.champion else None


def move(plan: Plan, verdict: Verdict, to: Stage) -> ModelVersion:
    """Move the challenger to staging or production on the strength of its verdict.

    Once a person is asked, the challenger is not put into staging again, where another may be by now. Raises
    `ChampionMovedError` where production is no longer what the verdict was made against; nothing is changed then.
    """
    if not verdict.passed:
        raise GateError(f"{verdict.sentence}. Nothing is promoted on this verdict.")
    manager, model, version = MlflowModelManager(), plan.settings.model, verdict.challenger.version
    flow_run = plan.flow_run.id if plan.flow_run else None
    own = [e for e in manager.history(model) if flow_run is not None and e.flow_run == flow_run and e.counts]
    if any(e.kind is EventKind.PROMOTED and e.version == version for e in own):
        return manager.version(model, version)  # before it was interrupted; whoever has moved it since knew of it
    if to is Stage.STAGING and question_of(manager.history(model), version, flow_run) is not None:
        return manager.version(model, version)
    return manager.promote(
        model,
        version,
        to,
        expected_champion=verdict.champion.version if verdict.champion else None,
        reason=verdict.sentence,
        verdict_digest=verdict.digest,
        flow_run=flow_run,
    )
