"""What a flow run keeps with Prefect for when it is taken up again: its plan, what came of it, and its images' names."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import cast

import yaml
from prefect.input.actions import create_flow_run_input, delete_flow_run_input, read_flow_run_input
from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import ConfigError
from ratchet.planning import Plan
from ratchet.registry import BestRun
from ratchet.training.results import SweepOutcome

_PLAN, _CHOICE, _IMAGES = "ratchet-plan", "ratchet-choice", "ratchet-images"
_SPENT = "ratchet-spent"
_PART = 500_000  # characters in one request: many a proxy takes no more than 1 MB


class Chosen(BaseModel):
    """What became of the trials, and which one was chosen."""

    model_config = ConfigDict(frozen=True)

    sweep: SweepOutcome
    best: BestRun


def keep_plan(plan: Plan, choice: Chosen) -> None:
    """Keep the plan of this flow run, and what came of it.

    Data and settings may be others then, and a sweep that its budget ended could train on, and choose what nobody was asked
    about.
    """
    if kept_plan() is None:
        _keep(_PLAN, plan.model_copy(update={"sweep": plan.sweep.unforced()}).to_yaml())
    if kept_choice() is None:  # the second: without its plan it would be taken for what became of another
        _keep(_CHOICE, yaml.safe_dump(choice.model_dump(mode="json"), sort_keys=False))


def kept_plan() -> Plan | None:
    """Return the plan that this flow run has kept."""
    text = _kept(_PLAN)
    with _of_this_version():
        return None if text is None else Plan.from_yaml(text)


def kept_choice() -> Chosen | None:
    """Return what this flow run has kept of its trials."""
    text = _kept(_CHOICE)
    with _of_this_version():
        return None if text is None else Chosen.model_validate(yaml.safe_load(text))


@contextmanager
def _of_this_version() -> Iterator[None]:
    """Say of what another Ratchet has kept that it is that."""
    try:
        yield
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            f"this run began under another version of Ratchet, and this worker's cannot read what it has kept ({key}). Retry it "
            "on its page when a worker of that version is there: an answer is kept. Or start a new run: what is trained is "
            "reused, and it asks again"
        ) from error


def keep_images(names: Collection[str] | None) -> None:
    """Keep the names of the images that this flow run trains and judges on."""
    _keep(_IMAGES, json.dumps(None if names is None else sorted(names)))


def kept_images() -> frozenset[str] | None:
    """Return the names that this flow run has kept."""
    text = _kept(_IMAGES)
    names = None if text is None else json.loads(text)
    return None if names is None else frozenset(names)


def keep_spent(seconds: float) -> None:
    """Keep how long the sweep of this flow run has been at work."""
    if read_flow_run_input(_SPENT) is not None:
        delete_flow_run_input(_SPENT)
    create_flow_run_input(_SPENT, seconds)


def kept_spent() -> float:
    """Return the seconds that this flow run has kept; zero where it has not been at work."""
    return float(cast("float | None", read_flow_run_input(_SPENT)) or 0.0)


def _keep(key: str, text: str) -> None:
    """Write a text in parts, and the number of those last: it is there only when all of them are."""
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    starts = range(0, len(packed), _PART)
    for number, start in enumerate(starts):
        part = f"{key}-{number}"
        if read_flow_run_input(part) is not None:  # this run was interrupted while it wrote them
            delete_flow_run_input(part)
        create_flow_run_input(part, packed[start : start + _PART])
    create_flow_run_input(key, len(starts))


def _kept(key: str) -> str | None:
    parts = cast("int | str | None", read_flow_run_input(key))
    is_plain = isinstance(parts, str) and key != _IMAGES  # a plan of before there were parts
    if parts is None or is_plain:
        return cast("str | None", parts)
    kept = [parts] if isinstance(parts, str) else [read_flow_run_input(f"{key}-{number}") for number in range(parts)]
    packed = "".join(cast("list[str]", kept))
    return zlib.decompress(base64.b64decode(packed)).decode()
