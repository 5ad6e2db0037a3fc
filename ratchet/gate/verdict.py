"""The verdict and its checks: frozen values, one canonical JSON text, and the digest that names it."""

from __future__ import annotations

import hashlib
import json
import platform
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from importlib.metadata import version
from itertools import count
from typing import Literal

from pydantic import Field, PrivateAttr, ValidationError

from ratchet.errors import NewerVerdictError, VerdictChangedError
from ratchet.gate.evidence import Evidence
from ratchet.gate.policy import Policy, Settings

Decision = Literal["promote", "reject", "inconclusive"]
Rule = Literal["scored", "different", "floor", "superiority", "non_inferiority", "anchor", "leak", "serves", "budget"]


_LATER = {"extra_forbidden", "literal_error"}  # faults that a reader finds where a later one would find none
STATISTIC, STATISTIC_VERSION = "statistic", 6
"""Goes up when the same counts and policy give another verdict, be it in its words alone."""


def library_versions() -> dict[str, str]:
    """What a verdict is computed with."""
    libraries = {name: version(name) for name in ("ratchet", "numpy")}
    return {"python": platform.python_version(), STATISTIC: str(STATISTIC_VERSION), **libraries}


class ModelRef(Settings):
    """One version of a model, and the content hash of its files."""

    version: int = Field(ge=1, description="Version in the registry.")
    digest: str = Field(min_length=1, description="Content hash of the model's files.")


class Context(Settings):
    """What the verdict is about: names and fingerprints, no measurements."""

    model: str = Field(min_length=1, description="Registered model's name.")
    challenger: ModelRef = Field(description="Version that is judged.")
    champion: ModelRef | None = Field(None, description="Version in production; null: there is none yet.")
    anchor: ModelRef | None = Field(None, description="Best version ever in production.")
    gate_set: str = Field(min_length=1, description="Fingerprint of the gate set.")
    data: str | None = Field(None, description="Fingerprint of the challenger's training data.")
    code: str | None = Field(None, description="Commit of the code.")
    earlier_uses: int = Field(0, ge=0, description="Challengers judged on this gate set before.")
    versions: dict[str, str] = Field(default_factory=library_versions, description="Versions of what computed it.")


class Interval(Settings):
    """A paired-bootstrap interval of challenger - other model; an end is null where these images do not bound it."""

    estimate: float | None = Field(description="The difference as measured.")
    low: float | None = Field(description="Lower end at the one-sided confidence.")
    high: float | None = Field(description="Upper end at the one-sided confidence.")
    standard_error: float | None = Field(description="Spread of the resampled differences.")
    confidence: float = Field(description="One-sided confidence of each end.")
    line: float = Field(description="What the lower end must be above.")
    images: int = Field(description="Images that the difference rests on.")
    effective: float = Field(description="Kish's effective number of them.")
    images_needed: int | None = Field(
        description="Images that would prove the estimate; null: it is not above the line."
    )

    @property
    def low_told(self) -> str | None:
        """The lower end as people read it: never as more than it is."""
        return end_told(self.low, self.line, ROUND_FLOOR)

    @property
    def estimate_told(self) -> str | None:
        """The estimate as people read it."""
        return end_told(self.estimate, self.line, ROUND_HALF_EVEN)

    @property
    def high_told(self) -> str | None:
        """The upper end as people read it: never as less than it is."""
        return end_told(self.high, self.line, ROUND_CEILING)


class Check(Settings):
    """The outcome of one rule on one slice."""

    rule: Rule = Field(description="The rule.")
    slice: str = Field("all", description="What part of the gate set: all, class: …, size: …, <column>: ….")
    passed: bool = Field(description="Whether it lets the challenger through.")
    undecided: bool = Field(False, description="Not passed only because the images are too few to tell.")
    observed: float | None = Field(None, description="The figure that was judged; null: there is none.")
    required: str = Field(description="What was asked.")
    why: str = Field(description="The outcome in a sentence.")
    interval: Interval | None = Field(None, description="The figures behind it, when it is a comparison.")

    @property
    def state(self) -> Literal["passed", "undecided", "failed"]:
        """Passed, undecided or failed, in a word."""
        return "passed" if self.passed else "undecided" if self.undecided else "failed"


class ClassScore(Settings):
    """One class's score over the gate set, by both models; null where it has none."""

    name: str = Field(description="The foreground class.")
    challenger: float | None = Field(description="The challenger's score.")
    champion: float | None = Field(None, description="The champion's; null also when there is none.")


class Verdict(Settings):
    """The gate's decision, with all that is needed to understand it and, given the counts, to derive it again."""

    format: Literal[1] = Field(1, description="Goes up when a reader of the last one could not read this one.")
    outcome: Decision = Field(description="promote, reject or inconclusive.")
    context: Context = Field(description="What was judged.")
    policy: Policy = Field(description="The rules that were asked.")
    checks: tuple[Check, ...] = Field(description="The outcome of each rule on each slice.")
    challenger_score: float | None = Field(description="The challenger's score on the gate set.")
    champion_score: float | None = Field(description="The champion's, on the same images.")
    class_scores: tuple[ClassScore, ...] = Field(description="Both models' scores of each class.")
    interval: Interval | None = Field(description="Challenger - champion over the whole gate set.")
    smallest_detectable: float | None = Field(description="Smallest true difference found with the policy's power.")
    images_needed: int | None = Field(description="When inconclusive: images that would decide, if the estimate holds.")
    n_images: int = Field(ge=1, description="Images in the gate set.")
    metric_version: int = Field(description="Version of the counting and the metrics.")
    counts: dict[str, str] = Field(
        description="Content digests of the artifacts: challenger, champion, anchor, metadata."
    )
    evidence: Evidence = Field(description="What was measured besides the counts.")
    notes: tuple[str, ...] = Field(description="What a reader should know besides: first model, gate set worn out, ….")
    _text: str | None = PrivateAttr(
        None
    )  # that it was read from, where this Ratchet writes another, with more fields say

    @property
    def passed(self) -> bool:
        """Whether the challenger may be promoted."""
        return self.outcome == "promote"

    @property
    def model(self) -> str:
        """The registered model's name."""
        return self.context.model

    @property
    def challenger(self) -> ModelRef:
        """The version that was judged."""
        return self.context.challenger

    @property
    def champion(self) -> ModelRef | None:
        """The version that it was judged against."""
        return self.context.champion

    @property
    def gate_set(self) -> str:
        """Fingerprint of the gate set."""
        return self.context.gate_set

    @property
    def reason(self) -> str:
        """What decided it: the first failed check, or the gain."""
        decisive = [check for check in self.checks if not check.passed and not check.undecided]
        failed = decisive or [check for check in self.checks if not check.passed]
        if not failed:
            return self._gain()
        first, anchor = failed[0], self.context.anchor
        where = f"on {first.slice}, " if first.interval and first.slice != "all" else ""
        if first.rule == "anchor" and first.interval and anchor is not None and anchor != self.champion:
            where = f"against v{anchor.version}, the best that ever was in production, "
        return where + first.why + (f" ({len(failed) - 1} more)" if len(failed) > 1 else "")

    @property
    def sentence(self) -> str:
        """The decision and its reason, in a sentence."""
        return f"{self.outcome}: {self.model} v{self.challenger.version}: {self.reason}"

    def _gain(self) -> str:
        score = f"{self.policy.metric_title} {_figure(self.challenger_score)} on {self.n_images} images"
        if self.champion is None and self.context.anchor is not None and self.policy.anchor is not None:
            return f"{score}; production is empty, and v{self.context.anchor.version} was the best that ever was in it"
        if self.champion is None:
            return f"{score}; first model, there is no champion to beat"
        both = f"{score}, v{self.champion.version} has {_figure(self.champion_score)}"
        if self.interval is None:
            return f"{both}; the difference was not judged"
        return (
            f"{both}; the difference is {self.interval.estimate_told or 'unknown'}, and at least "
            f"{self.interval.low_told or 'unknown'} with {100 * self.interval.confidence:.4g} % confidence"
        )

    def to_json(self) -> str:
        """The canonical text: sorted keys, no spaces, shortest exact floats; its UTF-8 bytes are what is digested."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read a verdict. Raises VerdictChangedError when the text is no verdict, NewerVerdictError when this cannot read it."""
        try:
            verdict = cls.model_validate_json(text)
        except ValidationError as error:
            if all(fault["type"] in _LATER for fault in error.errors()):
                raise NewerVerdictError(
                    f"This verdict was written by a newer Ratchet, of which {_keys(error)} is not known here: update this one."
                ) from error
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"])
            raise VerdictChangedError(f"This is no verdict: {key or 'the text'}: {fault['msg']}.") from error
        if text != verdict.to_json():
            verdict._text = text
        return verdict

    @property
    def digest(self) -> str:
        """Sha-256, in hexadecimal, of the text that it was read from, or else of `to_json()`."""
        return hashlib.sha256((self._text or self.to_json()).encode()).hexdigest()


def _keys(error: ValidationError) -> str:
    return ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())


def schema() -> str:
    """The JSON Schema of a verdict, as docs/verdict.schema.json holds it."""
    return json.dumps(Verdict.model_json_schema(mode="serialization"), indent=2, sort_keys=True) + "\n"


def end_told(value: float | None, line: float, rounding: str) -> str | None:
    """The value in four digits, or in as many more as show on which side of the line it is; `rounding` is one of decimal's."""
    if value is None:
        return None
    exact, bound = Decimal(str(value)), Decimal(str(line))
    for digits in count(4):
        shown = exact.quantize(Decimal(1).scaleb(-digits), rounding)
        if shown.compare(bound) == exact.compare(bound):
            break
    return f"{shown:+f}"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
