"""What can be checked before anything is deployed: that the server answers, and that every model's overrides compose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.service.models import ModelFile
from ratchet.config import compose_sweep
from ratchet.errors import ConfigError, ServerUnreachableError
from ratchet.registry.tracking import require_listening

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """A client of the configured Prefect server. Raises `ServerUnreachableError` where there is none, or it is silent."""
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    url = PREFECT_API_URL.value()
    if not url:
        raise ServerUnreachableError(
            "no Prefect server is known here: start one with `ratchet up`, or set PREFECT_API_URL"
        )
    try:
        require_listening(url)
    except ServerUnreachableError as error:
        raise ServerUnreachableError(
            f"nothing answers at {url}: start `ratchet up`, or correct PREFECT_API_URL"
        ) from error
    with get_client(sync_client=True) as client:
        yield client


def check_models(models: Sequence[ModelFile]) -> None:
    """Raise `ConfigError`, naming the model, where overrides do not compose: a run would only say so at three at night."""
    for model in models:
        try:
            compose_sweep(model.all_overrides)
        except ConfigError as error:
            raise type(error)(f"model {model.name}: {error}") from error
