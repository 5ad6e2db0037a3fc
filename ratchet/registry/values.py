"""The plain values that the registry hands out: a stage, a model version, the best run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ratchet.errors import RegistryError, UnknownStageError, VersionNotFoundError
from ratchet.run_names import FINGERPRINT_TAG

# Tags that Ratchet writes on a version at registration. The prefix keeps them apart from the user's own.
SOURCE_TAG = "ratchet.source"  # where the files were registered from
IDENTITY_TAG = "ratchet.identity"  # equal for two registrations of the same model
FILES_TAG = "ratchet.files"  # {path inside the model directory: sha256}, as JSON
AUTHOR_TAG = "ratchet.registered_by"  # who called register_model
VERDICT_TAG = "ratchet.verdict"  # sha256 of the last verdict on the version
PINNED_TAG = "ratchet.pinned"  # "true": retention leaves the version alone

HISTORY_SUFFIX = ".history"


class Stage(StrEnum):
    """Where a version stands, in MLflow's spelling."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"

    @classmethod
    def parse(cls, text: str) -> Stage:
        """The stage of that name, in any case. Raises `UnknownStageError`."""
        for stage in cls:
            if stage.value.lower() == str(text).strip().lower():
                return stage
        raise UnknownStageError(
            f"{text!r} is not a stage: use one of {', '.join(stage.value.lower() for stage in cls)}"
        )


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model, as the history and the back end tell it.

    `source` is what was registered (`runs:/<id>/deployment_model`, a directory), `location` is where the registry keeps
    the files now. `created` is in UTC. `stage` follows the history.
    """

    model: str
    version: int
    stage: Stage
    aliases: tuple[str, ...]
    run_id: str | None
    source: str
    location: str
    description: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    quarantined: bool = False

    @property
    def fingerprint(self) -> str | None:
        """The content hash of what the model was trained from, if its registration said so."""
        return self.tags.get(FINGERPRINT_TAG)

    @property
    def pinned(self) -> bool:
        """Whether retention must leave it alone: tagged so, or holding an alias that a user gave it."""
        own = {"production", "staging"}
        return self.tags.get(PINNED_TAG, "").lower() == "true" or bool(set(self.aliases) - own)

    @property
    def digests(self) -> dict[str, str] | None:
        """The sha256 of every model file by its path inside the model directory; None if none was recorded."""
        text = self.tags.get(FILES_TAG)
        return None if text is None else dict(json.loads(text))


@dataclass(frozen=True)
class BestRun:
    """The run that a selection chose: its last logged `value` of `metric`, and where its model lies."""

    run_id: str
    metric: str
    value: float
    parameters: int | None
    started: datetime
    model_location: str

    @property
    def selected_by(self) -> str:
        """What a version that is made of it says of the choice: `ratchet.run_names.SELECTED_TAG`."""
        return f"{self.metric}={self.value:.6g}"


def version_number(version: int | str) -> int:
    """A version as int. Raises `VersionNotFoundError` for what is no number."""
    try:
        return int(version)
    except (TypeError, ValueError):
        raise VersionNotFoundError(f"{version!r} is not a version number: give 3 or '3'") from None


def checked_model_name(name: str) -> str:
    """The name, if a model may be called so. Raises `RegistryError`."""
    if not isinstance(name, str) or not name.strip():
        raise RegistryError("the model name is empty: give one such as 'my_model'")
    if any(sign in name for sign in "/:\\") or any(ord(sign) < ord(" ") for sign in name) or name in {".", ".."}:
        raise RegistryError(f"{name!r} cannot be a model name: it holds '/', ':', '\\' or a control character")
    if "'" in name and '"' in name:
        raise RegistryError(f"{name!r} cannot be a model name: MLflow cannot search for one with both kinds of quotes")
    if name.endswith(HISTORY_SUFFIX):
        raise RegistryError(f"{name!r} cannot be a model name: names ending in {HISTORY_SUFFIX!r} hold the histories")
    return name
