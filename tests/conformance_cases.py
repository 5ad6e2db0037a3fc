"""The cases of the gate's conformance table: what a case is, and the models that they are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet.errors import GateError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import (
    Context,
    ModelRef,
    load_policy,
)

Arguments = dict[str, Any]
TRUTH = 6_000


@dataclass(frozen=True)
class Case:
    """One situation: what the gate is given, and what it must answer (an outcome, or an error) for which reason."""

    name: str
    arguments: Callable[[], Arguments]
    expected: str | type[GateError]
    reason: str


CASES: list[Case] = []


def case(expected: str | type[GateError], reason: str) -> Callable[[Callable[[], Arguments]], Callable[[], Arguments]]:
    def add(build: Callable[[], Arguments]) -> Callable[[], Arguments]:
        CASES.append(Case(build.__name__.replace("_", " "), build, expected, reason))
        return build

    return add


def model(quality: float, seed: int, images: int = 200, classes: tuple[str, ...] = ("cat", "dog")) -> ImageCounts:
    """A model of this mean IoU; images are as hard for one model as for another."""
    shape = (images, len(classes))
    hard, own = (np.random.default_rng(s).normal(size=shape) for s in (0, seed))
    iou = np.clip(quality + 0.15 * (np.sqrt(0.85) * hard + np.sqrt(0.15) * own), 0, 1)
    tp = (iou * TRUTH).astype(np.int64)
    return ImageCounts(tuple(f"{i:04}.png" for i in range(images)), classes, tp, np.zeros_like(tp), TRUTH - tp)


def given(
    challenger: ImageCounts, champion: ImageCounts | None, policy: dict[str, Any] | None = None, **rest: Any
) -> Arguments:
    """Arguments of `judge`: what the default policy asks of the scores, with fewer resamples, and what `policy` adds."""
    context: dict[str, Any] = {"model": "pets", "gate_set": "g", "challenger": ModelRef(version=2, digest="b")}
    context["champion"] = None if champion is None else ModelRef(version=1, digest="a")
    scores_only = {"leak": False, "serves": None, "budget": None, "resamples": 2_000}
    values = load_policy("default").model_dump() | scores_only | (policy or {})
    return {
        "policy": load_policy(values),
        "challenger": challenger,
        "champion": champion,
        "context": Context.model_validate(context | rest.pop("context", {})),
        **rest,
    }


def better(policy: dict[str, Any] | None = None, **rest: Any) -> Arguments:
    """A challenger that is clearly better, so that only what the case adds can stop it."""
    return given(model(0.76, 1), model(0.70, 2), policy, **rest)


def edit(counts: ImageCounts, **changes: Any) -> ImageCounts:
    return dataclasses.replace(counts, **changes)
