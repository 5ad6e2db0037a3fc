"""The page of a flow run: its address, its name and tags, its report, and errors in a sentence."""

from __future__ import annotations

import hashlib
import logging
import re
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from ratchet import report as pages
from ratchet.errors import RatchetError
from ratchet.outcome import Outcome
from ratchet.planning import FlowRun
from ratchet.registry.pages import without_password


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
