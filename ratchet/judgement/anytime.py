"""Judges any registered version at any time: on the data and by the policy that it was trained with, or on others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import DatasetNotFoundError
from ratchet.gate import Policy, Verdict, load_policy
from ratchet.judgement.configuration import configuration, gate_data
from ratchet.judgement.judging import OnImage, judge_version
from ratchet.judgement.records import judged_of, kept_verdict, model_ref
from ratchet.registry import EventKind

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

    The policy is then the one that it was judged by first, since a trial that was reused was trained under another.

    `policy` is what `load_policy` reads; `data_path` a folder whose gate split, as it is now, takes the place of the
    one that the configuration names. A version that was trained elsewhere is judged on the champion's data. Raises
    `ConfigError`, `RegistryError`, `DataError`, `GateError`.
    """
    other = manager.champion(model) if against is None else manager.version(model, against)
    judged = manager.version(model, version)
    versions = [judged, *([other] if other is not None else [])]
    chosen = load_policy(policy) if policy is not None else None  # before anything is fetched: it may be mistyped
    config = configuration(versions)
    gated = [e for e in judged_of(manager.history(model), version) if e.kind is EventKind.GATED and chosen is None]
    # The verdicts on a model that was deleted and made anew are of other files.
    own = None if judged.digests is None else model_ref(judged)
    before = next((found for found in map(kept_verdict, gated) if found is not None and found.challenger == own), None)
    try:
        data = gate_data(config, data_path)
        data.prepare()
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"{error} It was trained there: say where the data are now (--data, or data)."
        ) from error
    return judge_version(
        model,
        version,
        data=data,
        policy=chosen or (before and before.policy) or load_policy(config.get("gate") or "default"),
        manager=manager,
        against=against,
        on_image=on_image,
    )
