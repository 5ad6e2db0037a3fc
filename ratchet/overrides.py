"""What overrides may say, and what is told of one that Hydra does not take: the nearest thing that it knows."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ratchet.errors import ConfigError, RatchetError, UnknownKeyError
from ratchet.grammar import read_space
from ratchet.settings import TrialConfig
from ratchet.space import Origin
from ratchet.spelling import takes_any
from ratchet.trees import CONFIGS, entries, user_trees

_DOWNLOADS = ("download_url", "checksums")
_OPERATORS = tuple(f"datamodule.{key}" for key in _DOWNLOADS)

_UPWARDS = re.compile(r"(?<![\w.])\.\.(?![\w.])")  # as a part of a path

_TO_REPLACE = " To replace it, give "
CLASS_TABLES = ("idx_to_class", "mask_values")
_TABLES = tuple(f"datamodule.{name}" for name in CLASS_TABLES)
_CELL = re.compile(rf"datamodule\.({'|'.join(CLASS_TABLES)})\.\d+")


def require_replaced(overrides: Sequence[str], tree: DictConfig) -> None:
    """Raise `ConfigError` where Hydra has merged an override of a whole table of classes with the experiment's own."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if "=" not in override or key not in ("datamodule", *_TABLES):
            continue
        value: Any = OverridesParser.create().parse_override(override).value()
        given: Any = value if key == "datamodule" else {key.partition(".")[2]: value}
        for name in CLASS_TABLES if isinstance(given, Mapping) else ():
            table = OmegaConf.select(tree, f"datamodule.{name}")
            if isinstance(given.get(name), Mapping) and set(map(str, table or ())) - set(map(str, given[name])):
                raise ConfigError(
                    f"{override}: Hydra merges this with the table of the experiment, {dict(table)}.{_replacing(override)}"
                )


def with_every_rule(overrides: Sequence[str]) -> list[str]:
    """Let every key of a policy be overridden, also one that the chosen entry of the group `gate` does not spell out.

    And each row of a table of classes, whose keys are numbers, which no override can name.
    """
    keys = _policy_keys() if any(override.startswith("gate.") for override in overrides) else []
    added = {key for key in (override.split("=")[0] for override in overrides) if key in keys or _CELL.fullmatch(key)}
    return [f"++{override}" if override.split("=")[0] in added else override for override in overrides]


def require_harmless(parsed: Sequence[Override]) -> None:
    """Raise `ConfigError` at an override that only the operator of a deployment may give."""
    for override in parsed:
        if override.key_or_group.split("/")[0].split(".")[0] == "hydra":
            raise ConfigError(f"{override.input_line}: Hydra itself is not configured here. Leave this out.")
        given = (override.input_line or "").replace("\\", "")  # `$\{` is `${` to Hydra
        if "${" in given:
            raise ConfigError(f"{override.input_line}: interpolations are not taken here. Write the value out.")
        if "." not in override.key_or_group and "={" not in given and _UPWARDS.search(given):
            raise ConfigError(f"{override.input_line}: the entry of a group lies inside the tree. Leave .. out.")
        named = override.key_or_group.startswith(_OPERATORS) or (
            override.key_or_group == "datamodule" and any(key in given for key in _DOWNLOADS)
        )
        if named and os.environ.get("RATCHET_DATA_ROOTS"):
            raise ConfigError(
                f"{override.input_line}: where data are downloaded from is the operator's to say, in a tree of "
                "RATCHET_SEARCH_PATH. Leave this out."
            )


@contextmanager
def translated(overrides: Sequence[str]) -> Iterator[None]:
    """Turn Hydra's errors into ours, with the nearest known key."""
    try:
        yield
    except HydraException as error:
        message = " ".join(str(error).split())
        if "not in struct" in message or "Could not override" in message:
            advice = _nearest(message, overrides)
            if advice.startswith(_TO_REPLACE) or not _can_be_added(message):
                message = message.split(" To append")[0]  # Hydra's own advice, which would be refused
            raise UnknownKeyError(f"{message}{advice}") from error
        if twice := _chosen_twice(message, overrides):
            raise ConfigError(twice) from error
        raise ConfigError(f"{message.split(' Config search path')[0]}{_nearest_entry(str(error))}") from error
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{key}: {message}" if key else message) from error
    except yaml.YAMLError as error:  # names the file and the line itself
        raise ConfigError(f"the tree cannot be read: {' '.join(str(error).split())}") from error
    except ValueError as error:  # Hydra's own, of a group that is given no name
        if isinstance(error, RatchetError):
            raise
        raise ConfigError(_no_name(overrides) or str(error)) from error


def _replacing(override: str) -> str:
    """How a table is replaced whole."""
    key, _, value = override.lstrip("+").partition("=")
    return f"{_TO_REPLACE}'~{key}' and '+{key}={value}'." if key in _TABLES else " Give it by its own key."


def _can_be_added(message: str) -> bool:
    """Whether the key that Hydra's message is about may be added with a `+`."""
    wanted = re.search(r"Could not override '([^']+)'", message)
    key = wanted[1].split(".") if wanted else [""]
    return key[0] != "gate" and takes_any(TrialConfig, key)  # a policy's keys are its own, too


def _chosen_twice(message: str, overrides: Sequence[str]) -> str | None:
    """What to do about an override that adds an entry to a group that has one; None if the message is about another thing."""
    group = re.search(r"Multiple values for (\S+)\. To override", message)
    added = next((o for o in overrides if group and o.startswith(f"+{group[1]}=")), None)
    return f"{added}: this would be a second entry of its group: leave out the +." if added else None


def _no_name(overrides: Sequence[str]) -> str | None:
    """What to do about an override that gives a group null or a number; None if there is none."""
    given = [override for override in overrides if "=" in override and not override.startswith(("-", "~"))]
    for override in OverridesParser.create().parse_overrides(given):
        group, value = override.key_or_group, override.value()
        if _is_group(group) and (value is None or isinstance(value, int | float)):
            constant = " For a learning rate that stays as it is: scheduler=constant." if group == "scheduler" else ""
            known = ", ".join(entries(group))
            return f"{override.input_line}: {group} takes the name of an entry ({known}): give one, or leave this out.{constant}"
    return None


def _policy_keys() -> list[str]:
    from ratchet.gate.policy import policy_keys  # noqa: PLC0415 - few configurations override a rule

    return [f"gate.{key}" for key in policy_keys()]


def _nearest(message: str, overrides: Sequence[str]) -> str:
    """Name the known keys that look most like the unknown one in Hydra's message."""
    wanted = next((o.split("=")[0].lstrip("+~") for o in overrides if f"'{o.split('=')[0]}'" in message), None)
    if wanted is None:
        return ""
    if wanted in _TABLES:
        return _replacing(next(o for o in overrides if o.lstrip("+").startswith(f"{wanted}=")))
    GlobalHydra.instance().clear()
    groups = [o for o in overrides if "=" in o and not o.startswith(("-", "hydra")) and _is_group(o.split("=")[0])]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            space = read_space(OverridesParser.create().parse_overrides(groups), Origin())
            tree = hydra_compose("config", overrides=space.at(next(space.grid())))
            known = list(dict.fromkeys([*_keys(OmegaConf.to_container(tree, resolve=False)), *_policy_keys()]))
    except (HydraException, OmegaConfBaseException, ValueError):
        return ""  # what is wrong may be a group, or be in a tree that only the command line named
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    close += [key for key in known if key.split(".")[-1] == wanted.split(".")[-1] and key not in close]
    return f" Nearest known: {', '.join(close)}." if close else ""


def _nearest_entry(told: str) -> str:
    """Name the entries of the tree that look most like the one that Hydra could not find, and where it looked."""
    found = re.search(r"Could not find '([^']+)'", told)
    if found is None:
        return ""
    trees = [Path(tree.removeprefix("file://")) for tree in user_trees() if tree.startswith("file://")]
    files = [str(path.relative_to(t).with_suffix("")) for t in (*trees, CONFIGS) for path in t.rglob("*.yaml")]
    known = dict.fromkeys(file for file in files if _is_group(file.partition("/")[0]))
    close = difflib.get_close_matches(found[1], known, n=3)
    shown = ["=".join(entry.rsplit("/", 1) if entry.startswith("hydra/") else entry.split("/", 1)) for entry in close]
    near = f" Nearest: {', '.join(shown)}." if close else ""
    sources = re.findall(r"provider=(.+), path=(.+)", told)  # Hydra's list, with its own two
    places = [path.removeprefix("file://") for provider, path in sources if provider not in ("hydra", "schema")]
    return (
        f"{near} Looked in {', '.join(places)}. RATCHET_SEARCH_PATH names folders of your own: those that hold experiment/, "
        "gate/ and so on."
    )


def _is_group(key: str) -> bool:
    return (CONFIGS / key.lstrip("+~").split("@")[0]).is_dir()


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")
