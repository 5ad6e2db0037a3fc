"""The automations that `ratchet deploy` makes: event chains, and the detection and restart of runs that died."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.deployments import RESTARTS, TAG, ZOMBIE_SECONDS, Deployment, full_name

_LONGEST_RUN = timedelta(days=7)
_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{RESTARTS}"}


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
                    tags=deployment["tags"],
                    trigger=EventTrigger.model_validate(trigger),
                    actions=[RunDeployment(deployment_id=ids[full_name(deployment)])],
                    owner_resource=f"prefect.deployment.{ids[full_name(deployment)]}",
                )
            )
    return made


def recovery_automations(*, silence: float = ZOMBIE_SECONDS) -> list[AutomationCore]:
    """Two automations for runs that died: one whose worker died too, after `silence` seconds, and one that crashed.

    Both only see runs that have begun to beat, and so have begun: a flow that cannot even be loaded is not repeated.
    """
    again = ChangeFlowRunState(
        state=StateType.SCHEDULED, name="AwaitingRetry", message="Taken up again after a crash; finished steps are kept."
    )
    return [
        AutomationCore(
            name="ratchet: restart runs that fell silent",
            description=f"No heartbeat for {silence:g} s: worker and process are gone. The run goes on where it was.",
            tags=[TAG],
            trigger=EventTrigger(
                posture=Posture.Proactive,
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=_OURS,
                for_each={"prefect.resource.id"},
                threshold=1,
                within=timedelta(seconds=silence),
            ),
            actions=[again],
        ),
        AutomationCore(
            name="ratchet: restart runs that crashed",
            description="Its process ended, and the worker said so. The run goes on where it was.",
            tags=[TAG],
            trigger=EventTrigger(
                posture=Posture.Reactive,
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.Crashed"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=_OURS,
                for_each={"prefect.resource.id"},
                threshold=1,
                within=_LONGEST_RUN,  # counted from the first heartbeat: the later ones do not renew it
            ),
            actions=[again],
        ),
    ]
