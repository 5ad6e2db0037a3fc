"""Collects what a policy asks besides the scores: leaks, how the exported models serve, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratchet.data.reading import read_image
from ratchet.data.seen import SeenImages
from ratchet.errors import ModelFilesError
from ratchet.evaluation.probe import Exported, ProbeAnswer, time_models, try_model
from ratchet.evaluation.served import TORCHSCRIPT_FILE, ModelCard
from ratchet.evaluation.signature import expected_shape, read_signature, states_signature
from ratchet.gate import Cost, Evidence, Policy, ServesEvidence, find_leaks
from ratchet.run_names import SELECTED_TAG

if TYPE_CHECKING:
    from ratchet.data import Sample
    from ratchet.registry import ModelVersion

PROBED_IMAGES = 4  # gate images that the models are tried on, taken evenly from all


def collect_evidence(
    policy: Policy,
    files: Mapping[str, Path],
    samples: Sequence[Sample],
    image_digests: Mapping[str, str],
    training: Mapping[str, frozenset[str] | None],
) -> Evidence:
    """Measure what the policy's rules leak, serves and budget need, and nothing else.

    `files` are the model directories by role, challenger and champion; `image_digests` the gate images' content by
    name; `training` what each role has seen, as `images_seen` finds it, where the policy looks for leaks. A challenger that
    fails is evidence too. Raises `ModelFilesError` for a champion that fails, and where a directory is no model at all;
    `GateError` where the process that tries models does not come to them; and the errors of reading images (`DataError`).
    """
    leak = None
    if policy.leak:
        seen = {f"{role}_training": training[role] for role in files}
        leak = find_leaks(gate_images=image_digests, **seen)
    if (policy.serves is None and policy.budget is None) or not samples:
        return Evidence(leak=leak)
    exported = {role: _exported(directory, samples) for role, directory in files.items()}
    limit = policy.serves.time_limit if policy.serves else policy.budget.time_limit if policy.budget else 0
    answers = {
        role: try_model(model, time_limit=limit)
        for role, model in exported.items()
        if role == "challenger" or policy.budget is not None or _is_asked_what_it_gives(policy, files[role])
    }
    if "champion" in answers and (error := answers["champion"].error):
        raise ModelFilesError(
            f"the champion does not serve, so nothing can be compared with it: {error}. Look at the memory and the "
            "load of this machine and judge again; if it stays so, roll the champion back."
        )
    costs, notes = _measure_costs(policy, exported, answers)
    serves = _serves(files, answers)
    return Evidence(
        leak=leak,
        serves=serves,
        challenger_cost=costs.get("challenger"),
        champion_cost=costs.get("champion"),
        notes=notes,
    )


def is_usable(serves: ServesEvidence | None) -> bool:
    """Whether the challenger can be scored here: it was not tried, or gave answers of the right shape in time."""
    return serves is None or (serves.loaded and serves.output_shape == serves.expected_shape)


def images_seen(version: ModelVersion, files: Path, *, test_today: frozenset[str]) -> frozenset[str] | None:
    """What a version was trained and selected on, by content; None where its files do not say. Raises `ModelFilesError`."""
    images = SeenImages.read(files)
    return None if images is None else images.selected_by(version.tags.get(SELECTED_TAG, ""), test_today)


def _exported(directory: Path, samples: Sequence[Sample]) -> Exported:
    """A model with gate images as it takes them."""
    places = np.unique(np.linspace(0, len(samples) - 1, PROBED_IMAGES).astype(int))
    images = [read_image(samples[place].image) for place in places]
    return Exported(directory, ModelCard.read(directory).prepare(images).numpy())


def _is_asked_what_it_gives(policy: Policy, champion: Path) -> bool:
    """Where nothing states it, and the challenger is to give the same."""
    return policy.serves is not None and policy.serves.same_signature and not states_signature(champion)


def _serves(files: Mapping[str, Path], answers: Mapping[str, ProbeAnswer]) -> ServesEvidence:
    answer = answers["challenger"]
    given = {role: next(iter(found.shapes), ()) for role, found in answers.items()}
    expected = expected_shape(files["challenger"], given["challenger"])
    return ServesEvidence(
        loaded=answer.error is None,
        error=answer.error,
        finite=answer.finite,
        output_shape=next((shape for shape in answer.shapes if shape != expected), expected) if answer.shapes else None,
        expected_shape=expected,
        max_difference=answer.difference,
        signature=read_signature(files["challenger"], given["challenger"]),
        champion_signature=read_signature(files["champion"], given.get("champion", ()))
        if "champion" in files
        else None,
        isolation=answer.isolation,
    )


def _measure_costs(
    policy: Policy, exported: Mapping[str, Exported], answers: Mapping[str, ProbeAnswer]
) -> tuple[dict[str, Cost], tuple[str, ...]]:
    """Cost by role, and a note on why there is no latency. With a challenger that does not answer nothing is timed."""
    if policy.budget is None or answers["challenger"].error:
        return {}, ()
    timed = time_models(exported, least=policy.budget.min_samples, time_limit=policy.budget.time_limit)
    costs = {
        role: Cost(
            latency_ms=timed.samples.get(role, ()),
            memory_mb=answers[role].memory_mb,
            size_mb=(model.directory / TORCHSCRIPT_FILE).stat().st_size / 1e6,
        )
        for role, model in exported.items()
    }
    return costs, (f"the latency was not measured: {timed.error}",) if timed.error else ()
