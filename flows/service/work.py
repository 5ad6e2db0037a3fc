"""What `ratchet up` does once the servers answer: deploys, takes up what an earlier one left, and starts the worker."""

from __future__ import annotations

import os
import socket
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import emit_event
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.service import servers
from flows.service.changes import Change
from flows.service.check import check_models
from flows.service.deploying import Declaration, deploy
from flows.service.deployments import BESIDE, LONG, POOL, RESTARTS, TAG
from flows.service.journal import Journal
from flows.service.notices import with_mute_off
from flows.service.processes import Processes
from tasks.approval import end_questions
from tasks.runs import WITH_ALL, cancel_missed, missed_runs, read_all_runs

if TYPE_CHECKING:
    from flows.service.up import Options


def bring_to_work(
    options: Options, declared: Declaration, processes: Processes, journal: Journal, *, alone: bool, died: bool
) -> None:
    """Deploy the models, and start a worker. `alone`: no worker on another machine can be at work on this server.

    `died`: the `ratchet up` before was ended by nobody.
    """
    check_models(declared.models)
    with get_client(sync_client=True) as client:
        # Without its block a notice tells nobody; all the rest goes on, and the block can be made.
        mute, told = with_mute_off(declared.notices, client)
        for notice in mute:
            journal.say(
                f"the notice {notice.name!r} is off: there is no block {notice.block}; see ratchet deploy", "yellow"
            )
        journal.say(summary(deploy(replace(declared, notices=told), client)))
        if not declared.models:
            journal.say("no deployments: there is no model file; see --models, and ratchet doctor")
        if alone:
            for name in take_up(client, died=died):
                journal.say(f"{name} was interrupted, and goes on")
            if missed := skip_missed(client):
                journal.say(f"{missed} scheduled runs were missed: of each deployment, the last one starts now")
        else:
            ask_for_life(client)
        for name in end_questions():
            journal.say(f"the question of {name} went unanswered, and ends as refused")
        name = f"{socket.gethostname()}-{os.getpid()}"
        limit_runs(client, options.runs)
        servers.start_worker(processes, name)
        processes.wait_for("worker", lambda: name in online(client), seconds=servers.SECONDS_TO_START)


def limit_runs(client: SyncPrefectClient, runs: int) -> None:
    """Let so many long runs go on at a time, and leave room beside them for what a person waits for."""
    client.update_work_queue(client.read_work_queue_by_name(LONG, POOL).id, concurrency_limit=runs)
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=runs + BESIDE))


def online(client: SyncPrefectClient) -> list[str]:
    """The names of the pool's workers that are alive."""
    alive = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    return [worker.name for worker in client.read_workers_for_work_pool(POOL, worker_filter=alive)]


def take_up(client: SyncPrefectClient, *, died: bool = False) -> list[str]:
    """Schedule the pool's unfinished runs again: their worker is gone. Returns their names.

    Where all `died` with it, that counts as a crash of theirs: they may be what the memory did not suffice for.

    A run that must not be repeated is Crashed, and one that was being cancelled is Cancelled: Prefect takes no other state
    from it, and it would keep the slot of its model.
    """
    gone = "its worker ended before it."
    again = []
    for run in _runs_of_the_pool(client, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING):
        state: State[Any]
        if run.state_type is StateType.CANCELLING:
            state = Cancelled(message=f"Cancelled: {gone}")
        elif RESTARTS in run.tags:
            state = AwaitingRetry(message=f"{WITH_ALL if died else 'Taken up again'}: {gone}")
            again.append(run.name)
        else:
            state = Crashed(message=gone)
        client.set_flow_run_state(run.id, state)
    return again


def ask_for_life(client: SyncPrefectClient) -> None:
    """Let the runs that look as if they ran be watched again: a server that starts forgets whom it was waiting for.

    One that lives sends its next heartbeat, and one that does not is Crashed, and taken up if it may be.
    """
    for run in _runs_of_the_pool(client, StateType.PENDING, StateType.RUNNING):
        if TAG in run.tags:
            # One that was about to begin is waited for by another automation, if it may be begun again.
            begins = run.state_type is StateType.PENDING and RESTARTS in run.tags
            emit_event(
                "prefect.flow-run.Pending" if begins else "prefect.flow-run.heartbeat",
                resource={"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
                related=[
                    {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in run.tags
                ],
            )


def _runs_of_the_pool(client: SyncPrefectClient, *types: StateType) -> list[FlowRun]:
    return read_all_runs(client, _of(*types), pool=POOL)


def _of(*types: StateType) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))))


def skip_missed(client: SyncPrefectClient) -> int:
    """Cancel every overdue scheduled run of the pool but the last of its deployment; how many."""
    missed = missed_runs(client, pool=POOL)
    last = {run.deployment_id: run for run in missed}
    skipped = [run for run in missed if last[run.deployment_id].id != run.id]
    for run in skipped:
        cancel_missed(
            client, run, f"The server was down. The run due at {last[run.deployment_id].expected_start_time} stands."
        )
    return len(skipped)


def summary(changes: list[Change]) -> str:
    """What a deployment came to, in a line."""
    counted = Counter((change.kind, change.action) for change in changes if not change.kind.startswith("work "))
    kinds = dict.fromkeys(kind for kind, _ in counted)
    parts = []
    for kind in kinds:
        actions = ", ".join(f"{number} {action}" for (of, action), number in counted.items() if of == kind)
        parts.append(f"{kind}s: {actions}")
    return "; ".join(parts)
