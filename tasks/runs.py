"""What a run settles with Prefect before it works: how often it was begun, and which missed runs it stands for."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled

from ratchet.errors import ConfigError, RunAbandonedError
from tasks.kept import kept_plan
from tasks.run_page import tell_errors_in_sentences

_SECONDS_BETWEEN_LOOKS = 30.0
_SECONDS_TO_BE_HEARD = 5.0
MOST_SECONDS_APART = 45.0
"""Of two clocks: a heartbeat is up to 30 s old, and a silence of 90 s is taken for death."""
MOST_CRASHES = 4
"""What kills a run three times again is not bad luck."""

QUESTION = "approval-"
"""How the key of a suspension begins that asks a person."""

WITH_ALL = "It died with all of ratchet up"
"""How the message of a state begins that stands for a crash."""


def begin_run() -> None:
    """Refuse a run that crashed too often, and cancel the scheduled runs of its deployment that were missed.

    After downtime every run that was missed is late: this one, which reads the data as they are now, stands for them
    all. Runs that a person or an event started are left waiting. Our own errors have no trace in the run's logs from here
    on. Raises `RunAbandonedError`.
    """
    tell_errors_in_sentences()
    _stay_paused()
    if flow_run.run_count > MOST_CRASHES and (crashes := _crashes()) >= MOST_CRASHES:
        raise RunAbandonedError(
            f"this run crashed {crashes} times, so it is not taken up again. Its logs, and the worker's, say "
            "why: out of memory, most often. Start a new run once that is mended: what is trained is reused"
        )
    if deployment.id is None:
        return
    _require_the_servers_time()
    if os.environ.get("PREFECT__FLOW_RUN_ID") == flow_run.id:  # this process is the run's own, as a worker starts it
        begun_here(flow_run.id, flow_run.run_count)
    if flow_run.run_count > 1 or kept_plan() is not None:
        return  # a run that goes on does the work that was due when it began
    with get_client(sync_client=True) as client:
        asked = client.read_flow_run(UUID(flow_run.id)).parameters
        for run in missed_runs(client, deployment_id=UUID(deployment.id)):
            if str(run.id) != flow_run.id and run.parameters == asked:  # a dry run, say, does no other's work
                cancel_missed(client, run, f"It was due before {flow_run.name} began, which does its work.")
                get_run_logger().info(
                    "the run missed at %s is cancelled: this one does its work", run.expected_start_time
                )


def _require_the_servers_time() -> None:
    """Refuse to work where the server would take this run for dead: it counts the silence between heartbeats by their times."""
    with get_client(sync_client=True) as client:
        ahead, state = seconds_ahead(client), client.read_flow_run(UUID(flow_run.id)).state
    since = 0.0 if state is None else (datetime.now(UTC) - state.timestamp).total_seconds()
    # Both: a proxy may have a clock of its own, and a server may have taken a minute to answer.
    if abs(ahead) > MOST_SECONDS_APART and not 0 <= since <= MOST_SECONDS_APART:
        raise ConfigError(
            f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the Prefect server, "
            "which would take this run for dead: set it, by NTP for good, here or there"
        )


def seconds_ahead(client: SyncPrefectClient) -> float:
    """By how much this machine's clock is certainly ahead of the server's, or its proxy's (negative: behind).

    An answer may take its time.
    """
    before = datetime.now(UTC)
    told = client.request("GET", "/admin/version").headers.get("Date")
    after = datetime.now(UTC)
    if told is None:
        return 0.0
    server = parsedate_to_datetime(told)  # in whole seconds, and uvicorn writes it anew once a second
    return max((before - server).total_seconds() - 3, 0.0) or min((after - server).total_seconds(), 0.0)


_begun: dict[str, int] = {}  # how often a run had begun when it last did so in this process


def begun_here(run_id: str, count: int, *, seconds: float = _SECONDS_BETWEEN_LOOKS) -> None:
    """End this process when the run has begun again elsewhere, because this one was taken for dead: a clock was set, say.

    Else both would work, and this one's end would be told as the other's. Its trials end with it. `count` is how often the
    run has begun; one that is retried in this process begins here again.
    """
    first = run_id not in _begun
    _begun[run_id] = count

    def watch() -> None:
        seen = 0  # twice: the run may just be about to begin again here
        while seen < 2:  # noqa: PLR2004
            time.sleep(seconds)
            with suppress(Exception), get_client(sync_client=True) as client:  # a server that is away says nothing
                begun_elsewhere = client.read_flow_run(UUID(run_id)).run_count > _begun[run_id]
                seen = seen + 1 if begun_elsewhere else 0
        os._exit(0)  # not an end that the worker tells

    if first:
        threading.Thread(target=watch, daemon=True, name="yields to the next").start()


def require_wanted() -> None:
    """Raise `RunAbandonedError` where somebody has cancelled this run, and no worker was there that would have ended it."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run.id)).state
        if state is None or not (state.is_cancelled() or state.is_cancelling()):
            return
        if state.is_cancelling():  # out of which Prefect takes a run nowhere else
            client.set_flow_run_state(UUID(flow_run.id), Cancelled())
    raise RunAbandonedError("somebody has cancelled this run, so that nothing is moved; what it has trained is kept")


def own_states() -> list[State]:
    """The states that this run was in, oldest first."""
    with get_client(sync_client=True) as client:
        return sorted(client.read_flow_run_states(UUID(flow_run.id)), key=lambda state: state.timestamp)


def is_pause(state: State) -> bool:
    """Whether it is a suspension by a person, on the run's page, and not one that asks."""
    return state.type is StateType.PAUSED and not str(state.state_details.pause_key).startswith(QUESTION)


def _stay_paused() -> None:
    """Suspend a run again that was paused while it worked: Prefect ends it as crashed, its slot being gone, and takes it up."""
    if flow_run.run_count <= 1:
        return
    pauses = [pair for pair in pairwise(own_states()) if is_pause(pair[0])]
    if pauses and pauses[-1][1].type is StateType.CRASHED:
        # The heartbeat that begins with the run must be there before: after it, silence would be taken for death.
        time.sleep(_SECONDS_TO_BE_HEARD)
        suspend_flow_run(key=f"paused-{len(pauses)}")


def _crashes() -> int:
    """How often this run crashed. It also begins anew when a person answers, and after a `ratchet up` that somebody ended."""
    states = own_states()
    paused = sum(is_pause(before) and after.type is StateType.CRASHED for before, after in pairwise(states))
    return sum(state.type is StateType.CRASHED or str(state.message).startswith(WITH_ALL) for state in states) - paused


def is_waiting(flow_run_id: str) -> bool:
    """Whether a flow run may still hear an answer. One that is not known here may wait on another Prefect server."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return True
    return state is None or not state.is_final()


def missed_runs(
    client: SyncPrefectClient, *, deployment_id: UUID | None = None, pool: str | None = None
) -> list[FlowRun]:
    """The runs that a schedule made and that are overdue and not begun, of one deployment or one work pool; the oldest first.

    Those that go on, after an answer or a crash, are of the same type of state, and have a count.
    """
    now = datetime.now(UTC)
    only = None if deployment_id is None else FlowRunFilterDeploymentId(any_=[deployment_id])
    overdue = FlowRunFilter(
        deployment_id=only,
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now),
    )
    missed = [run for run in read_all_runs(client, overdue, pool=pool) if run.auto_scheduled and run.run_count == 0]
    return sorted(missed, key=lambda run: run.expected_start_time or now)


def read_all_runs(client: SyncPrefectClient, wanted: FlowRunFilter, *, pool: str | None = None) -> list[FlowRun]:
    """Every flow run that meets the filter, of one work pool or of all.

    Prefect answers with 200 at most, or as many as its server is set to, and does not say that there are more. By id, since
    many are due at one time, and a page that begins at an offset must not mix those up.
    """
    ours = None if pool is None else WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    found, read = dict[UUID, FlowRun](), 0
    while page := client.read_flow_runs(
        flow_run_filter=wanted, work_pool_filter=ours, sort=FlowRunSort.ID_DESC, offset=read
    ):
        found |= {run.id: run for run in page}
        read += len(page)
    return list(found.values())


def cancel_missed(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Cancel a run that another one stands for."""
    state: State[Any] = Cancelled(name="Missed", message=why)
    client.set_flow_run_state(run.id, state)
