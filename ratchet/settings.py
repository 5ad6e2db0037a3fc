"""The shape of a composed configuration: what Hydra's tree must hold before anything is built from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from ratchet.duration import Duration

Node = dict[str, Any]
"""A part of the tree that names a `_target_`: `ratchet.config.instantiate` makes an object of it."""

Mode = Literal["min", "max"]


class Settings(BaseModel):
    """Frozen, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
        default=None,
        description="production, models:/<name>/<version>, models:/<name>@<alias>, runs:/<run id>, or null: no other model.",
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


SEARCH_TRIALS = 20


class SweepSettings(Settings):
    """How the trials of one sweep are run."""

    parallel: int | None = Field(ge=1, description="Trials at once; null: one per GPU, or one on a CPU.")
    overlap: bool = Field(description="Train the next trial while one is exported.")
    force: bool = Field(description="Train again what has been trained already.")
    checkpoint_minutes: float = Field(
        ge=0,
        description="Within an epoch, minutes from one checkpoint to the next at most; sooner where a kill would cost a "
        "twentieth of the trial's time; between epochs there is one. None where the last one took more than a twentieth "
        "of the time since.",
    )
    upload_minutes: float | None = Field(
        ge=0, description="Minutes from one upload of the checkpoint to the tracking server to the next; null: none."
    )
    max_time: Duration | None = Field(description="How long the sweep may take, as 2h or 1h30m; null: as it needs.")
    max_trials: int | None = Field(
        ge=1, description=f"How many trials; null: all of a grid, of a search {SEARCH_TRIALS}, or what max_time allows."
    )
    target: float | None = Field(description="No further trial once one has this value of retrain.metric.")
    trial_max_time: Duration | None = Field(
        description="How long one trial may train; then its best weights are taken."
    )
    sampler: Literal["grid", "random", "tpe"] | None = Field(
        description="Who chooses the trials: every combination, chance, or what did well before. null: grid, or tpe "
        "where a value is an interval."
    )
    halving: bool = Field(description="Stop the worse trials early: successive halving by retrain.metric.")
    halving_eta: int = Field(ge=2, description="Of so many trials one goes on at each rung.")
    halving_min_epochs: int = Field(ge=1, description="Epochs until the first rung; each next one is eta times as far.")

    def extent(self) -> dict[str, Any]:
        """What decides how far a sweep goes: one that was stopped early goes on when it is given more."""
        keys = {"max_time", "max_trials", "target", "sampler", "halving", "halving_eta", "halving_min_epochs"}
        return self.model_dump(mode="json", include=keys)

    def trials(self, combinations: int | None) -> int | None:
        """How many trials a search has, of a space with so many combinations (None: endless); None: as time allows."""
        bounds = [self.max_trials, combinations]
        if self.max_trials is None and self.max_time is None:
            bounds.append(SEARCH_TRIALS)
        return min((bound for bound in bounds if bound is not None), default=None)


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
    scheduler: Node | None = None
    transforms: TransformSettings
    trainer: Node
    callbacks: dict[Annotated[str, Field(pattern=r"^\w[\w-]*$")], Node | None]  # the names are those of folders, too
    logger: Node
    export: ExportSettings
    sweep: SweepSettings
    gate: dict[str, Any]
    retrain: RetrainSettings


def flatten(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """List the leaves of a tree as dotted keys and values."""
    if isinstance(tree, Mapping) and tree:
        return [
            leaf for key, value in tree.items() for leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, tree)]


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """As `flatten`, and through lists too, whose positions are keys."""
    return [(".".join(keys), value) for keys, value in _leaves(tree)]


def _leaves(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    if not isinstance(tree, Mapping | list | tuple) or not tree:
        yield (), tree
    for key, value in items:
        for keys, leaf in _leaves(value):
            yield (str(key), *keys), leaf
