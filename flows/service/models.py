"""The model files: one YAML file for each model that is retrained, monitored and looked after by itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from ratchet.errors import ConfigError, RegistryError
from ratchet.form import Hours, RetrainForm, form_of, written
from ratchet.monitoring.values import MonitorSettings
from ratchet.registry.values import checked_model_name
from ratchet.settings import Mode, Settings


def _model_name(name: str) -> str:
    try:
        name = checked_model_name(name)
    except RegistryError as error:
        raise ValueError(str(error)) from error
    # Prefect's own rule for a deployment's name, which the model's becomes part of; and its client writes the name of a limit
    # into an address, as it is, which ends at # and ?.
    if refused := re.search(r"[/%&<>#?]", name):
        raise ValueError(f"{name!r} holds {refused.group()!r}, which Prefect takes in no name")
    return name


def _cron(text: str) -> str:
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415 (two seconds)

    try:
        return CronSchedule(cron=text).cron
    except ValidationError:
        raise ValueError("not a cron expression: write five fields, such as '0 3 * * 1' for Mondays at three") from None


def _timezone(name: str) -> str:
    from zoneinfo import available_timezones  # noqa: PLC0415

    if name not in (known := available_timezones()):
        near = difflib.get_close_matches(name, known, n=2)
        raise ValueError(f"no such time zone{f'; did you mean {near[0]}?' if near else ''} Write it as Europe/Rome")
    return name


def _absolute(path: str) -> str:
    if not path.startswith(("/", "~")):
        raise ValueError("write the whole path, from / or ~ on: a worker runs in a folder of its own")
    return path


Cron = Annotated[str, AfterValidator(_cron)]


class Schedules(Settings):
    """When things happen by themselves, as cron expressions in the model's time zone; null: never."""

    retrain: Cron | None = Field(None, description="Retrain, if anything changed.")
    monitor: Cron | None = Field("0 6 * * *", description="Score the champion on the newest labelled data.")
    watch: Cron | None = Field("*/10 * * * *", description="Look whether the data changed.")
    prune: Cron | None = Field("0 4 * * 0", description="Delete old archived, rejected and inconclusive versions.")


class Triggers(Settings):
    """What an event starts."""

    new_data: bool = Field(True, description="Retrain when the watcher saw the data change.")
    degradation: bool = Field(True, description="Retrain when the monitor saw production get worse.")


class WatchSettings(Settings):
    """How the data are watched."""

    settle_minutes: float = Field(10, ge=0, description="The data must stay the same for so long to count as changed.")


class PruneSettings(Settings):
    """What is kept."""

    keep: int = Field(10, ge=0, description="Archived, rejected and inconclusive versions that stay.")


class ModelFile(Settings):
    """Everything about one model. Its data, policy and trials are named as for `ratchet train`, by overrides."""

    name: Annotated[str, AfterValidator(_model_name)] = Field(description="The registered model's name.")
    description: str = Field("", description="One sentence for Prefect's pages.")
    enabled: bool = Field(True, description="false: nothing starts by itself; people still may.")
    experiment: str = Field(
        min_length=1, description="An entry of the group experiment: generic/shapes/segmentation/smp."
    )
    data: Annotated[str, AfterValidator(_absolute)] | None = Field(
        None, description="The data set's folder; null: as the experiment says."
    )
    overrides: tuple[str, ...] = Field((), description="Further overrides; a list of values makes a trial of each.")
    metric: str = Field("val_iou", min_length=1, description="The metric that selects the best trial.")
    mode: Mode = Field("max", description="Whether its largest or its smallest value is best.")
    to: Literal["staging", "production"] = Field("production", description="How far a better model goes.")
    approval: bool = Field(False, description="Ask a person before production.")
    approval_hours: Hours = Field(72, description="How long the question stands; then the answer is no.")
    timezone: Annotated[str, AfterValidator(_timezone)] = Field("UTC", description="The time zone of all schedules.")
    schedules: Schedules = Schedules()
    triggers: Triggers = Triggers()
    collision: Literal["queue", "refuse"] = Field(
        "queue", description="What a retraining does while another one of this model runs: wait, or be cancelled."
    )
    monitor: MonitorSettings = MonitorSettings()
    watch: WatchSettings = WatchSettings()
    prune: PruneSettings = PruneSettings()

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """The overrides that compose this model's trials."""
        data = () if self.data is None else (f"datamodule.data_path={written(self.data)}",)
        return (f"experiment={self.experiment}", *data, *self.overrides)

    @property
    def form(self) -> RetrainForm:
        """The form of a retraining, filled in for this model."""
        own = {"model": self.name, "data": self.data or "", "metric": self.metric, "mode": self.mode, "to": self.to}
        return form_of((f"experiment={self.experiment}", *self.overrides)).model_copy(update=own)

    @model_validator(mode="after")
    def _loses_no_answer(self) -> ModelFile:
        if self.approval and self.collision == "refuse":
            raise ValueError(
                "collision: refuse cancels also a run that goes on because a person has approved, where another one has begun "
                "meanwhile: with approval: true, use queue"
            )
        return self

    @model_validator(mode="after")
    def _keeps_the_keys_apart(self) -> ModelFile:
        for override in self.overrides:
            key = override.split("=")[0].lstrip("+~")
            if key in ("experiment", "datamodule.data_path") or key.startswith("retrain."):
                own = "data" if key == "datamodule.data_path" else key.removeprefix("retrain.")
                raise ValueError(f"overrides: {override} belongs into the key {own} of this file")
        return self


def load_models(folder: Path) -> tuple[ModelFile, ...]:
    """Every model file of a folder, by name. Raises `ConfigError`, naming the file and the key."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}: give the one that holds a YAML file for each model")
    models: dict[str, tuple[ModelFile, Path]] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        model = load_model(path)
        if model.name in models:
            raise ConfigError(f"{path}: name: {models[model.name][1]} is about {model.name!r} too: keep one of them")
        models[model.name] = (model, path)
    return tuple(model for model, _ in sorted(models.values(), key=lambda entry: entry[0].name))


def load_model(path: Path) -> ModelFile:
    """Read one model file. Raises `ConfigError`, naming the key."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path} holds no keys: begin with name and experiment")
    try:
        return ModelFile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_problem(problem)}" for problem in error.errors())) from error


def _problem(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(_keys(ModelFile)), n=2, cutoff=0.4)
        return f"{key}: there is no such key{f'; nearest: {chr(44).join(near)}' if near else ''}"
    if problem["type"] == "missing":
        return f"{key}: this key is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}={problem['input']!r}: {message}" if key else message


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(f"{prefix}{name}")
        inner = next(
            (kind for kind in (field.annotation, *get_args(field.annotation)) if get_origin(kind) is None), None
        )
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _keys(inner, f"{prefix}{name}.")
    return found
