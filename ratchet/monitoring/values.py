"""What the monitor is asked, and what it answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.settings import Settings

State = Literal["healthy", "degraded", "undecided"]


class MonitorSettings(Settings):
    """What counts as worse."""

    margin: float = Field(0.05, ge=0, lt=1, description="The loss that is still accepted, in units of the metric.")
    confidence: float = Field(0.95, ge=0.5, lt=1, description="One-sided confidence that the loss is larger than that.")
    newest: int = Field(200, ge=20, description="Of the images that came since, so many are scored, the newest first.")
    min_images: int = Field(20, ge=4, description="With fewer new images, or groups of them, nothing is concluded.")

    @model_validator(mode="after")
    def _can_conclude(self) -> MonitorSettings:
        if self.min_images > self.newest:
            raise ValueError(
                f"min_images={self.min_images} is more than newest={self.newest}, so nothing could ever be concluded: "
                "raise newest, or lower min_images"
            )
        return self


class Reading(BaseModel):
    """The champion on labelled images that it never saw and that came after its training, beside its gate images.

    Both are scored by what their files are today, at the masks' own size. `change` is the score on the `images` new ones
    minus the one on the `reference_images`: the gate images that the version was promoted on, or, where no record names them, not
    `as_promoted` but today's. It lies between `low` and `high`, each with the confidence asked for. None: not a number,
    or not bounded by so few images.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    metric: str
    state: State
    sentence: str
    images: int
    reference_images: int
    as_promoted: bool = True
    score: float | None = None
    reference: float | None = None
    low: float | None = None
    high: float | None = None
    class_scores: dict[str, float] = {}
    margin: float
    data: str

    @property
    def change(self) -> float | None:
        """Score minus reference; negative where production got worse."""
        return None if self.score is None or self.reference is None else self.score - self.reference
