"""What can be checked before anything is deployed: that the server answers, and that every model's overrides compose."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.service.models import ModelFile
from flows.service.running import require_prefect
from ratchet.config import compose_space
from ratchet.errors import ConfigError, GateError, ServerUnreachableError
from ratchet.form import AS_CONFIGURED, overrides_of
from ratchet.paths import relative_paths
from ratchet.registry.tracking import shown
from ratchet.settings import Node
from ratchet.trees import entries

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

logger = logging.getLogger(__name__)


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """A client of the configured Prefect server. Raises `ServerUnreachableError` where there is none, or no Prefect."""
    from httpx import HTTPError  # noqa: PLC0415
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    url = PREFECT_API_URL.value()
    if not url:
        raise ServerUnreachableError(
            "no Prefect server is known here: start one with `ratchet up`, or set PREFECT_API_URL"
        )
    require_prefect(url)
    with get_client(sync_client=True) as client:
        try:
            client.api_version()
        except (HTTPError, ValueError) as error:  # ValueError: the answer is no JSON
            said = f"{type(error).__name__}: {error}".splitlines()[0].replace(url, shown(url))
            raise ServerUnreachableError(
                f"what answers at {shown(url)} is not Prefect's API, or refuses us: PREFECT_API_URL must end in /api, and "
                f"PREFECT_API_AUTH_STRING be the server's ({said})"
            ) from error
        yield client


def check_models(models: Sequence[ModelFile]) -> dict[str, Node]:
    """Raise an error that names the model where no retraining could begin: a run would only say so at three at night.

    Returns the data module of each model that could be trained. Raises `ConfigError`, `PolicyError`.
    """
    from ratchet.planning import check_trials  # noqa: PLC0415 (a second)

    data = dict[str, Node]()
    for model in models:
        try:
            with relative_paths() as relative:
                composed = compose_space(overrides_of(model.form))
            check_trials(composed)
            _require_whole(relative)
            _require_offered(model)
        except (ConfigError, GateError) as error:
            if not model.enabled:  # nothing starts it by itself, and who presses Run is told
                logger.warning("model %s is switched off, and could not be trained: %s", model.name, error)
                continue
            raise type(error)(f"model {model.name}: {error}") from error
        data[model.name] = composed.configs[0].datamodule
    return data


def _require_whole(relative: Mapping[str, str]) -> None:
    """The worker composes again, in another folder than this one."""
    if relative:
        told = ", ".join(f"{key}={path}" for key, path in relative.items())
        raise ConfigError(
            f"{told} is a relative path, and a worker starts each run in a folder of its own: write the whole path, in the "
            "experiment or in the model file."
        )


def _require_offered(model: ModelFile) -> None:
    """Prefect's server refuses each run of a deployment whose parameters are not among what the form offers."""
    form = model.form
    for group, chosen in (("experiment", form.experiment), ("gate", form.policy)):
        if chosen not in (AS_CONFIGURED, *entries(group)):
            raise ConfigError(
                f"{group}={chosen} is not among the choices of a retraining's form, so that Prefect would refuse every run: "
                f"write a file of your own on top of it, {group}/<name>.yaml in a folder of RATCHET_SEARCH_PATH, and name "
                "that (docs/data.md)."
            )
