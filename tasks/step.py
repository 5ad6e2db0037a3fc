"""How a step of a flow is made a Prefect task, run when it is called, once; and what is beside the work and fails no step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


def step(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorate a step; `name` is a template of its run's name.

    No retries: what failed is looked at, and not repeated on an old verdict. No cache: production may have changed since.
    """
    return task(task_run_name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)


@contextmanager
def warned_of(trouble: str) -> Iterator[None]:
    """Let an error of what is beside the work be a warning: a run that has promoted does not fail over a picture."""
    logger = get_run_logger()
    try:
        yield
    except Exception as error:
        logger.warning("%s: %s: %s", trouble, type(error).__name__, error, exc_info=True)
