"""What is asked of MLflow: an experiment by its name, a run by its id, searches to their last page, and names quoted for them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ratchet.errors import ExperimentNotFoundError, RegistryError
from ratchet.home import home
from ratchet.registry.tracking import answering, client, embedded_uri, shown, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run
    from mlflow.store.entities import PagedList

T = TypeVar("T")

# MLflow's own page. It asks its database for what belongs to a page's runs with one parameter for each: SQL Server takes
# 2,100, SQLite 32,766.
_PAGE = 1_000
_AT_ONCE = 50  # runs in one question, which is part of the address


def ensure_experiment(name: str) -> str:
    """The id of the experiment `name`, made if it is not there; two processes may ask for it at once.

    On the embedded store its artifacts go to `mlartifacts` under Ratchet's home; elsewhere the server decides. Raises
    `ExperimentNotFoundError` if an experiment of that name was deleted: MLflow keeps the name taken.
    """
    return experiment_on(client(), name, tracking_uri())


def experiment_on(opened: MlflowClient, name: str, uri: str) -> str:
    """`ensure_experiment` on a client that is open already."""
    with answering(uri):
        found = opened.get_experiment_by_name(name)
        if found is None:
            found = _created(opened, name, uri)
    if found.lifecycle_stage != "active":
        raise ExperimentNotFoundError(
            f"the experiment {name!r} was deleted on {shown(uri)}, and its name is still taken: restore it with "
            f"`MLFLOW_TRACKING_URI={shlex.quote(shown(uri))} mlflow experiments restore -x {found.experiment_id}`, or choose "
            "another name"
        )
    return str(found.experiment_id)


def _created(opened: MlflowClient, name: str, uri: str) -> Experiment:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    location = (home() / "mlartifacts").as_uri() if uri == embedded_uri() else None
    try:
        opened.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = opened.get_experiment_by_name(name)
    if found is None:
        raise RegistryError(f"the experiment {name!r} vanished from {shown(uri)} while it was being made")
    return found


def find_run(run_id: str) -> Run | None:
    """The run, deleted or not; None where there is none any more. Raises `RegistryError` where nobody can tell."""
    with answering(tracking_uri()):
        return run_on(client(), run_id)


def run_on(opened: MlflowClient, run_id: str) -> Run | None:
    """`find_run` on a client that is open already; raises what MLflow raises."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (two seconds)

    try:
        return opened.get_run(run_id)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:  # the latter of what is no id
            return None
        raise


def all_pages(ask: Callable[[str | None], PagedList[T]]) -> list[T]:
    """All that a search of MLflow's finds, whatever fits into one answer: `ask` is given the token of each page."""
    found: list[T] = []
    token: str | None = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


def all_experiments(opened: MlflowClient, *, page: int = _PAGE) -> list[Experiment]:
    """The experiments that are not deleted, so many in one request."""
    order = ["experiment_id ASC"]  # one that is made meanwhile moves none from a page to the next
    search = partial(opened.search_experiments, max_results=page, order_by=order)
    return all_pages(lambda token: search(page_token=token))


def all_runs(
    opened: MlflowClient, experiments: Sequence[str], condition: str, *, order: Sequence[str] = (), page: int = _PAGE
) -> list[Run]:
    """The runs that meet an MLflow filter, in this order, or the newest first; so many in one request."""
    by = [*order] or ["attributes.start_time DESC"]
    search = partial(opened.search_runs, [*experiments], condition, max_results=page, order_by=by)
    return all_pages(lambda token: search(page_token=token))


def quoted_name(key: str) -> str:
    """A metric's or tag's name as MLflow's filters take it, also with `/` and spaces. Raises `RegistryError`."""
    if "`" in key:
        raise RegistryError(f"{key!r} cannot be searched for: MLflow's filters take no name with a backquote")
    return f"`{key}`"


def quoted_text(value: str) -> str:
    """A text as MLflow's filters take it, on the right of a comparison. Raises `RegistryError`."""
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise RegistryError(f"{value!r} cannot be searched for: MLflow's filters take no text with both kinds of quotes")


def one_of_runs(run_ids: Sequence[str]) -> Iterator[str]:
    """Conditions that are met by so many of these runs each: the ids are part of a request's address, which has an end."""
    for start in range(0, len(run_ids), _AT_ONCE):
        yield f"run_id IN ({', '.join(map(quoted_text, run_ids[start : start + _AT_ONCE]))})"
