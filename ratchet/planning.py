"""What a retraining will do, decided before anything runs: its trials, and whether they would bring anything new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence

import yaml
from pydantic import BaseModel, ConfigDict

from ratchet.config import compose_space, data_module
from ratchet.errors import ConfigError, ModelNotFoundError, RegistryError
from ratchet.gate import Policy, load_policy
from ratchet.gate.contrasts import needed_metadata, wanted_columns
from ratchet.gate.digests import Metadata, metadata_digest
from ratchet.judgement.anchor import require_to_compare
from ratchet.judgement.records import kept_verdict
from ratchet.registry import Event, EventKind, MlflowModelManager, ModelVersion, Stage
from ratchet.registry.questions import open_question
from ratchet.registry.values import checked_model_name
from ratchet.settings import RetrainSettings, TrialConfig
from ratchet.space import Composed
from ratchet.training.plan import NOT_CONTENT, PlannedTrial, SweepPlan, content_key, plan_sweep

RETRAINING_TAG = "ratchet.retraining"
STOOD_TAG = "ratchet.retraining.unchanged"
"""Of a version: the retraining that found it to be the best again, beside the one that made it."""
FLOW_RUN_TAG = "prefect.flow_run"
"""Of the runs and the version that a flow run made: where its page is."""
NOTE = "flow run "
"""How the description of a version begins that a flow run registered."""


ARRIVED = {"staging": (Stage.STAGING, Stage.PRODUCTION), "production": (Stage.PRODUCTION,)}
"""The stages in which a version is as far as a retraining may take it."""


class FlowRun(BaseModel):
    """The run of a flow that a retraining belongs to: its id, and where its page is."""

    model_config = ConfigDict(frozen=True)

    id: str
    page: str


class Plan(BaseModel):
    """What a retraining will do: its trials, the fingerprint of all its inputs, and whether that is anything new."""

    model_config = ConfigDict(frozen=True)

    sweep: SweepPlan
    fingerprint: str
    unchanged_since: int | None
    flow_run: FlowRun | None = None

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

    def to_yaml(self) -> str:
        """Write the plan down. Not as JSON: keys of numbers, as in `idx_to_class`, would come back as text."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Plan:
        """Read what `to_yaml` wrote."""
        return cls.model_validate(yaml.safe_load(text))

    def among(self, names: Collection[str] | None) -> Plan:
        """This plan on the images named, and no others; None: on all that are there."""
        samples = None if names is None else frozenset(names)
        trials = tuple(trial.model_copy(update={"samples": samples}) for trial in self.trials)
        return self.model_copy(update={"sweep": self.sweep.model_copy(update={"trials": trials})})

    @property
    def title(self) -> str:
        """Model and trials, as the flow run is called: `cvsd_model: 4 trials`."""
        return titled(self.settings.model, self.sweep.due)

    @property
    def marks(self) -> dict[str, str]:
        """The tags that lead from what this retraining makes back to it."""
        return {} if self.flow_run is None else {FLOW_RUN_TAG: self.flow_run.page}

    def made(self, version: ModelVersion) -> bool:
        """Whether this very flow run registered it: by its id, since Prefect may have another address by now."""
        return self.flow_run is not None and version.tags.get(FLOW_RUN_TAG, "").endswith(self.flow_run.id)

    @property
    def note(self) -> str | None:
        """What leads back to it in a description on MLflow's pages, where an address is a link: in a tag it is plain text."""
        return None if self.flow_run is None else f"{NOTE}{self.flow_run.page}"


def plan_retraining(
    overrides: Sequence[str],
    *,
    flow_run: FlowRun | None = None,
    is_waiting: Callable[[str], bool] = lambda _: True,
    only: Collection[str] | None = None,
) -> Plan:
    """Compose the trials and see whether the same inputs have been judged before.

    `is_waiting` tells whether the flow run with an id still waits for a person's answer: one that was cancelled asks nobody.
    With `only`, images of other names are left out: they came since an interrupted retraining was planned. Raises
    `ConfigError`, `PolicyError`, `DataError`, `RegistryError`, and `GateError` where nothing could be compared with.
    """
    composed = compose_space(overrides)
    check_trials(composed)
    _require_other_images(composed.configs[0], only)
    sweep = plan_sweep(composed, only=only)
    chosen, policy = sweep.config.retrain, load_policy(sweep.config.gate)
    inputs = [sweep.asked, sweep.settings.extent(), chosen.metric, chosen.mode, policy.model_dump(mode="json")]
    needed = _needed_metadata(policy, sweep.config, sweep.trials[0].samples or ())
    if needed:  # it decides verdicts, and is no part of the trials' data
        inputs.append(metadata_digest(needed))
    fingerprint = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    plan = Plan(sweep=sweep, fingerprint=fingerprint, unchanged_since=None, flow_run=flow_run)
    manager = MlflowModelManager()
    before = None if sweep.settings.force else _judged_before(manager, plan, is_waiting)
    if before is None:
        require_to_compare(policy, manager, plan.settings.model)  # before hours of training
    return plan.model_copy(update={"unchanged_since": before})


def _needed_metadata(policy: Policy, config: TrialConfig, names: Collection[str]) -> Metadata:
    """What the policy reads of the metadata of the images named."""
    if not wanted_columns(policy):
        return {}
    found = data_module(config.datamodule).read_metadata()
    rows = {name: row for name, row in found.items() if name in names}
    columns: dict[str, dict[str, str]] = {}
    for name, row in rows.items():
        for column, value in row.items():
            columns.setdefault(column, {})[name] = value
    return needed_metadata(policy, tuple(rows), columns)


def check_trials(composed: Composed) -> None:
    """Refuse trials that are not to be judged by one standard, or that the gate could not load.

    Raises `ConfigError`, `PolicyError`.
    """
    _require_one_job(composed.configs, () if composed.space is None else composed.space.dimensions)
    model = composed.configs[0].retrain.model
    try:
        checked_model_name(model)
    except RegistryError as error:
        raise ConfigError(f"retrain.model={model}: {error}. Give another name with --model.") from error
    policy = load_policy(composed.configs[0].gate)
    for config in composed.configs:
        if policy.group_by is not None and config.datamodule.get("group_by", "") is None:
            raise ConfigError(
                f"gate.group_by={policy.group_by} judges on images that belong together, while others of the same "
                f"{policy.group_by} may be trained on: set datamodule.group_by={policy.group_by} too."
            )
        if "torchscript" not in config.export.types:
            raise ConfigError(
                f"export.types=[{','.join(config.export.types)}]: the gate loads the TorchScript form, model.pt, so that no "
                "trial could be judged. Add torchscript."
            )


def titled(model: str, trials: int | None) -> str:
    """Name a retraining by its model and the number of its trials; None: as many as time allows."""
    return f"{model}: a search" if trials is None else f"{model}: {trials} trial{'s' if trials > 1 else ''}"


def _judged_before(manager: MlflowModelManager, plan: Plan, is_waiting: Callable[[str], bool]) -> int | None:
    """The version that these very inputs gave, if another retraining brought it to its end, or is about to."""
    try:
        versions = manager.versions(plan.settings.model)
    except ModelNotFoundError:
        return None
    for version in sorted(versions, key=lambda v: v.version, reverse=True):
        if not gave(plan, version):
            continue
        if plan.made(version):
            return None  # this retraining made it itself, and was interrupted: it goes on where it was
        if _is_asked(manager, version, is_waiting):
            return version.version
        if version.tags.get(failed_tag(plan)) == "yes":
            continue  # its failed trials are tried again
        return version.version if is_over(manager, plan, version) else None  # the newest decides
    return None


def _is_asked(manager: MlflowModelManager, version: ModelVersion, is_waiting: Callable[[str], bool]) -> bool:
    """Whether somebody is being asked about the version."""
    asked = open_question(manager.own_history(version), version.version)
    return asked is not None and (asked.flow_run is None or is_waiting(asked.flow_run))


def is_over(manager: MlflowModelManager, plan: Plan, version: ModelVersion) -> bool:
    """Whether a version that these inputs gave has gone as far as it will, while production is what it is."""
    if version.stage in ARRIVED[plan.settings.to] or version.quarantined:
        return True
    if version.fingerprint in manager.quarantined_fingerprints(version.model):
        return True
    # Whoever put another one into its place knew more, or had a better one: the old verdict does not undo that.
    replaced = version.version in manager.replaced_champions(version.model)
    return replaced or turned_down(manager, version) or _rejected(manager, plan, version)


def gave(plan: Plan, version: ModelVersion) -> bool:
    """Whether a retraining on these very inputs found the version to be the best."""
    return plan.fingerprint in (version.tags.get(RETRAINING_TAG), version.tags.get(STOOD_TAG))


def failed_tag(plan: Plan) -> str:
    """The tag of a version that says whether a trial of this retraining failed: `yes` or `no`."""
    return f"ratchet.retraining.failed.{plan.fingerprint[:12]}"


def turned_down(manager: MlflowModelManager, version: ModelVersion) -> bool:
    """Whether a person's last word on it was no, when today's champion was there already; whatever the gate said since."""
    words = (EventKind.ASKED, EventKind.APPROVED, EventKind.REFUSED)
    told = [event for event in manager.own_history(version) if event.kind in words]
    return bool(told) and told[-1].kind is EventKind.REFUSED and _stands(manager, version.model, told[-1])


def _rejected(manager: MlflowModelManager, plan: Plan, version: ModelVersion) -> bool:
    """Whether the gate's last word on the version was no, by this plan's policy and images, against today's champion."""
    for event in reversed([e for e in manager.own_history(version) if e.kind is EventKind.GATED]):
        gate, verdict = plan.trials[0].gate, kept_verdict(event)
        if (gate and event.gate_set not in (None, gate)) or (verdict is not None and verdict.policy != plan.policy):
            continue  # somebody looked at it by another standard
        return event.outcome != "promote" and _stands(manager, version.model, event)
    return False


def _stands(manager: MlflowModelManager, model: str, event: Event) -> bool:
    """Whether production is what it was when the event was written."""
    champion = manager.champion(model)
    return manager.champion_behind(model, event) == (champion.version if champion else None)


def _require_other_images(config: TrialConfig, only: Collection[str] | None) -> None:
    """Refuse a metric that selects on the gate's own images."""
    metric = config.retrain.metric
    if metric.startswith("test_") and data_module(config.datamodule, only=only).gate_split == "test":
        raise ConfigError(
            f"retrain.metric={metric} selects on the images that the gate judges on, so the gate would believe a "
            "lucky trial. Select by a val_ metric, or give the gate its own split (datamodule.gate_size, gate.txt)."
        )


def _require_one_job(configs: Sequence[TrialConfig], searched: Iterable[str]) -> None:
    """A sweep may vary the trials, not what they are judged by; `searched` are the keys that a search varies."""
    for key in searched:
        group, *below = key.lstrip("+").split(".")
        of_the_data = group == "datamodule" and not (below and below[0] in NOT_CONTENT)
        judged = key.lstrip("+").startswith(("retrain", "gate", "core.name", "export.types"))
        if of_the_data or judged or key in ("experiment", "export"):
            raise ConfigError(f"{key} cannot be searched: the trials of one retraining are judged by one standard.")
    for group in ("retrain", "gate"):
        if any(getattr(config, group) != getattr(configs[0], group) for config in configs):
            raise ConfigError(f"the overrides give several values for {group}: one retraining has one.")
    if len({config.core.name for config in configs}) > 1:
        raise ConfigError("the overrides give several values for core.name: the trials of one retraining share it.")
    if len({content_key(config) for config in configs}) > 1:
        raise ConfigError("the overrides give several data sets: the trials of one retraining are judged on one.")
