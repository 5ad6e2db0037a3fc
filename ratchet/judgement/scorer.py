"""Scores versions on one gate set: all that is new in one pass over the images, what is known already not again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratchet.errors import ModelFilesError
from ratchet.evaluation.counts import ImageCounts, unmeasured
from ratchet.evaluation.scoring import score_models
from ratchet.gate import ModelRef
from ratchet.judgement.cache import CountsCache

if TYPE_CHECKING:
    from ratchet.data import Sample
    from ratchet.evaluation.served import ServedModel
    from ratchet.judgement.judging import OnImage
    from ratchet.registry import ModelVersion


@dataclass(frozen=True)
class Scorer:
    """A gate set with its fingerprint, the metric that the counts are for, and the counts that were kept."""

    samples: Sequence[Sample]
    mask_values: Mapping[int, int]
    gate_set: str
    metric: str
    cache: CountsCache

    def known(self, version: ModelVersion) -> ImageCounts | None:
        """Counts of the same files on the same images, if an earlier judgement kept them and the metric is in them."""
        counts = self.cache.find(model=model_ref(version).digest, gate_set=self.gate_set)
        return None if counts is None or unmeasured(self.metric, counts) else counts

    def score(
        self, models: Mapping[str, ServedModel], *, keep: Mapping[str, ModelVersion], on_image: OnImage = None
    ) -> dict[str, ImageCounts]:
        """Count these models in one pass; the counts of those that `keep` names are kept for later judgements."""
        counts = score_models(models, self.samples, self.mask_values, metric=self.metric, on_image=on_image)
        for name in keep.keys() & counts.keys():
            self.cache.keep(counts[name], model=model_ref(keep[name]).digest, gate_set=self.gate_set)
        return counts


def model_ref(version: ModelVersion) -> ModelRef:
    """Name a version by the content of its files. Raises `ModelFilesError` where no hashes of them are recorded."""
    if version.digests is None:
        raise ModelFilesError(
            f"{version.model} v{version.version} was registered without the hashes of its files, so no verdict on it could "
            "be checked again. Register its model once more with `register_model`."
        )
    digest = hashlib.sha256(json.dumps(version.digests, sort_keys=True).encode()).hexdigest()
    return ModelRef(version=version.version, digest=digest)
