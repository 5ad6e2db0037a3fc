"""What a challenger must meet, as data: one typed model behind the YAML files, the form in a browser and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.evaluation.counts import TITLES, Average, Metric

Gain = Annotated[float, Field(ge=0, lt=1)]
Confidence = Annotated[float, Field(ge=0.5, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Frozen, closed to unknown keys, and finite: NaN and infinity are no bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Superiority(Settings):
    """The challenger is better than the champion, proven."""

    min_gain: Gain = Field(0.0, description="How much better it must be at the least, in units of the metric.")
    confidence: Confidence = Field(0.95, description="One-sided confidence of the interval's lower end.")


class NonInferiority(Settings):
    """The challenger is not worse than the champion by more than a margin, proven: over all, and in each slice."""

    margin: Gain = Field(0.03, description="The loss that is still accepted, in units of the metric.")
    confidence: Confidence = Field(0.95, description="One-sided confidence; over the slices it is Holm's.")
    overall: bool = Field(False, description="Ask it of the whole gate set too.")
    classes: bool = Field(True, description="Ask it of each foreground class.")
    sizes: bool = Field(False, description="Ask it of images with small, medium and large objects (thirds).")
    columns: tuple[str, ...] = Field((), description="Ask it of each value of these columns of metadata.csv.")
    min_images: int = Field(10, ge=4, description="A slice with fewer images cannot be judged, and does not pass.")

    @model_validator(mode="after")
    def _asks_for_something(self) -> NonInferiority:
        if not (self.overall or self.classes or self.sizes or self.columns):
            raise ValueError("it asks nothing: set overall, classes, sizes or columns")
        return self


class Anchor(Settings):
    """Not worse than the best version ever in production, so that small accepted losses cannot add up."""

    margin: Gain = Field(0.02, description="The loss against the anchor that is still accepted.")
    confidence: Confidence = Field(0.95, description="One-sided confidence of the interval's lower end.")


class Serves(Settings):
    """The exported model loads in a fresh process and answers as the trained one does."""

    max_difference: float = Field(
        1e-3, ge=0, description="Largest difference to the trained model's output, over its largest value if above 1."
    )
    time_limit: int = Field(120, ge=1, description="Seconds for loading and answering; then it is killed.")
    same_signature: bool = Field(True, description="Input and output signature must be the champion's.")


class Budget(Settings):
    """What the challenger may cost to run; ratios are to the champion, measured in the same run."""

    latency_p95_ms: Positive | None = Field(None, description="Most milliseconds per image at the 95th percentile.")
    latency_ratio: Positive | None = Field(None, description="Most times the champion's p95 latency.")
    memory_mb: Positive | None = Field(None, description="Most megabytes of peak memory.")
    memory_ratio: Positive | None = Field(None, description="Most times the champion's peak memory.")
    size_mb: Positive | None = Field(None, description="Most megabytes on disk.")
    size_ratio: Positive | None = Field(None, description="Most times the champion's size on disk.")
    min_samples: int = Field(20, ge=1, description="Fewer latency samples than this prove nothing.")
    time_limit: int = Field(900, ge=1, description="Seconds for measuring; then it is killed.")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Budget:
        if all(
            getattr(self, name) is None for name in type(self).model_fields if name.endswith(("_ms", "_mb", "_ratio"))
        ):
            raise ValueError("it asks nothing: set a bound on latency, memory or size")
        return self


class Policy(Settings):
    """The rules that a challenger must meet. A rule set to null is not asked."""

    name: str = Field("custom", min_length=1, description="What people call this policy.")
    metric: Metric = Field("iou", description="The score, over all pixels of the gate set.")
    average: Average = Field("macro", description="macro: mean over the foreground classes; micro: all pixels at once.")
    floor: float | None = Field(None, ge=0, le=1, description="Least score, also for a first model; null: no floor.")
    class_floor: float | None = Field(None, ge=0, le=1, description="Least score of every single class.")
    superiority: Superiority | None = Field(Superiority(), description="Proven better than the champion.")
    non_inferiority: NonInferiority | None = Field(None, description="Proven not worse in any slice.")
    anchor: Anchor | None = Field(None, description="Proven not worse than the best version ever in production.")
    leak: bool = Field(False, description="No gate image, by content, in either model's training or validation data.")
    serves: Serves | None = Field(None, description="The exported model works where it will run.")
    budget: Budget | None = Field(None, description="Latency, memory and size within bounds.")
    group_by: str | None = Field(None, description="Column of metadata.csv whose images belong together.")
    min_images: int = Field(20, ge=4, description="Independent images (or groups) that a comparison needs.")
    resamples: int = Field(10_000, ge=1_000, le=100_000, description="Bootstrap resamples.")
    seed: int = Field(20_241, ge=0, lt=2**63, description="Seed of the resampling.")
    power: float = Field(0.8, gt=0.5, lt=1, description="Power behind 'smallest detectable' and 'images needed'.")
    reuse_risk: float = Field(
        0.5, gt=0, lt=1, description="Warn when luck may have promoted one of all challengers tried with this chance."
    )

    @property
    def metric_title(self) -> str:
        """The metric as people write it."""
        return TITLES.get(self.metric, self.metric)

    @model_validator(mode="after")
    def _asks_for_something(self) -> Policy:
        quality = (self.floor, self.class_floor, self.superiority, self.non_inferiority)
        if all(rule is None for rule in quality):
            raise ValueError("the policy asks nothing of quality: set floor, superiority or non_inferiority")
        by_class = self.class_floor is not None or (self.non_inferiority is not None and self.non_inferiority.classes)
        if self.metric == "pixel_accuracy" and by_class:
            raise ValueError("pixel_accuracy has no value per class: unset class_floor and non_inferiority.classes")
        return self


def policy_keys(model: type[BaseModel] = Policy, prefix: str = "") -> Iterator[str]:
    """Every key of a policy: `floor`, `anchor`, `anchor.margin`, …"""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for kind in get_args(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from policy_keys(kind, f"{prefix}{name}.")
