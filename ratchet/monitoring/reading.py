"""Takes a reading: the champion scored on the newest labelled images that it cannot know, and on its gate images."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratchet.data.samples import metadata_columns
from ratchet.data.seen import SeenImages
from ratchet.errors import ModelFilesError
from ratchet.evaluation.counts import ImageCounts, class_scores, score, select_images, shown_classes
from ratchet.evaluation.served import ServedModel
from ratchet.gate import Policy, load_policy
from ratchet.gate.contrasts import dependence_note, find_groups
from ratchet.gate.digests import Metadata
from ratchet.gate.rules import finite
from ratchet.gate.verdict import end_told
from ratchet.home import home
from ratchet.judgement.cache import CountsCache
from ratchet.judgement.configuration import configuration, gate_data
from ratchet.judgement.records import promoted_on
from ratchet.judgement.scorer import Scorer
from ratchet.monitoring.change import compare_sets
from ratchet.monitoring.images import choose_images
from ratchet.monitoring.values import MonitorSettings, Reading, State
from ratchet.scratch import scratch

if TYPE_CHECKING:
    from ratchet.registry import MlflowModelManager, ModelVersion

OnImage = Callable[[int, int], None] | None

_TODAYS_GATE = (
    "which gate images it was promoted on is not recorded, or too few of them are left, so it is compared with today's, newer "
    "ones among them: a loss on all that is new shows less"
)


def take_reading(
    model: str,
    settings: MonitorSettings,
    *,
    manager: MlflowModelManager,
    data_path: Path | None = None,
    on_image: OnImage = None,
) -> Reading | None:
    """Score the champion of `model` on what came after its training; None while there is no champion.

    New are the images in today's splits for training and validation whose content the champion did not see in its own:
    an image keeps its split while the data grow, so these came later. So did the images of the gate split that its
    verdict does not name; those that it names are the reference. Metric, average and resampling are those of the policy
    that promoted the champion, or, where no record tells, that it was trained under. `data_path` is where the data are
    now, if not where it was trained on them. Raises `ConfigError`, `RegistryError`, `DataError`, `GateError`.
    """
    champion = manager.champion(model)
    if champion is None:
        return None
    config = configuration([champion, *reversed(manager.versions(model))])
    data, record = gate_data(config, data_path), promoted_on(manager, champion)
    policy = load_policy(config.get("gate") or "default") if record is None else record.verdict.policy
    judged = None if record is None else record.images or dict.fromkeys(record.counts["challenger"].names)
    with scratch("monitor") as folder:
        files = manager.download_model(model, champion.version, folder / "model")
        chosen = choose_images(data, seen=_seen(files, champion), judged=judged, least=settings.min_images)
        fresh = chosen.fresh[: settings.newest]
        champion = manager.version(model, champion.version)  # with its files' hashes, if it was registered without
        samples = [*fresh, *chosen.reference]
        scorer = Scorer(samples, data.contents, data.mask_values, policy.metric, CountsCache(home() / "counts"))
        models, keep = {"champion": ServedModel(files)}, {"champion": champion}
        counts = scorer.score(models, keep=keep, on_image=on_image)["champion"]
    return judge_reading(
        counts,
        np.arange(len(counts.names)) < len(fresh),
        policy,
        settings,
        model=model,
        version=champion.version,
        data=data.fingerprint,
        metadata=metadata_columns(samples),
        as_promoted=chosen.as_promoted,
        dependence=dependence_note(policy, data.group_by),
    )


def judge_reading(
    counts: ImageCounts,
    fresh: NDArray[np.bool_],
    policy: Policy,
    settings: MonitorSettings,
    *,
    model: str,
    version: int,
    data: str,
    metadata: Metadata | None = None,
    as_promoted: bool = True,
    dependence: str | None = None,
) -> Reading:
    """Conclude from the counts of the `fresh` images (N,) and of the others: a pure function.

    Either is proven: degraded where even the upper end of the change is below -margin, healthy where the lower end is not.
    What lies between is undecided. Where the policy names groups, they count, not images. `as_promoted`: the others are what
    the version was promoted on, not all that the gate set holds today. `dependence` is what is to be said of images that
    depend on each other.
    """
    new, old = select_images(counts, fresh), select_images(counts, ~fresh)
    images = len(new.names)
    now, then = (_score(policy, part) for part in (new, old))
    groups, unknown = find_groups(policy, counts.names, metadata or {})
    alpha, low, high = 1 - settings.confidence, None, None
    if now is not None and then is not None and unknown is None:
        found = compare_sets(policy, counts, fresh, groups)
        low, high = finite(found.low(alpha)), finite(found.high(alpha))
    few = unknown or _few(policy, settings, images if groups is None else len(np.unique(groups[fresh])))
    state: State = "undecided"
    if few is None and low is not None and high is not None:
        state = "degraded" if high < -settings.margin else "healthy" if low >= -settings.margin else "undecided"
    return Reading(
        model=model,
        version=version,
        metric=policy.metric,
        state=state,
        sentence=_sentence(
            policy, settings, f"v{version} of {model}", images, len(old.names), now, then, low, high, state, few
        )
        + (f"; {_TODAYS_GATE}" if images and old.names and not as_promoted else "")
        + (f"; {dependence}" if images and dependence is not None else ""),
        images=images,
        reference_images=len(old.names),
        as_promoted=as_promoted,
        score=now,
        reference=then,
        low=low,
        high=high,
        class_scores={
            key: value
            for key, value in class_scores(policy.metric, new).items()
            if finite(value) is not None and (key not in new.classes or shown_classes(new)[new.classes.index(key)])
        }
        if images
        else {},
        margin=settings.margin,
        data=data,
    )


def _score(policy: Policy, counts: ImageCounts) -> float | None:
    """None also where the mean is over a class that no image shows: a false positive alone would make it 0."""
    over_classes = policy.average == "macro" and policy.metric != "pixel_accuracy"
    if over_classes and not shown_classes(counts).all():
        return None
    return finite(score(policy.metric, counts, average=policy.average))


def _few(policy: Policy, settings: MonitorSettings, units: int) -> str | None:
    """Why so many new images, or groups of them, conclude nothing; None where they are enough."""
    if units >= settings.min_images:
        return None
    needed = (
        f"{settings.min_images} new {'images' if policy.group_by is None else 'groups'} are needed to conclude anything"
    )
    return needed if policy.group_by is None else f"these are {units} groups by {policy.group_by!r}, and {needed}"


def _sentence(
    policy: Policy,
    settings: MonitorSettings,
    who: str,
    images: int,
    gate_images: int,
    now: float | None,
    then: float | None,
    low: float | None,
    high: float | None,
    state: State,
    few: str | None,
) -> str:
    if not images:
        return f"{who}: no labelled image came since its training"
    if not gate_images:
        return f"{who}: undecided: it was trained on every image of the gate, so there is nothing to compare with"
    if now is None or then is None:
        return f"{who}: undecided: the {images} new images, or the gate's, lack a class, so there is no {policy.metric_title}"
    told = f"{policy.metric_title} {now:.4f} on {images} new images, {then:.4f} on its gate images"
    if few is not None:
        return f"{who}: undecided: {told}; {few}"
    if low is None or high is None:
        return f"{who}: undecided: {told}; too few images carry a class to bound the change"
    ends = end_told(low, -settings.margin, ROUND_FLOOR), end_told(high, -settings.margin, ROUND_CEILING)
    change = f"a change between {ends[0]} and {ends[1]}, with {settings.margin:g} accepted"
    return f"{who}: {state}: {told}; {change}{'; more images would tell' if state == 'undecided' else ''}"


def _seen(files: Path, champion: ModelVersion) -> frozenset[str]:
    seen = SeenImages.read(files)
    if seen is None:
        raise ModelFilesError(
            f"{champion.model} v{champion.version} does not say which images it was trained on, so nobody knows which are "
            "new to it: it was trained elsewhere, or by an older Ratchet. Retrain it."
        )
    return seen.all
