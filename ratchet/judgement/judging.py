"""Judges a registered version: both models scored afresh on the same images, and all of it kept beside the challenger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.data.samples import metadata_columns
from ratchet.errors import GateError, ModelFilesError
from ratchet.evaluation.counts import ImageCounts
from ratchet.evaluation.served import CARD_FILE, ModelCard, ServedModel, SilentModel
from ratchet.gate import Context, Evidence, Policy, Verdict, judge
from ratchet.gate.contrasts import dependence_note
from ratchet.gate.record import write_record
from ratchet.gate.report import html_report
from ratchet.home import home
from ratchet.judgement.anchor import FoundAnchor, find_anchor, require_to_compare
from ratchet.judgement.cache import CountsCache
from ratchet.judgement.evidence import collect_evidence, images_seen, is_usable
from ratchet.judgement.page import write_page
from ratchet.judgement.records import REPORT_FILE, earlier_uses, judged_of, keep_file, keep_record, model_ref, origin
from ratchet.judgement.scorer import Scorer
from ratchet.registry import EventKind
from ratchet.scratch import scratch

if TYPE_CHECKING:
    from ratchet.registry import MlflowModelManager, ModelVersion

_logger = logging.getLogger(__name__)

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
    itself, against another version, or against one that is champion no more. Raises `RegistryError`, `DataError`, `GateError`.
    """
    challenger, champion = manager.version(model, version), manager.champion(model)
    other = champion if against is None else manager.version(model, against)
    decides = other == champion and challenger != champion
    samples = data.gate_samples
    with scratch("gate") as folder:
        versions = {"challenger": challenger} | ({} if other is None else {"champion": other})
        measured = _measure(policy, versions, data, manager=manager, folder=folder / "models", on_image=on_image)
        anchor, counts = measured.anchor, measured.counts
        challenger, other = measured.versions["challenger"], measured.versions.get("champion")
        verdict = judge(
            policy=policy,
            challenger=counts["challenger"],
            champion=counts.get("champion"),
            anchor=counts.get("anchor"),
            context=Context(
                model=model,
                challenger=model_ref(challenger),
                champion=None if other is None else model_ref(other),
                anchor=None if anchor is None else model_ref(anchor),
                gate_set=data.gate_fingerprint,
                earlier_uses=earlier_uses(manager.history(model), data.gate_fingerprint, challenger),
                **origin(challenger),
            ),
            metadata=metadata_columns(samples),
            evidence=measured.evidence,
        )
        artifacts = folder / "artifacts"
        contents = {sample.name: data.contents[sample.name].image for sample in samples}
        write_record(artifacts, verdict, counts, metadata=metadata_columns(samples), images=contents)
        page = artifacts / REPORT_FILE
        page.write_text(html_report(verdict), encoding="utf-8")
        run_id = keep_record(artifacts, verdict, challenger)
        now = manager.champion(model)  # production may have changed meanwhile
        decides = decides and (now and now.version) == (champion and champion.version)
        kind = EventKind.GATED if decides else EventKind.NOTED
        told = [e for e in judged_of(manager.history(model), version) if e.kind is kind]
        again = told and verdict.digest in {e.verdict_digest for e in told[:-1]} - {told[-1].verdict_digest}
        manager.record(
            model,
            kind,
            version=version,
            outcome=verdict.outcome,
            reason=verdict.sentence
            if decides or other is None
            else f"compared with v{other.version}: {verdict.sentence}",
            verdict_digest=verdict.digest,
            # One that was given before another one counts anew: the last in the history is the one that holds.
            key=f"{verdict.digest} after {told[-1].number}" if again else None,
            gate_set=verdict.gate_set,
            anchor=None if anchor is None else anchor.version,
            run_id=run_id,
        )
        # Pictures come last, into a report that is there without them: no verdict is lost to what they cost.
        try:
            write_page(page, verdict, measured.models, samples, data.mask_values, counts)
            keep_file(page, verdict, run_id)
        except Exception:
            _logger.warning("the report of %s v%d has no pictures of gate images", model, version, exc_info=True)
    return verdict


def _require_card(directory: Path, champion: ModelVersion) -> None:
    """Say what to do where the champion was made by others, so that nobody knows how to feed it."""
    try:
        ModelCard.read(directory)
    except ModelFilesError as error:
        raise ModelFilesError(
            f"the champion, v{champion.version} of {champion.model}, was not exported by Ratchet: without its {CARD_FILE} nobody "
            "knows how images are given to it, and nothing can be compared with it. How such a model takes part, see "
            f"docs/registry.md, A model from elsewhere ({error})"
        ) from error


@dataclass(frozen=True)
class _Measured:
    """What a verdict is made from: the models and counts by role, the anchor, and the evidence of the other rules."""

    versions: Mapping[str, ModelVersion]
    models: Mapping[str, ServedModel]
    counts: Mapping[str, ImageCounts]
    anchor: ModelVersion | None
    evidence: Evidence


def _measure(
    policy: Policy,
    versions: Mapping[str, ModelVersion],
    data: Any,
    *,
    manager: MlflowModelManager,
    folder: Path,
    on_image: OnImage,
) -> _Measured:
    """Fetch the models, checked against the hashes of their registration; try them, then count them."""
    if "champion" not in versions:
        require_to_compare(policy, manager, versions["challenger"].model)
    samples, copies = data.gate_samples, len(data.samples[data.gate_split]) - len(data.gate_samples)
    files = {role: manager.download_model(v.model, v.version, folder / role) for role, v in versions.items()}
    # One that was registered outside Ratchet got its files' hashes when it was fetched.
    versions = {role: manager.version(v.model, v.version) for role, v in versions.items()}
    champion = versions.get("champion")
    if champion is not None:
        _require_card(files["champion"], champion)
    digests = data.image_digests(data.gate_split)
    gate = {sample.name: digests[sample.name] for sample in samples}
    seen = partial(images_seen, test_today=frozenset(data.image_digests("test").values()))
    training = {role: seen(versions[role], directory) for role, directory in files.items()} if policy.leak else {}
    evidence = collect_evidence(policy, files, samples, gate, training)
    models = _load(files, usable=is_usable(evidence.serves))
    scorer = Scorer(samples, data.contents, data.mask_values, policy.metric, CountsCache(home() / "counts"))
    counts, cached = _score(scorer, models, champion, on_image)
    anchor = FoundAnchor()
    if policy.anchor is not None:  # also while production is empty: there may have been champions
        today = {version.version: counts[role] for role, version in versions.items()}
        reference = champion or versions["challenger"]
        anchor = find_anchor(policy, reference, today, scorer=scorer, manager=manager, gate=gate.values(), seen=seen)
        if champion is None and anchor.version is None and anchor.notes:
            raise GateError(
                f"production is empty, and no version that was in it can be compared with: {'; '.join(anchor.notes)}. Put one "
                f"of them back (ratchet promote {reference.model} VERSION), or delete them: without any, it is a first model."
            )
    counts |= {} if anchor.counts is None else {"anchor": anchor.counts}
    same = (f"{copies} gate images are copies of others, byte for byte, and are left out",) if copies else ()
    compared = champion is not None or anchor.counts is not None
    dependent = filter(None, [dependence_note(policy, data.group_by) if compared else None])
    notes = (*evidence.notes, *same, *dependent, *cached, *anchor.notes)
    return _Measured(versions, models, counts, anchor.version, evidence.model_copy(update={"notes": notes}))


def _load(files: Mapping[str, Path], *, usable: bool) -> dict[str, ServedModel]:
    """Load the models; a challenger that gave no usable answer when it was tried is not let in, and finds nothing."""
    return {
        role: ServedModel(path) if usable or role != "challenger" else SilentModel(ModelCard.read(path))
        for role, path in files.items()
    }


def _score(
    scorer: Scorer, models: Mapping[str, ServedModel], champion: ModelVersion | None, on_image: OnImage
) -> tuple[dict[str, ImageCounts], tuple[str, ...]]:
    """Counts by role, and a note where not all of the champion's are from today."""
    images, before = len(scorer.samples), 0 if champion is None else scorer.images_before(champion)
    counts = scorer.score(models, keep={} if champion is None else {"champion": champion}, on_image=on_image)
    which = "these images" if before == images else f"{before} of these {images} images"
    return counts, (f"the champion's counts are those that its files gave on {which} before",) if before else ()
