"""How a step of a flow is made a Prefect task: it is run when it is called, once, whatever a profile says of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


def step(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorate a step; `name` is a template of its run's name.

    No retries: what failed is looked at, and not repeated on an old verdict. No cache: production may have changed since.
    """
    return task(task_run_name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)
