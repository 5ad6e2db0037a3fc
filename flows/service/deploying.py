"""Brings a Prefect server to what the model files say: pool, limits, deployments, automations. Twice is as once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.service.automations import automate, chain_automations, recovery_automations
from flows.service.changes import SWITCHED_OFF, Change, compared
from flows.service.deployments import (
    BESIDE,
    LONG,
    POOL,
    RUNS,
    TAG,
    ZOMBIE_SECONDS,
    Deployment,
    all_deployments,
    full_name,
    limit_name,
)
from flows.service.models import ModelFile, load_models
from flows.service.notices import NOTICES_FILE, Notice, load_notices, notice_automations

_PAGE = 200


@dataclass(frozen=True)
class Declaration:
    """All that is declared: the model files, and the notices beside their folder."""

    models: Sequence[ModelFile] = ()
    notices: Sequence[Notice] = ()


def load_declaration(folder: Path | None) -> Declaration:
    """Read a folder of model files, and `notices.yaml` beside it; nothing is declared where there is none.

    Raises `ConfigError`, naming the file and the key.
    """
    if folder is None:
        return Declaration()
    return Declaration(load_models(folder), load_notices(folder.parent / NOTICES_FILE))


def deploy(
    declared: Declaration,
    client: SyncPrefectClient,
    *,
    prune: bool = False,
    silence: float = ZOMBIE_SECONDS,
    dry_run: bool = False,
) -> list[Change]:
    """Make everything as it is declared; what is so already is left alone.

    What somebody paused or switched off on Prefect's page stays so, and is told (`off`).

    Deployments and automations of models that have no file any more are removed with `prune`, else only reported (`left`):
    another folder of model files may be deployed to the same server. With `dry_run` nothing is changed.
    """
    models, wanted = declared.models, all_deployments(declared.models)
    automations = [*recovery_automations(silence=silence), *notice_automations(declared.notices, client)]
    there = dict(_existing(client))
    names = {full_name(deployment) for deployment in wanted}
    gone = sorted(name for name in there if name not in names)
    if prune and not dry_run:
        _remove(client, [there.pop(name) for name in gone])
    changes = [Change("deployment", name, "removed" if prune else "left") for name in gone]
    changes += [_pool(client, dry_run=dry_run), _queue(client, dry_run=dry_run)]
    changes += [_limit(client, limit_name(model.name), dry_run=dry_run) for model in models]
    entrypoints = {deployment["entrypoint"] for deployment in wanted}
    flows: dict[str, Flow[..., Any]] = {entrypoint: load_flow_from_entrypoint(entrypoint) for entrypoint in entrypoints}
    ids: dict[str, UUID] = {name: found.id for name, found in there.items()}
    for deployment in wanted:
        name, shape = full_name(deployment), _shape(deployment, flows[deployment["entrypoint"]])
        found = there.get(name)
        if found is not None and (found.paused or _switched_off(shape, found)):
            changes.append(Change("schedule", name, "off", SWITCHED_OFF))
        if found is not None and _switched_off(shape, found):
            shape["schedules"] = [item | {"active": False} for item in shape["schedules"]]
        change = compared("deployment", name, shape, _shape_of(found) if found is not None else None)
        changes.append(change)
        if dry_run:
            ids.setdefault(name, UUID(int=0))  # not there yet; nothing is written with it
        elif change.action != "unchanged":
            ids[name] = _write(client, deployment, shape)
    off = {notice.name for notice in declared.notices if not notice.enabled}
    return changes + automate(
        client, [*chain_automations(wanted, ids), *automations], unwanted=off, prune=prune, dry_run=dry_run
    )


def _existing(client: SyncPrefectClient) -> Iterator[tuple[str, DeploymentResponse]]:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    names: dict[UUID, str] = {}
    for start in count(0, _PAGE):
        # In an order without ties: several have one name, and a page must not begin among these.
        order = DeploymentSort.CREATED_DESC
        page = client.read_deployments(deployment_filter=ours, limit=_PAGE, offset=start, sort=order)
        for found in page:
            flow = names.get(found.flow_id) or names.setdefault(found.flow_id, client.read_flow(found.flow_id).name)
            yield f"{flow}/{found.name}", found
        if len(page) < _PAGE:
            return


def _remove(client: SyncPrefectClient, deployments: Sequence[DeploymentResponse]) -> None:
    """Remove deployments, and the limits of theirs that no run holds.

    A run that holds a slot of a limit that is gone cannot end, and the server removes a deployment's limit with it.
    """
    for found in deployments:
        place, apart = {"id": str(found.id)}, {"global_concurrency_limit_id": None}
        client.request("PATCH", "/deployments/{id}", path_params=place, json=apart).raise_for_status()
        client.delete_deployment(found.id)
    for name in {found.global_concurrency_limit.name for found in deployments if found.global_concurrency_limit}:
        with suppress(ObjectNotFound):
            if not client.read_global_concurrency_limit_by_name(name).active_slots:
                client.delete_global_concurrency_limit_by_name(name)


def _pool(client: SyncPrefectClient, *, dry_run: bool) -> Change:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        if not dry_run:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(
                WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=RUNS + BESIDE)
            )
        return Change("work pool", POOL, "created")
    return Change("work pool", POOL, "unchanged")


def _queue(client: SyncPrefectClient, *, dry_run: bool) -> Change:
    """Make the queue of long runs, with a limit: without one it is there where Prefect's own command deployed."""
    try:
        found = client.read_work_queue_by_name(LONG, POOL)
    except ObjectNotFound:
        if not dry_run:
            client.create_work_queue(LONG, concurrency_limit=RUNS, work_pool_name=POOL)
        return Change("work queue", LONG, "created")
    if found.concurrency_limit is not None:
        return Change("work queue", LONG, "unchanged")
    if not dry_run:
        client.update_work_queue(found.id, concurrency_limit=RUNS)
    return Change("work queue", LONG, "updated", ("limit",))


def _limit(client: SyncPrefectClient, name: str, *, dry_run: bool) -> Change:
    try:
        found = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        if not dry_run:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        return Change("limit", name, "created")
    if found.limit == 1 and found.active:
        return Change("limit", name, "unchanged")
    if not dry_run:
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=1, active=True))
    return Change("limit", name, "updated", ("limit",))


def _shape(deployment: Deployment, flow: Flow[..., Any]) -> dict[str, Any]:
    """What the server should show of a deployment; the fields are those of its answer."""
    limit = deployment["concurrency_limit"]
    return {
        "name": deployment["name"],
        "entrypoint": deployment["entrypoint"],
        "description": deployment["description"],
        "tags": sorted(deployment["tags"]),
        "parameters": deployment["parameters"],
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
        "enforce_parameter_schema": True,
        "work_pool_name": deployment["work_pool"]["name"],
        "work_queue_name": deployment["work_pool"]["work_queue_name"],
        "job_variables": deployment["work_pool"]["job_variables"],
        "schedules": [
            {
                "schedule": {"cron": item["cron"], "timezone": item["timezone"]},
                "slug": item["slug"],
                "active": item["active"],
            }
            for item in deployment.get("schedules", ())
        ],
        "concurrency_options": {"collision_strategy": limit["collision_strategy"]},
        "limit": (limit.get("shared", "its own"), limit["limit"]),
    }


def _switched_off(shape: Mapping[str, Any], found: DeploymentResponse) -> bool:
    """Whether somebody switched the schedule off on the page; what a model file switches off has another slug."""
    off = {item.slug for item in found.schedules if not item.active}
    return any(item["active"] and item["slug"] in off for item in shape["schedules"])


def _shape_of(found: DeploymentResponse) -> dict[str, Any]:
    limit = found.global_concurrency_limit
    shape = found.model_dump(mode="json", include=_SHOWN)
    return shape | {
        "tags": sorted(found.tags),
        "schedules": [
            {
                "schedule": item.schedule.model_dump(mode="json", include={"cron", "timezone"}),
                "slug": item.slug,
                "active": item.active,
            }
            for item in found.schedules
        ],
        "concurrency_options": found.concurrency_options
        and {"collision_strategy": found.concurrency_options.collision_strategy.value},
        "limit": limit and ("its own" if limit.name == f"deployment:{found.id}" else limit.name, limit.limit),
    }


_SHOWN = {
    "name",
    "entrypoint",
    "description",
    "parameters",
    "parameter_openapi_schema",
    "enforce_parameter_schema",
    "work_pool_name",
    "work_queue_name",
    "job_variables",
}


def _write(client: SyncPrefectClient, deployment: Deployment, shape: Mapping[str, Any]) -> UUID:
    """Create or replace a deployment. Prefect's client knows no shared limits, its server does."""
    body = {key: value for key, value in shape.items() if key != "limit"}
    shared, limit = shape["limit"]
    if shared == "its own":
        body["concurrency_limit"] = limit
    else:
        body["global_concurrency_limit_id"] = str(client.read_global_concurrency_limit_by_name(shared).id)
    body["flow_id"] = str(client.create_flow_from_name(full_name(deployment).split("/")[0]))
    response = client.request("POST", "/deployments/", json=body)
    response.raise_for_status()
    return UUID(response.json()["id"])
