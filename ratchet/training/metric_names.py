"""The names of the metrics that every run ends with."""

from __future__ import annotations

import re
from collections.abc import Iterable

LOGGED_METRICS = ("iou", "dice")
OF_TRAINING = ("loss_epoch", "loss_step", "val_loss_step", "lr")
"""Those that say nothing of the weights that are exported."""
_OTHERS = (*OF_TRAINING, "duration", "peak_memory")


def logged_name(name: str) -> str:
    """Return a metric's name as MLflow takes it: a character that it takes in no name becomes `_`."""
    return re.sub(r"[^\w/ .:-]", "_", name)


def better(name: str) -> str | None:
    """Say whether its smallest (`min`) or its largest (`max`) value is best; None of what is no measure of a model."""
    if not name.startswith(("val_", "test_", "loss")):
        return None
    return "min" if name.removeprefix("val_").removeprefix("test_").startswith("loss_") else "max"


def metric_names(classes: Iterable[str]) -> tuple[str, ...]:
    """List them for a data set with these foreground classes, those that a trial is selected by first."""
    kinds = [kind for metric in LOGGED_METRICS for kind in (metric, *(f"{metric}_{name}" for name in classes))]
    found = [f"{split}_{kind}" for split in ("val", "test") for kind in ("loss_epoch", *kinds)]
    return tuple(map(logged_name, [*found, *_OTHERS]))
