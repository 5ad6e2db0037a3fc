"""Judges a registered version: both models scored afresh on the same images, and all of it kept beside the challenger."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.errors import ModelFilesError
from ratchet.evaluation.scoring import score_models
from ratchet.evaluation.served import ServedModel
from ratchet.gate import Context, ModelRef, Policy, Verdict, judge
from ratchet.gate.record import write_record
from ratchet.judgement.page import write_page
from ratchet.judgement.records import REPORT_FILE, earlier_uses, keep_record

if TYPE_CHECKING:
    from ratchet.data import Sample
    from ratchet.registry import MlflowModelManager, ModelVersion

OnImage = Callable[[int, int], None] | None
"""Told how many images are scored, of how many."""


def judge_version(
    model: str,
    version: int,
    *,
    data: Any,
    policy: Policy,
    manager: MlflowModelManager,
    against: int | None = None,
    on_image: OnImage = None,
) -> Verdict:
    """Judge `version` against the champion of this moment, or the version `against`, on the gate set of a data module.

    The verdict, the counts and the report become artifacts of the challenger's run (`judgement_path`); an event with
    the verdict's digest goes into the history: *gated*, or *noted* where it decides nothing, because it is of the champion
    itself or against another version. Raises `RegistryError`, `DataError`, `GateError`.
    """
    challenger, champion = manager.version(model, version), manager.champion(model)
    other = champion if against is None else manager.version(model, against)
    decides = other == champion and challenger != champion
    samples = data.samples[data.gate_split]
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        models = _download(manager, {"challenger": challenger, "champion": other}, Path(folder) / "models")
        counts = score_models(models, samples, data.mask_values, on_image=on_image)
        verdict = judge(
            policy=policy,
            challenger=counts["challenger"],
            champion=counts.get("champion"),
            context=Context(
                model=model,
                challenger=_model_ref(challenger),
                champion=None if other is None else _model_ref(other),
                gate_set=data.gate_fingerprint,
                data=data.fingerprint,
                earlier_uses=earlier_uses(manager.history(model), data.gate_fingerprint, challenger),
            ),
            metadata=_metadata(samples),
        )
        artifacts = Path(folder) / "artifacts"
        write_record(artifacts, verdict, counts, metadata=_metadata(samples))
        write_page(artifacts / REPORT_FILE, verdict, models, samples, data.mask_values, counts)
        run_id = keep_record(artifacts, verdict, challenger)
    manager.record(
        model,
        "gated" if decides else "noted",
        version=version,
        outcome=verdict.outcome,
        reason=verdict.sentence if decides or other is None else f"compared with v{other.version}: {verdict.sentence}",
        verdict_digest=verdict.digest,
        gate_set=verdict.gate_set,
        run_id=run_id,
    )
    return verdict


def _download(
    manager: MlflowModelManager, versions: Mapping[str, ModelVersion | None], folder: Path
) -> dict[str, ServedModel]:
    """Load each version from its files, checked against the hashes of its registration."""
    return {
        role: ServedModel(manager.download_model(version.model, version.version, folder / role))
        for role, version in versions.items()
        if version is not None
    }


def _metadata(samples: Sequence[Sample]) -> dict[str, dict[str, str]]:
    """Turn the samples' rows of metadata.csv into columns: column → image name → value."""
    columns: dict[str, dict[str, str]] = {}
    for sample in samples:
        for column, value in sample.metadata.items():
            columns.setdefault(column, {})[sample.name] = value
    return columns


def _model_ref(version: ModelVersion) -> ModelRef:
    """Name a version by the content of its files."""
    if version.digests is None:
        raise ModelFilesError(
            f"{version.model} v{version.version} was registered without the hashes of its files, so no verdict on it could "
            "be checked again. Register its model once more with `register_model`."
        )
    digest = hashlib.sha256(json.dumps(version.digests, sort_keys=True).encode()).hexdigest()
    return ModelRef(version=version.version, digest=digest)
