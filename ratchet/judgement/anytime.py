"""Judges any registered version at any time: on the data and by the policy that it was trained with, or on others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.gate import Policy, Verdict, load_policy
from ratchet.judgement.configuration import configuration, gate_data
from ratchet.judgement.judging import OnImage, judge_version

if TYPE_CHECKING:
    from ratchet.registry import MlflowModelManager


def judge_anytime(
    model: str,
    version: int,
    *,
    manager: MlflowModelManager,
    policy: Policy | str | None = None,
    against: int | None = None,
    data_path: Path | None = None,
    on_image: OnImage = None,
) -> Verdict:
    """Judge a version as `judge_version` does; what is not given is taken from the configuration it was trained with.

    `policy` is what `load_policy` reads; `data_path` a folder whose gate split, as it is now, takes the place of the
    one that the configuration names. A version that was trained elsewhere is judged on the champion's data. Raises
    `ConfigError`, `RegistryError`, `DataError`, `GateError`.
    """
    other = manager.champion(model) if against is None else manager.version(model, against)
    versions = [manager.version(model, version), *([other] if other is not None else [])]
    chosen = load_policy(policy) if policy is not None else None  # before anything is fetched: it may be mistyped
    config = configuration(versions)
    return judge_version(
        model,
        version,
        data=gate_data(config, data_path),
        policy=chosen or load_policy(config.get("gate") or "default"),
        manager=manager,
        against=against,
        on_image=on_image,
    )
