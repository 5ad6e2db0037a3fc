"""The watching flow: did a model's data change since somebody looked last?"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.approval import end_questions
from tasks.runs import begin_run
from tasks.step import warned_of
from tasks.watching import watch_data


@flow(name="watch", flow_run_name="{model}: watch")
def watch(model: str, overrides: list[str], settle_minutes: float = 10) -> State[Any]:
    """Look at a model's data; a change that has settled is announced as the event `ratchet.data.changed`.

    Questions whose time has ended are ended on this occasion.

    Args:
        model: The registered model's name.
        overrides: Hydra overrides that name the data set, as for retraining.
        settle_minutes: The files must stay the same for so long to count as changed.
    """
    begin_run()
    with warned_of("questions whose time has ended were not looked for"):
        end_questions()
    found = watch_data(model, overrides, settle_minutes)
    if not found.signature:
        return Completed(name="no data yet", message=f"{model} makes its data when it is first trained", data=found)
    if found.previous is not None:
        told = [f"the data of {model} changed: {found.fingerprint}", found.note]
        return Completed(name="changed", message="; ".join(filter(None, told)), data=found)
    return Completed(name="unchanged" if found.settled else "settling", message=found.note, data=found)
