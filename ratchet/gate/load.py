"""Read a policy from YAML, JSON, a name or a mapping, with errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ratchet.errors import PolicyError
from ratchet.gate.policy import Policy
from ratchet.spelling import keys_at, nearest
from ratchet.trees import entries


def load_policy(source: str | Path | Mapping[str, Any] | Policy) -> Policy:
    """A policy from a name (`default`, `strict`, `permissive`, or a file `gate/<name>.yaml` in a tree of RATCHET_SEARCH_PATH),
    a YAML or JSON file, JSON text, or a mapping.

    Raises PolicyError, naming the key and the nearest known one, for anything that is no policy.
    """
    if isinstance(source, Policy):
        return source
    if isinstance(source, Mapping):
        return _parse(dict(source), "the policy")
    inline = str(source).lstrip().startswith("{")
    where = "the policy" if inline else str(_find(source))
    try:
        values = yaml.safe_load(str(source) if inline else Path(where).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"{where} cannot be read as a policy: {error}") from error
    if not isinstance(values, dict):
        raise PolicyError(f"{where} holds no policy: it must be a mapping of rules, see configs/gate/default.yaml.")
    return _parse(values, where)


def _find(source: str | Path) -> Path:
    named, path = entries("gate"), Path(source)
    if str(source) in named:  # also one with a dot in its name, as v1.2
        return named[str(source)]
    if path.suffix:
        return path
    raise PolicyError(
        f"There is no policy {str(source)!r}{nearest(str(source), list(named))}. Known are {', '.join(named)}; your own "
        "needs its path, ending in .yaml or .json, JSON text, or a place in a tree of RATCHET_SEARCH_PATH, gate/<name>.yaml."
    )


def _parse(values: dict[str, Any], where: str) -> Policy:
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            _fault(fault["type"], fault["loc"], fault["msg"], fault["input"]) for fault in error.errors()
        )
        raise PolicyError(f"In {where}: {faults}.") from error


def _fault(kind: str, loc: tuple[int | str, ...], message: str, value: object) -> str:
    key = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        known = keys_at(Policy, loc[:-1])
        return f"there is no key {key!r}{nearest(str(loc[-1]), known)} (known: {', '.join(known)})"
    if not key:
        return message.removeprefix("Value error, ")
    return f"{key} = {value!r}: {message[0].lower()}{message[1:]}"
