"""What a flow run's page says of itself: its name, its tags, its address, and errors in a sentence."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Collection
from typing import cast
from uuid import UUID

import yaml
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.input.actions import create_flow_run_input, delete_flow_run_input, read_flow_run_input
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL
from pydantic import BaseModel, ConfigDict

from ratchet import report as pages
from ratchet.errors import RatchetError
from ratchet.outcome import Outcome
from ratchet.registry import BestRun
from ratchet.registry.pages import without_password
from ratchet.retraining import FlowRun, Plan
from ratchet.training.results import SweepOutcome

_PLAN, _CHOICE, _IMAGES = "ratchet-plan", "ratchet-choice", "ratchet-images"
_PART = 500_000  # characters in one request: many a proxy takes no more than 1 MB


class Choice(BaseModel):
    """What became of the trials, and which one was chosen."""

    model_config = ConfigDict(frozen=True)

    sweep: SweepOutcome
    best: BestRun


def this_flow_run() -> FlowRun:
    """Return the flow run that this is called in. On an embedded server, which has no pages, the page is its id."""
    address, own = _pages_address(), str(flow_run.id)
    return FlowRun(id=own, page=f"{address}/runs/flow-run/{own}" if address else own)


def _pages_address() -> str:
    """Where Prefect's pages are, which it takes from its API's address; empty on an embedded server."""
    return without_password(PREFECT_UI_URL.value() or "")


def first_name() -> str:
    """Return what a flow run is called until its plan says more."""
    return str(flow_run.parameters.get("model") or "retrain")


def describe_run(name: str, **tags: str) -> None:
    """Name the flow run, and give it the tags `key:value` in place of those that it had of these keys."""
    with get_client(sync_client=True) as client:
        kept = [tag for tag in client.read_flow_run(flow_run.id).tags if tag.partition(":")[0] not in tags]
        client.update_flow_run(flow_run.id, name=name, tags=[*kept, *(f"{key}:{value}" for key, value in tags.items())])


def write_page(outcome: Outcome) -> None:
    """Keep the report as an artifact of the flow run; a retraining that was skipped has none, so that the last one stays."""
    if outcome.status != "skipped":
        key = artifact_key("retrain", outcome.model)
        create_markdown_artifact(pages.markdown(outcome), key=key, description=pages.headline(outcome))


def artifact_key(kind: str, model: str) -> str:
    """Name an artifact of this model and no other: small letters, digits and dashes are all that Prefect takes."""
    plain = re.sub(r"[^a-z0-9]", "-", model.lower())
    mark = "" if plain.replace("-", "_") == model else f"-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return f"{kind}-{plain}{mark}"


def own_report(model: str) -> str | None:
    """The page of the report that this flow run has written, if it could; what has its key may be another run's."""
    written = ArtifactFilter(
        key=ArtifactFilterKey(any_=[artifact_key("retrain", model)]),
        flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run.id)]),
    )
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=written, sort=ArtifactSort.CREATED_DESC, limit=1)
    return f"{_pages_address()}/artifacts/artifact/{found[0].id}" if found else None


def keep_plan(plan: Plan, choice: Choice) -> None:
    """Keep the plan of this flow run, and what came of it, with Prefect, for when it is taken up again.

    Data and settings may be others then, and a sweep that its budget ended could train on, and choose what nobody was asked
    about.
    """
    if kept_plan() is None:
        create_flow_run_input(_PLAN, plan.model_copy(update={"sweep": plan.sweep.unforced()}).to_yaml())
    if kept_choice() is None:  # the second: without its plan it would be taken for what became of another
        create_flow_run_input(_CHOICE, yaml.safe_dump(choice.model_dump(mode="json"), sort_keys=False))


def keep_images(names: Collection[str] | None) -> None:
    """Keep the names of the images that this flow run trains and judges on, for when it is taken up again.

    They are written in parts, and the number of those last: it is there only when all of them are.
    """
    packed = zlib.compress(json.dumps(None if names is None else sorted(names)).encode())
    text = base64.b64encode(packed).decode()
    starts = range(0, len(text), _PART)
    for number, start in enumerate(starts):
        key = _part(number)
        if read_flow_run_input(key) is not None:  # this run was interrupted while it wrote them
            delete_flow_run_input(key)
        create_flow_run_input(key, text[start : start + _PART])
    create_flow_run_input(_IMAGES, len(starts))


def kept_images() -> frozenset[str] | None:
    """Return the names that this flow run has kept."""
    kept = cast("int | str | None", read_flow_run_input(_IMAGES))
    if kept is None:
        return None
    # Before there were parts, all was in one value.
    parts = [kept] if isinstance(kept, str) else [cast("str", read_flow_run_input(_part(n))) for n in range(kept)]
    names = json.loads(zlib.decompress(base64.b64decode("".join(parts))))
    return None if names is None else frozenset(names)


def _part(number: int) -> str:
    return f"{_IMAGES}-{number}"


def kept_plan() -> Plan | None:
    """Return the plan that this flow run has kept."""
    text = cast("str | None", read_flow_run_input(_PLAN))
    return None if text is None else Plan.from_yaml(text)


def kept_choice() -> Choice | None:
    """Return what this flow run has kept of its trials."""
    text = cast("str | None", read_flow_run_input(_CHOICE))
    return None if text is None else Choice.model_validate(yaml.safe_load(text))


def tell_errors_in_sentences() -> None:
    """Leave the traces of our own errors out of the logs: what is wrong is in the message. A defect keeps its trace."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        logger.removeFilter(_without_trace)
        logger.addFilter(_without_trace)


def _without_trace(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], RatchetError):
        record.exc_info = None
    return True
