"""The shape of a composed configuration: what Hydra's tree must hold before anything is built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Node = dict[str, Any]
"""A part of the tree that names a `_target_`: `ratchet.config.instantiate` makes an object of it."""

Mode = Literal["min", "max"]


class Settings(BaseModel):
    """Frozen, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class CoreSettings(Settings):
    """What belongs to the run as a whole."""

    name: str = Field(min_length=1, description="The MLflow experiment that the trials log to.")
    home: Annotated[Path, PlainSerializer(str)] = Field(
        description="Where the embedded stores, generated data and work files live."
    )
    seed: int = Field(ge=0, le=2**32 - 1)
    deterministic: bool
    tag: str | None = Field(description="A word of one's own, kept as the run's tag `tag`.")


class BackboneSettings(Settings):
    """The network, and the model whose weights it starts from: `init_from`, whose content planning finds out."""

    model: Node
    init_from: str | None = Field(
        description="production, models:/<name>/<version>, models:/<name>@<alias>, runs:/<run id>, or null: no other model."
    )
    init_digest: str | None = Field(
        default=None, description="The sha256 of its weights; set when the trials are planned."
    )


class TransformSettings(Settings):
    """Input size and normalisation (of training, scoring and serving alike), and the augmentation of training."""

    input_height: int = Field(ge=32)
    input_width: int = Field(ge=32)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train_transform: Node | None


class ExportSettings(Settings):
    """Which weights are exported, in which forms."""

    checkpoint_selection: Literal["best", "last"]
    types: tuple[Literal["pt2", "torchscript", "onnx"], ...]


class SweepSettings(Settings):
    """How the trials of one sweep are run."""

    parallel: int | None = Field(ge=1, description="Trials at once; null: one per GPU, or one on a CPU.")
    force: bool = Field(description="Train again what has been trained already.")
    checkpoint_minutes: float = Field(
        ge=0,
        description="Within an epoch, minutes from one checkpoint to the next; between epochs there is always one.",
    )
    upload_minutes: float | None = Field(
        ge=0, description="Minutes from one upload of the checkpoint to the tracking server to the next; null: none."
    )


class RetrainSettings(Settings):
    """What one retraining is to end in."""

    model: str = Field(min_length=1, description="The registered model's name.")
    metric: str = Field(min_length=1, description="The metric that selects the best trial, as it is named in MLflow.")
    mode: Mode = Field(description="Whether the best trial has the largest (max) or the smallest (min) value.")
    to: Literal["staging", "production"] = Field(description="How far a challenger that is proven better goes.")


class TrialConfig(Settings):
    """One composed configuration: one trial of a sweep."""

    core: CoreSettings
    datamodule: Node
    backbone: BackboneSettings
    model: Node
    loss: Node
    optimizer: Node
    scheduler: Node | None
    transforms: TransformSettings
    trainer: Node
    callbacks: dict[str, Node | None]
    logger: Node
    export: ExportSettings
    sweep: SweepSettings
    gate: dict[str, Any]
    retrain: RetrainSettings
