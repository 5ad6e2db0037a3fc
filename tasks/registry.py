"""Operations on the registry as Prefect tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from prefect.runtime import flow_run

from ratchet import MlflowModelManager
from ratchet.errors import ChampionMovedError
from ratchet.registry import Event, EventKind, ModelVersion, PrunePlan, Stage
from tasks.events import announce_history
from tasks.step import step, warned_of


@step("prune {model}")
def prune_versions(model: str, keep: int, dry_run: bool) -> PrunePlan:
    """Delete versions beyond the policy, and the heavy files of their runs; nothing of a model that is yet to come."""
    manager = MlflowModelManager()
    return manager.prune(model, keep=keep, dry_run=dry_run) if model in manager.models() else PrunePlan(goes=())


@step("promote v{version} to {to}")
def promote_version(model: str, version: int, to: Literal["staging", "production"], reason: str) -> ModelVersion:
    """Move a version on somebody's word, once in a flow run: what others did since, when it is taken up again, stands."""
    manager, kind = MlflowModelManager(), EventKind.PROMOTED if to == "production" else EventKind.STAGED
    if _done(manager, model, kind) is None:
        manager.promote(model, version, to, reason=reason, flow_run=flow_run.id)
    with warned_of(f"v{version} was moved, but nobody is told of it"):
        announce_history(model, kind, version)
    return manager.version(model, version)


@step("roll back {model}")
def roll_back(model: str, reason: str) -> ModelVersion:
    """Return production to the version before, once in a flow run: taken up or retried, it goes back no further."""
    manager = MlflowModelManager()
    if _done(manager, model, EventKind.ROLLED_BACK) is None:
        _require_as_asked(manager, model)
        manager.rollback(model, reason, flow_run=flow_run.id)
    done = _done(manager, model, EventKind.ROLLED_BACK)
    assert done is not None
    assert done.target is not None
    with warned_of(f"{model} was rolled back, but nobody is told of it"):
        announce_history(model, EventKind.ROLLED_BACK, done.version)
    return manager.version(model, done.target)


def _require_as_asked(manager: MlflowModelManager, model: str) -> None:
    """Refuse to leave another version than who pressed Run has seen in production: the run may have waited for hours."""
    asked = flow_run.scheduled_start_time
    now, then = manager.champion(model), manager.champion_at(model, asked)
    if now is None or now.version == then:
        return
    came = next((event for event in reversed(manager.history(model)) if _crowns(event, now.version)), None)
    if came is not None and came.time > datetime.now(UTC):
        return  # dated by a clock that was ahead: nobody knows what was there when this was asked for
    if came is not None and came.kind is EventKind.CHANGED_OUTSIDE:
        why = f"v{now.version} of {model} was put into production by hand, which was noticed only now"
    else:
        was = f"v{then}" if then is not None else "nothing"
        why = f"when this rollback was asked for, {was} was in production of {model}; now v{now.version} is"
    raise ChampionMovedError(f"{why}, so that nothing is rolled back. Press Run again if that one is bad, too")


def _crowns(event: Event, version: int) -> bool:
    """Whether an event put a version into production."""
    return event.counts and (
        (event.kind is EventKind.PROMOTED and event.version == version)
        or (event.kind is EventKind.ROLLED_BACK and event.target == version)
        or (event.kind is EventKind.CHANGED_OUTSIDE and (version, Stage.PRODUCTION) in event.moves)
    )


def _done(manager: MlflowModelManager, model: str, kind: EventKind) -> Event | None:
    """What this flow run has done already."""
    history = manager.history(model) if model in manager.models() else ()
    return next((e for e in history if e.kind is kind and e.counts and e.flow_run == flow_run.id), None)
