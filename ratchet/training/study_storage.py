"""The database behind a study: opened, asked again where it does not answer, and what becomes of the trials of the dead."""

from __future__ import annotations

import copy
import logging
import os
import random
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ratchet.errors import ConfigError, ServerUnreachableError
from ratchet.registry.tracking import shown
from ratchet.training.study_workers import WORKER

STORAGE = "RATCHET_STUDY_STORAGE"
"""The environment's variable that names a database which several machines share. No setting: it may hold a password."""

logger = logging.getLogger(__name__)

BEAT_SECONDS = 60
STALE_SECONDS = 180
RESTART_SECONDS = 60.0
_LOCK_SECONDS = 60


class Study(Protocol):
    """What is kept in a database."""

    url: str


Asking = TypeVar("Asking", bound=Study)
Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def address(home: Path) -> str:
    """Where the studies are: in the database that the environment names, or in a file of this home."""
    return os.environ.get(STORAGE) or f"sqlite:///{(home / 'studies.db').absolute()}"


def alone(home: Path) -> AbstractContextManager[object]:
    """Open a study while no other process of this home does: a file gives a new one the id of one that was deleted."""
    return nullcontext() if os.environ.get(STORAGE) else FileLock(home / "studies.lock")


def patient(
    method: Callable[Concatenate[Asking, Given], Answer],
) -> Callable[Concatenate[Asking, Given], Answer]:
    """Ask again for a while where the database does not answer, as while it is restarted: trials are at work."""

    @wraps(method)
    def asked(study: Asking, /, *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        until = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return method(study, *args, **kwargs)
            except (SQLAlchemyError, StorageInternalError) as error:
                if time.monotonic() > until:
                    raise unreachable(study.url, error) from error
                logger.warning("the study's database does not answer; it is asked again: %s", error)
                time.sleep(1.0)

    return asked


def quieten() -> None:
    """Heartbeats are used beside `Study.optimize` on purpose, and are called experimental since 2021."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")


def again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a failed trial again, with the values that it had at its rungs, and without the signature of who is dead."""
    unsigned = copy.deepcopy(trial)  # Optuna writes into its lists, which are those of its cache
    unsigned.user_attrs = {key: value for key, value in trial.user_attrs.items() if key != WORKER}
    RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(study, unsigned)


def open_storage(url: str, tries: int = 3, *, grace: int | None = None) -> RDBStorage:
    """Open a database, in which a heartbeat that is `grace` seconds old is stale (None: `STALE_SECONDS`).

    Raises `ConfigError`, `ServerUnreachableError`.
    """
    options = {"connect_args": {"timeout": _LOCK_SECONDS}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=BEAT_SECONDS,
            grace_period=grace or STALE_SECONDS,
            heartbeat_stale_trial_callback=again,
        )
    except (ArgumentError, ImportError, ValueError) as error:
        raise ConfigError(f"{STORAGE}={shown(url)} cannot be used: {error}") from error
    except SQLAlchemyError as error:
        if tries == 1:
            raise unreachable(url, error) from error
    time.sleep(random.uniform(0.5, 1.5))  # of two processes that make the tables of a new database at once, one fails
    return open_storage(url, tries - 1, grace=grace)


def unreachable(url: str, error: Exception) -> ServerUnreachableError:
    """Name the database without its password."""
    return ServerUnreachableError(f"the study's database {shown(url)} does not answer: {error}")


def states(storage: RDBStorage, study_id: int) -> dict[int, TrialState]:
    """The state of each trial by its number, in one small query: Optuna reads whatever is not finished, whole."""
    wanted = select(TrialModel.number, TrialModel.state).where(TrialModel.study_id == study_id)
    with storage.engine.connect() as connection:
        return dict(connection.execute(wanted).tuples().all())


def retry_history(trial: FrozenTrial) -> list[int]:
    """The numbers that a trial had before it failed and was queued again, oldest first.

    As `RetryHeartbeatStaleTrialCallback.retry_history` says, which warns at each call.
    """
    return list(trial.system_attrs.get("retry_history", ()))


def retried(trials: Iterable[FrozenTrial]) -> set[int]:
    """The numbers of those that failed and were queued again."""
    return {number for trial in trials for number in retry_history(trial)}


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """All trials but those that failed and were queued again."""
    queued_again = retried(trials)
    return [trial for trial in trials if trial.state != TrialState.FAIL or trial.number not in queued_again]
