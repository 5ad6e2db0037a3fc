"""The automations that `ratchet deploy` makes: event chains, and the detection and restart of runs that died."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture

from flows.service.changes import SWITCHED_OFF, Change, compared
from flows.service.deployments import RESTARTS, TAG, ZOMBIE_SECONDS, Deployment, full_name

_PAGE = 200
_LONGEST_RUN = timedelta(days=7)
_LONGEST_START = timedelta(minutes=10)
_OFF = "off"  # the tag of those that a model file switches off: without it, somebody did on the page


def chain_automations(deployments: Sequence[Deployment], ids: Mapping[str, UUID]) -> list[AutomationCore]:
    """An automation for each trigger of the deployments; `ids` are the deployments' own by their full names.

    The deployment owns it, as with `prefect deploy`, which so replaces it instead of adding a second one.
    """
    made = []
    for deployment in deployments:
        for trigger in deployment.get("triggers", ()):
            made.append(
                AutomationCore(
                    name=trigger["name"],
                    description=trigger["description"],
                    enabled=trigger["enabled"],
                    tags=[*deployment["tags"], *([] if trigger["enabled"] else [_OFF])],
                    trigger=EventTrigger.model_validate(trigger),
                    actions=[RunDeployment(deployment_id=ids[full_name(deployment)])],
                    owner_resource=f"prefect.deployment.{ids[full_name(deployment)]}",
                )
            )
    return made


def recovery_automations(*, silence: float = ZOMBIE_SECONDS) -> list[AutomationCore]:
    """What happens to runs that died: silent ones are Crashed, crashed ones are scheduled again, and so are stuck ones.

    A silent run becomes Crashed first, because Prefect lets nothing that has ended become that: the first heartbeat of a
    short run often arrives after its end, and would otherwise start it again. Only what has begun to beat is restarted, so
    a flow that cannot be loaded is not; `begin_run` counts how often.
    """
    again = ChangeFlowRunState(
        state=StateType.SCHEDULED,
        name="AwaitingRetry",
        message="Taken up again after a crash; finished steps are kept.",
    )
    crashed = ChangeFlowRunState(
        state=StateType.CRASHED, message=f"No heartbeat for {silence:g} s: its process and worker are gone."
    )
    return [
        _recovery(
            "crash runs that fell silent",
            "Worker and process were killed together, so nobody was left to say so.",
            Posture.Proactive,
            after=["Running", "heartbeat"],  # it may die before its first heartbeat
            expect=["*"],
            within=timedelta(seconds=silence),
            action=crashed,
            tag=TAG,  # also those that are not taken up again: nobody else would end them, and give their slot back
        ),
        _recovery(
            "restart runs that crashed",
            "The run goes on where it was: every step keeps what it finished.",
            Posture.Reactive,
            after=["Running", "heartbeat"],
            expect=["Crashed"],
            within=_LONGEST_RUN,  # counted from the first of them: the later ones do not renew it
            action=again,
        ),
        _recovery(
            "restart runs that never began",
            "A worker took the run, and died before it began.",
            Posture.Proactive,
            after=["Pending"],
            expect=["heartbeat", *_AFTER_PENDING],
            within=_LONGEST_START,
            action=again,
        ),
    ]


_AFTER_PENDING = ("Running", "Completed", "Failed", "Crashed", "Cancel*", "Scheduled", "Awaiting*", "Late", "Paused")


def _recovery(
    name: str,
    description: str,
    posture: Posture,
    *,
    after: Sequence[str],
    expect: Sequence[str],
    within: timedelta,
    action: ChangeFlowRunState,
    tag: str = RESTARTS,
) -> AutomationCore:
    return AutomationCore(
        name=f"ratchet: {name}",
        description=description,
        tags=[TAG],
        trigger=EventTrigger(
            posture=posture,  # declared as two literals
            after={f"prefect.flow-run.{event}" for event in after},
            expect={f"prefect.flow-run.{event}" for event in expect},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=within,
        ),
        actions=[action],
    )


def automate(
    client: SyncPrefectClient,
    wanted: Sequence[AutomationCore],
    *,
    unwanted: Collection[str] = (),
    prune: bool,
    dry_run: bool,
) -> list[Change]:
    """Bring the server's automations to what is wanted, and remove the unwanted; others of ours go with `prune`, or are told."""
    names = {automation.name for automation in wanted}  # those that `prefect deploy` made carry no tag
    there: dict[str, list[Automation]] = {}
    for found in _automations(client):
        if TAG in found.tags or found.name in names:
            there.setdefault(found.name, []).append(found)
    changes = []
    for automation in wanted:
        present = there.pop(automation.name, [])
        tags = present[0].tags if present and not present[0].enabled else []
        if automation.enabled and TAG in tags and _OFF not in tags:  # without ours, Prefect's own command made it
            automation = automation.model_copy(update={"enabled": False})  # noqa: PLW2901
            changes.append(Change("automation", automation.name, "off", SWITCHED_OFF))
        shapes = [_plain(AutomationCore.model_validate(found.model_dump())) for found in present]
        change = compared("automation", automation.name, _plain(automation), shapes[0] if shapes else None)
        if len(present) > 1:  # each of them would act
            change = Change("automation", automation.name, "updated", ("was there twice",))
        changes.append(change)
        if not dry_run and change.action != "unchanged":
            for found in present:  # Prefect's client cannot replace one: it leaves out the actions' types
                client.delete_automation(found.id)
            client.create_automation(automation)
    for name, superfluous in there.items():
        goes = prune or name in unwanted
        changes.append(Change("automation", name, "removed" if goes else "left"))
        for found in superfluous if goes and not dry_run else ():
            client.delete_automation(found.id)
    return changes


def _automations(client: SyncPrefectClient) -> Iterator[Automation]:
    for start in count(0, _PAGE):
        yield from (page := client.read_automations(limit=_PAGE, offset=start))
        if len(page) < _PAGE:
            return


def _plain(automation: AutomationCore) -> dict[str, Any]:
    """The automation as values that can be compared: sets come back in any order."""
    trigger = automation.trigger.model_dump(mode="json", exclude={"id"})
    ordered = {
        key: sorted(value) if key in {"after", "expect", "for_each"} else value for key, value in trigger.items()
    }
    shown = automation.model_dump(mode="json", exclude={"owner_resource"})  # the server does not tell the owner
    return shown | {"trigger": ordered, "tags": sorted(automation.tags)}
