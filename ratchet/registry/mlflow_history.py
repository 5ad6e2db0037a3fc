"""The histories on MLflow's model registry: that of `model` is the versions and tags of the registered model `model.history`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from ratchet.errors import RegistryError
from ratchet.registry.events import Event, decode, encode
from ratchet.registry.rendering import headline
from ratchet.registry.searches import all_pages, quoted_text
from ratchet.registry.store import Notes, Store
from ratchet.registry.tracking import answering, shown
from ratchet.registry.values import HISTORY_SUFFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

_EVENT_TAG = "ratchet.event"
_PROJECTED_TAG = "ratchet.projected"
_STAGED_TAG = "ratchet.projected.stages"
_INTENT_PREFIX = "ratchet.writing."
_EVENT_SOURCE = "ratchet:/event"  # a history version has no files; the server accepts any scheme that is not local
# The most versions that MLflow gives in one answer. Its pages begin at an offset: where versions are deleted between two, the
# second leaves some out.
_VERSIONS = 200_000
_ATTEMPTS = 5


class MlflowHistory(Store):
    """What is written of events, and of who is writing."""

    def __init__(self, client: MlflowClient, uri: str, *, stages: bool) -> None:
        """`stages`: whether this writer projects them too, as far as MLflow has them."""
        self._client = client
        self._uri = uri
        self._stages = stages and hasattr(client, "transition_model_version_stage")

    @property
    def place(self) -> str:
        """The address of the tracking store."""
        return shown(self._uri)

    @contextmanager
    def _asking(self, *, absent_is_fine: bool = False) -> Iterator[None]:
        """Translate errors; what is not there may be fine."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with answering(self._uri):
            try:
                yield
            except MlflowException as error:
                if not (absent_is_fine and error.error_code == "RESOURCE_DOES_NOT_EXIST"):
                    raise

    def _search(self, condition: str) -> list[MlflowVersion]:
        order = ["version_number ASC"]
        search = partial(self._client.search_model_versions, condition, max_results=_VERSIONS, order_by=order)
        return all_pages(lambda token: search(page_token=token))

    def log(self, model: str, since: int) -> list[Event]:
        """The versions of `model.history` from `since` on."""
        with self._asking():
            newer = f" and version_number >= {since}" if since else ""
            entries = self._search(f"name={quoted_text(model + HISTORY_SUFFIX)}{newer}")
        events = []
        for entry in entries:
            text = entry.tags.get(_EVENT_TAG)
            if text is None:
                raise RegistryError(
                    f"version {entry.version} of {model + HISTORY_SUFFIX!r} is no event of Ratchet: that registered "
                    "model is the history, delete what was registered there by hand"
                )
            events.append(decode(text, int(entry.version), utc(entry.creation_timestamp)))
        return events

    def append(self, model: str, event: Event) -> None:
        """Create the next version of `model.history`: MLflow numbers them without gaps, in one transaction."""
        text = encode(event)
        with self._asking(absent_is_fine=True):
            self._write_event(model, text, event)
            return
        self._begin_history(model)
        with self._asking():
            self._write_event(model, text, event)

    def _write_event(self, model: str, text: str, event: Event) -> None:
        self._client.create_model_version(
            model + HISTORY_SUFFIX,
            _EVENT_SOURCE,
            tags={_EVENT_TAG: text},
            description=headline(event),
            await_creation_for=0,
        )

    def _begin_history(self, model: str) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with self._asking():
            try:
                self._client.create_registered_model(
                    model + HISTORY_SUFFIX,
                    description=f"The history of the model {model}, one version for each event, written by Ratchet. "
                    "Do not change it: it decides which version is in production.",
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def notes(self, model: str) -> Notes:
        """Read from the tags of `model.history`."""
        tags = self._tags(model)
        intents = {
            key.removeprefix(_INTENT_PREFIX): datetime.fromisoformat(value)
            for key, value in tags.items()
            if key.startswith(_INTENT_PREFIX)
        }
        projected = int(tags.get(_PROJECTED_TAG, 0))
        return Notes(projected, intents, int(tags.get(_STAGED_TAG, projected)) if self._stages else None)

    def _tags(self, model: str) -> Mapping[str, str]:
        with self._asking(absent_is_fine=True):
            return dict(self._client.get_registered_model(model + HISTORY_SUFFIX).tags)
        return {}

    def open_intent(self, model: str, token: str) -> None:
        """Tag `model.history`."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        tag = model + HISTORY_SUFFIX, _INTENT_PREFIX + token, datetime.now(UTC).isoformat()
        with self._asking():
            try:
                self._client.set_registered_model_tag(*tag)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._begin_history(model)  # of a model that somebody made in MLflow's pages, without a version
                self._client.set_registered_model_tag(*tag)

    def close_intent(self, model: str, token: str) -> None:
        """Remove the tag."""
        with self._asking(absent_is_fine=True):
            self._client.delete_registered_model_tag(model + HISTORY_SUFFIX, _INTENT_PREFIX + token)

    def mark_projected(self, model: str, head: int) -> None:
        """Tag `model.history`. A writer without stages says up to where the others have projected them."""
        tags = {_PROJECTED_TAG: str(head)}
        if self._stages:
            tags = {_STAGED_TAG: str(head)} | tags
        elif _STAGED_TAG not in (known := self._tags(model)):
            tags = {_STAGED_TAG: known.get(_PROJECTED_TAG, "0")} | tags
        for tag, number in tags.items():
            self._mark(model, tag, number)

    def _mark(self, model: str, tag: str, number: str) -> None:
        with self._asking():
            set_once(lambda: self._client.set_registered_model_tag(model + HISTORY_SUFFIX, tag, number))


def set_once(write: Callable[[], object]) -> None:
    """Set an alias or a tag. MLflow inserts one that is not there: of two that do so at once, one has to do it again."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    for attempt in range(_ATTEMPTS):
        try:
            write()
            return
        except MlflowException as error:
            collided = any(sign in str(error) for sign in ("UNIQUE", "duplicate key", "Duplicate entry"))
            if not collided or attempt == _ATTEMPTS - 1:
                raise


def utc(milliseconds: int) -> datetime:
    """A time of MLflow's."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
