"""The steps of one retraining, each safe to take again: plan, train, select, register, judge, move."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from ratchet.config import compose_space, instantiate
from ratchet.errors import ConfigError, GateError, ModelNotFoundError
from ratchet.gate import Policy, Verdict, load_policy
from ratchet.registry import BestRun, EventKind, MlflowModelManager, ModelVersion, Stage
from ratchet.registry.tracking import client
from ratchet.registry.values import FINGERPRINT_TAG
from ratchet.settings import RetrainSettings, TrialConfig
from ratchet.training.origin import PARENT_TAG
from ratchet.training.plan import PlannedTrial, SweepPlan, plan_sweep
from ratchet.training.results import OnProgress, SweepOutcome, TrialResult
from ratchet.training.run import FINGERPRINT_TAG as TRIAL_TAG

if TYPE_CHECKING:
    from ratchet.judgement import OnImage
    from ratchet.training.preview import Preview

RETRAINING_TAG = "ratchet.retraining"

Status = Literal["promoted", "staged", "rejected", "inconclusive", "skipped"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Plan(_Value):
    """What a retraining will do: its trials, the fingerprint of all its inputs, and whether that is anything new."""

    sweep: SweepPlan
    fingerprint: str
    unchanged_since: int | None

    @property
    def trials(self) -> tuple[PlannedTrial, ...]:
        """Its trials, as far as they are known before it starts."""
        return self.sweep.trials

    @property
    def config(self) -> TrialConfig:
        """The configuration that the trials share in all that is not theirs."""
        return self.sweep.config

    @property
    def settings(self) -> RetrainSettings:
        """Model, metric and destination."""
        return self.config.retrain

    @property
    def policy(self) -> Policy:
        """What the challenger must meet."""
        return load_policy(self.config.gate)


class Outcome(_Value):
    """How a retraining ended: what people and programs read."""

    status: Status
    model: str
    version: int
    champion: int | None
    summary: str
    trials: tuple[TrialResult, ...] = ()
    sweep: SweepOutcome | None = None
    best_run: str | None = None
    verdict: Verdict | None = None


def plan_retraining(
    overrides: Sequence[str], settings: Mapping[str, str | None], *, manager: MlflowModelManager | None = None
) -> Plan:
    """Compose the trials and see whether the same inputs have been judged before.

    `settings` (model, metric, mode, to) replace those of the tree's `retrain` where they are not None. Raises
    `ConfigError`, `DataError`.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    composed = compose_space(overrides)
    configs = [
        config.model_copy(update={"retrain": RetrainSettings.model_validate(config.retrain.model_dump() | given)})
        for config in composed.configs
    ]
    _require_one_job(configs, () if composed.space is None else composed.space.dimensions)
    sweep = plan_sweep(composed.model_copy(update={"configs": tuple(configs)}))
    chosen, policy = configs[0].retrain, load_policy(configs[0].gate)
    inputs = [sweep.asked, sweep.settings.extent(), chosen.metric, chosen.mode, policy.model_dump(mode="json")]
    fingerprint = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    unchanged = None
    if not configs[0].sweep.force:
        unchanged = _judged_before(manager or MlflowModelManager(), chosen, fingerprint)
    return Plan(sweep=sweep, fingerprint=fingerprint, unchanged_since=unchanged)


def train(
    plan: Plan, *, on_plan: Callable[[Preview], None] = lambda _: None, on_progress: OnProgress = lambda _: None
) -> SweepOutcome:
    """Run the trials; what has been trained already is reused. Raises `SweepFailedError`."""
    from ratchet.training.sweep import run  # noqa: PLC0415 - imports what trains

    return run(plan.sweep, on_plan=on_plan, on_progress=on_progress)


def select(plan: Plan, *, manager: MlflowModelManager | None = None) -> BestRun:
    """Choose the best trial of this sweep by the metric of its exported weights. Raises `RegistryError`."""
    settings = plan.settings
    return (manager or MlflowModelManager()).best_run(
        plan.config.core.name, settings.metric, settings.mode, tags={plan.sweep.tag: "true"}
    )


def register(plan: Plan, best: BestRun, *, manager: MlflowModelManager | None = None) -> ModelVersion:
    """Register the best trial's model as the challenger; the same run again gives the same version."""
    # Of the run, not of the trials: a search that several machines share may have its best trial elsewhere.
    run = client().get_run(best.run_id)
    fingerprint, parent = run.data.tags[TRIAL_TAG], run.data.params.get("backbone.init_from", "None")
    return (manager or MlflowModelManager()).register_model(
        best.model_location,
        plan.settings.model,
        tags={
            RETRAINING_TAG: plan.fingerprint,
            FINGERPRINT_TAG: fingerprint,
            "ratchet.selected_by": f"{best.metric}={best.value:.6g}",
            **({PARENT_TAG: parent} if parent != "None" else {}),
        },
    )


def gate(plan: Plan, version: int, *, manager: MlflowModelManager | None = None, on_image: OnImage = None) -> Verdict:
    """Judge the challenger against the champion of this moment; the outcome is recorded on the version.

    Raises `RegistryError`, `DataError`, `GateError`: then nothing may be promoted.
    """
    from ratchet.judgement import judge_version  # noqa: PLC0415 - imports torch, which planning does not need

    manager = manager or MlflowModelManager()
    settings, data = plan.settings, instantiate(plan.config.datamodule)
    if settings.metric.startswith(f"{data.gate_split}_"):
        raise ConfigError(
            f"retrain.metric={settings.metric} selects on the images that the gate judges on, so the gate would believe a "
            "lucky trial. Select by a val_ metric, or give the gate its own split (datamodule.gate_size, gate.txt)."
        )
    return judge_version(settings.model, version, data=data, policy=plan.policy, manager=manager, on_image=on_image)


def move(plan: Plan, verdict: Verdict, to: Stage, *, manager: MlflowModelManager | None = None) -> ModelVersion:
    """Move the challenger to staging or production on the strength of its verdict.

    Raises `ChampionMovedError` where production is no longer what the verdict was made against; nothing is changed then.
    """
    if not verdict.passed:
        raise GateError(f"{verdict.sentence}. Nothing is promoted on this verdict.")
    return (manager or MlflowModelManager()).promote(
        plan.settings.model,
        verdict.challenger.version,
        to,
        expected_champion=verdict.champion.version if verdict.champion else None,
        reason=verdict.sentence,
        verdict_digest=verdict.digest,
    )


def conclude(
    plan: Plan,
    best: BestRun,
    sweep: SweepOutcome,
    verdict: Verdict,
    *,
    manager: MlflowModelManager | None = None,
) -> Outcome:
    """Sum up a retraining that judged a challenger."""
    champion = (manager or MlflowModelManager()).champion(plan.settings.model)
    status: Status
    if verdict.passed:
        status = "promoted" if plan.settings.to == "production" else "staged"
    else:
        status = "rejected" if verdict.outcome == "reject" else "inconclusive"
    return Outcome(
        status=status,
        model=plan.settings.model,
        version=verdict.challenger.version,
        champion=champion.version if champion else None,
        summary=verdict.sentence,
        trials=sweep.trials,
        sweep=sweep,
        best_run=best.run_id,
        verdict=verdict,
    )


def skip(plan: Plan, *, manager: MlflowModelManager | None = None) -> Outcome:
    """Sum up a retraining that had nothing new to do."""
    champion = (manager or MlflowModelManager()).champion(plan.settings.model)
    version = plan.unchanged_since
    if version is None:
        raise ConfigError("this retraining has something new to do: it cannot be skipped.")
    return Outcome(
        status="skipped",
        model=plan.settings.model,
        version=version,
        champion=champion.version if champion else None,
        summary=f"skipped: unchanged since v{version}",
    )


def _judged_before(manager: MlflowModelManager, settings: RetrainSettings, fingerprint: str) -> int | None:
    """The version that these very inputs gave, if it stands where it should, or was refused against today's champion."""
    try:
        versions = manager.versions(settings.model)
    except ModelNotFoundError:
        return None
    champion = manager.champion(settings.model)
    for version in sorted(versions, key=lambda v: v.version, reverse=True):
        if version.tags.get(RETRAINING_TAG) != fingerprint:
            continue
        arrived = {"staging": (Stage.STAGING, Stage.PRODUCTION), "production": (Stage.PRODUCTION,)}[settings.to]
        if version.stage in arrived or version.quarantined or _refused(manager, version, champion):
            return version.version
    return None


def _refused(manager: MlflowModelManager, version: ModelVersion, champion: ModelVersion | None) -> bool:
    """Whether the version's last verdict refused it, and was made against today's champion."""
    judged = [e for e in manager.history(version.model) if e.kind is EventKind.GATED and e.version == version.version]
    if not judged or judged[-1].outcome == "promote":
        return False
    return manager.champion_at(version.model, judged[-1].time) == (champion.version if champion else None)


def _require_one_job(configs: Sequence[TrialConfig], searched: Iterable[str]) -> None:
    """A sweep may vary the trials, not what they are judged by; of a search only the keys that vary are known."""
    judged = ("retrain", "gate", "core.name", *(f"datamodule.{key}" for key in _SOURCE))
    for key in searched:
        if key.lstrip("+").startswith(judged):
            raise ConfigError(f"{key} cannot be searched: the trials of one retraining are judged by one standard.")
    for group in ("retrain", "gate"):
        if any(getattr(config, group) != getattr(configs[0], group) for config in configs):
            raise ConfigError(f"the overrides give several values for {group}: one retraining has one.")
    if len({config.core.name for config in configs}) > 1:
        raise ConfigError("the overrides give several values for core.name: the trials of one retraining share it.")
    sources = [{k: v for k, v in config.datamodule.items() if k in _SOURCE} for config in configs]
    if any(source != sources[0] for source in sources):
        raise ConfigError("the overrides give several data sets: the trials of one retraining are judged on one.")


_SOURCE = ("_target_", "data_path", "split_seed", "val_size", "test_size", "gate_size", "idx_to_class", "mask_values")
