"""What was measured besides the counts: training data seen, a probe of the exported model, its cost. Plain values."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from ratchet.gate.policy import Settings


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A measurement; NaN and infinity are none, so the rule that needs it fails."""


class LeakEvidence(Settings):
    """Which gate images, by content, each model had seen in training or validation."""

    gate_images: int = Field(ge=0, description="Gate images whose content was looked up.")
    challenger_seen: tuple[str, ...] | None = Field(
        description="Names of gate images the challenger had; null: unknown."
    )
    champion_seen: tuple[str, ...] | None = Field(None, description="The same of the champion; null: unknown.")


def find_leaks(
    *,
    gate_images: Mapping[str, str],
    challenger_training: Collection[str] | None,
    champion_training: Collection[str] | None = None,
) -> LeakEvidence:
    """Look up each gate image (name → content hash) among the hashes that the models were trained or selected on.

    A name means nothing here: the same bytes under another name are found. None says that the hashes are not known.
    """

    def seen(training: Collection[str] | None) -> tuple[str, ...] | None:
        if training is None:
            return None
        known = frozenset(training)
        return tuple(sorted(name for name, content in gate_images.items() if content in known))

    return LeakEvidence(
        gate_images=len(gate_images), challenger_seen=seen(challenger_training), champion_seen=seen(champion_training)
    )


class ServesEvidence(Settings):
    """How a fresh process got on with the exported model."""

    loaded: bool = Field(description="The process loaded it and answered in time.")
    error: str | None = Field(None, description="What went wrong, in the process's words.")
    finite: bool | None = Field(None, description="All output values were finite.")
    output_shape: tuple[int, ...] | None = Field(None, description="Shape of the answer.")
    expected_shape: tuple[int, ...] | None = Field(None, description="Shape that it should have.")
    max_difference: Measured = Field(
        None, description="Largest difference to the trained model's output, over its largest value if above 1."
    )
    signature: str | None = Field(None, description="The challenger's input and output signature.")
    champion_signature: str | None = Field(None, description="The champion's.")
    isolation: str | None = Field(None, description="What kept the process off the network.")


class Cost(Settings):
    """What one model costs to run."""

    latency_ms: tuple[float, ...] = Field((), description="Samples, milliseconds of CPU time per image.")
    memory_mb: Measured = Field(None, description="Peak resident memory of a process that serves it.")
    size_mb: Measured = Field(None, description="Size on disk.")

    @property
    def p95(self) -> float | None:
        """The 95th percentile of the latency: an observed sample, not interpolated; None without samples."""
        samples = sorted(self.latency_ms)
        return samples[math.ceil(0.95 * len(samples)) - 1] if samples else None


class Evidence(Settings):
    """All of it; what is null was not measured, and a rule that needs it fails."""

    leak: LeakEvidence | None = Field(None, description="Gate images in training data.")
    serves: ServesEvidence | None = Field(None, description="The trial of the exported model.")
    challenger_cost: Cost | None = Field(None, description="What the challenger costs to run.")
    champion_cost: Cost | None = Field(None, description="What the champion costs, measured in the same run.")
    notes: tuple[str, ...] = Field((), description="What a reader should know of how it was measured.")
