"""What a trial tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

FOR_A_GPU = "waiting for a GPU"
"""The phase in which nothing is done until another sweep leaves one."""
TRAINING = "training"
"""The phase of the steps and of the validations between them."""
EXPORTING = "exporting"
"""The phase after the last use of a GPU or of all cores: the next trial may begin."""


CACHING = "caching images"
"""The phase before any training, in which `step` of `steps_per_epoch` images are decoded."""


class Progress(BaseModel):
    """How far one trial is. `note` says where it began, if not at the start of a new run; `seconds_left` is of its training.

    `steps` are those of the whole training, which may end within an epoch. `validated` is the last epoch that has been
    validated, or the one that training goes on after.
    """

    model_config = ConfigDict(frozen=True)

    epoch: int = 0
    max_epochs: int = 0
    step: int = 0
    steps_per_epoch: int = 0
    steps: int = 0
    metrics: dict[str, float] = {}
    validated: int = 0
    phase: str = "starting"
    note: str | None = None
    seconds_left: float | None = None

    @property
    def fraction(self) -> float:
        """Share of the training steps done, 0 to 1."""
        total = self.steps or self.max_epochs * self.steps_per_epoch
        return min(self.step / total, 1.0) if total else 0.0


class TrialEnd(BaseModel):
    """How a trial ended. A `paused` one goes on when it is run again; a `reused` one had been trained before."""

    model_config = ConfigDict(frozen=True)

    status: Literal["finished", "paused", "reused"]
    run_id: str
    metrics: dict[str, float]
    note: str | None = None


Report = Callable[[Progress], None]
