"""Scores versions on one gate set: all that is new in one pass over the images, what is known already not again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratchet.evaluation.counts import ImageCounts, unmeasured
from ratchet.evaluation.scoring import score_models
from ratchet.judgement.cache import CountsCache
from ratchet.judgement.records import model_ref

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
