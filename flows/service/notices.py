"""Notices: which events are told to whom, by Prefect's notification and webhook blocks. Declared in notices.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from flows.service.deployments import TAG
from ratchet.errors import ConfigError
from ratchet.settings import Settings
from tasks.events import EVENTS

NOTICES_FILE = "notices.yaml"
_WEBHOOK = "webhook"


def _announced(event: str) -> str:
    if not any(fnmatchcase(name, event) for name in EVENTS):
        near = ", ".join(difflib.get_close_matches(event, EVENTS, n=2, cutoff=0.8))
        raise ValueError(
            f"nothing of that name is announced of a model{near and f'; nearest: {near}'}. Known are {', '.join(EVENTS)}. Of "
            "other events tells an automation of your own: docs/events.md"
        )
    return event


class Notice(Settings):
    """One notice. `subject` and `body` are Jinja templates over the `event`, whose `payload` docs/events.md lists."""

    name: str = Field(min_length=1, description="What the automation is called.")
    enabled: bool = Field(False, description="Whether anybody is told.")
    block: str = Field(pattern=r"^[\w-]+/[\w-]+$", description="The block that tells: its type's slug, and its name.")
    events: tuple[Annotated[str, AfterValidator(_announced)], ...] = Field(
        min_length=1, description="The events that are told."
    )
    models: tuple[str, ...] = Field((), description="Only of these models; none: of all.")
    subject: str = Field("Ratchet", description="Subject, where the block has one.")
    body: str = Field(min_length=1, description="What is told; for a webhook, the body of the request.")


def load_notices(path: Path) -> tuple[Notice, ...]:
    """The notices of a file, none where there is no file. Raises `ConfigError`, naming the key."""
    if not path.is_file():
        return ()
    try:
        return TypeAdapter(tuple[Notice, ...]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or ())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problems = (f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ConfigError("\n".join(problems)) from error


def with_mute_off(notices: Sequence[Notice], client: SyncPrefectClient) -> tuple[list[Notice], list[Notice]]:
    """The notices that are on and whose block does not exist, which tell nobody; and all of them, with those switched off."""
    found = []
    for notice in notices:
        if notice.enabled:
            try:
                _block(notice, client)
            except ConfigError:
                found.append(notice)
    return found, [notice.model_copy(update={"enabled": notice.enabled and notice not in found}) for notice in notices]


def notice_automations(notices: Sequence[Notice], client: SyncPrefectClient) -> list[AutomationCore]:
    """An automation for each notice that is on. Raises `ConfigError` where its block does not exist."""
    return [_automation(notice, _block(notice, client)) for notice in notices if notice.enabled]


def _block(notice: Notice, client: SyncPrefectClient) -> UUID:
    kind, name = notice.block.split("/")
    try:
        return client.read_block_document_by_name(name, kind).id
    except ObjectNotFound as error:
        raise ConfigError(
            f"the notice {notice.name!r} is on, but there is no block {notice.block}: make it in Prefect under Blocks, or "
            "set enabled: false"
        ) from error


def _automation(notice: Notice, block: UUID) -> AutomationCore:
    action = (
        CallWebhook(block_document_id=block, payload=notice.body)
        if notice.block.startswith(f"{_WEBHOOK}/")
        else SendNotification(block_document_id=block, subject=notice.subject, body=notice.body)
    )
    return AutomationCore(
        name=notice.name,
        description=f"Tells by the block {notice.block}.",
        tags=[TAG],
        trigger=EventTrigger(
            posture=Posture.Reactive,
            expect=set(notice.events),
            match={"prefect.resource.id": [f"ratchet.model.{model}" for model in notice.models] or "ratchet.model.*"},
            threshold=1,
        ),
        actions=[action],
    )
