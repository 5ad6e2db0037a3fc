"""What a policy is worth: a year of simulated weekly retrainings under our policies and under the usual rules of thumb.

Each model has a true quality; on image i it scores quality + 0.15 (√0.85 dᵢ + √0.15 eᵢ), with dᵢ shared by all models
(a hard image is hard for all) and eᵢ its own. A retraining draws its quality from N(0.70, 0.01). The gate set is either
`kept` for the year, so that a lucky champion stays lucky, or `renewed` every week. Policies are judged by the gate's
own code; rules that need no counts (leak, serves, budget) are not simulated.

    python benchmarks/gate_quality.py [--repeats 300] [--weeks 52] [--images 50 200 1000] [--only equal|year]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Context, ModelRef, Policy, judge, load_policy
from ratchet.gate.bootstrap import Pair, resample
from ratchet.gate.comparison import check_differences
from ratchet.gate.contrasts import find_differences

Floats = NDArray[np.float64]
START, SPREAD, SHARED, NOISE = 0.70, 0.15, 0.85, 0.01
UNION = 10_000  # pixels of truth and prediction together, so that an image's IoU has four digits
SIZES = (50, 200, 1_000)
LEVEL = 0.05
AT_ONCE = 100  # repeats judged together: under 1 GB


@dataclass(frozen=True)
class GateSet:
    """How hard each image is, (repeats, images), and the random stream of everything else."""

    hard: Floats
    random: np.random.Generator

    def scores(self, quality: Floats) -> Floats:
        """One new model per repeat, of this quality (repeats,), on every image."""
        own = self.random.normal(size=self.hard.shape)
        return np.clip(quality[:, None] + SPREAD * (SHARED**0.5 * self.hard + (1 - SHARED) ** 0.5 * own), 0, 1)


def counts(scores: Floats) -> ImageCounts:
    """Counts of one class with these IoUs."""
    tp = np.round(scores * UNION).astype(np.int64)[:, None]
    names = tuple(map(str, range(len(scores))))
    return ImageCounts(names, ("part",), tp, np.zeros_like(tp), UNION - tp)


Rule = Callable[[Floats, Floats, Floats], NDArray[np.bool_]]
"""Challenger's, champion's and anchor's scores, (repeats, images) each → which repeats promote."""


def margin_rule(margin: float) -> Rule:
    """Promote when the mean score is at least this much above the champion's."""
    return lambda challenger, champion, _: challenger.mean(axis=1) - champion.mean(axis=1) >= margin


def policy_rule(policy: Policy) -> Rule:
    """Promote as the gate does; all repeats share one resampling, as the same policy on as many images always does."""

    def some(challenger: Floats, champion: Floats, anchor: Floats) -> list[bool]:
        found = [
            find_differences(policy, counts(a), counts(b), anchor=counts(c))
            for a, b, c in zip(challenger, champion, anchor, strict=True)
        ]
        pairs = [contrast.pair for one in found for contrast in one.contrasts]
        results = iter(resample(pairs, metric=policy.metric, resamples=policy.resamples, seed=policy.seed))
        checked = [check_differences(policy, one, [next(results) for _ in one.contrasts])[0] for one in found]
        return [all(check.passed for check in checks) for checks in checked]

    def promotes(challenger: Floats, champion: Floats, anchor: Floats) -> NDArray[np.bool_]:
        starts = range(0, len(challenger), AT_ONCE)
        return np.array(
            [p for s in starts for p in some(*(m[s : s + AT_ONCE] for m in (challenger, champion, anchor)))]
        )

    return promotes


def year(rule: Rule, *, images: int, repeats: int, weeks: int, kept: bool, seed: int) -> tuple[float, float, float]:
    """Promotions, truly worse promotions and final true gain of a year, averaged over the repeats."""
    random = np.random.default_rng(seed)
    gate = GateSet(random.normal(size=(repeats, images)), random)
    quality = np.full(repeats, START)
    best_quality = quality.copy()
    champion = anchor = gate.scores(quality)
    promotions, worse = np.zeros(repeats), np.zeros(repeats)
    for _ in range(weeks):
        if not kept:
            gate = GateSet(random.normal(size=(repeats, images)), random)
            champion, anchor = gate.scores(quality), gate.scores(best_quality)
        new = random.normal(START, NOISE, repeats)
        challenger = gate.scores(new)
        promoted = rule(challenger, champion, anchor)
        promotions += promoted
        worse += promoted & (new < quality)
        quality = np.where(promoted, new, quality)
        champion = np.where(promoted[:, None], challenger, champion)
        better = promoted & (champion.mean(axis=1) > anchor.mean(axis=1))
        anchor = np.where(better[:, None], champion, anchor)
        best_quality = np.where(better, quality, best_quality)
    return float(promotions.mean()), float(worse.mean()), float(quality.mean() - START)


SCORES_ONLY = {"floor": None, "leak": False, "serves": None, "budget": None}


def years(sizes: Sequence[int], repeats: int, weeks: int) -> None:
    """The table of policies and rules of thumb."""
    rules = {">=": margin_rule(0.0), "+0.005": margin_rule(0.005), "tolerance -0.01": margin_rule(-0.01)}
    for name in ("default", "strict", "permissive"):
        values = load_policy(name).model_dump() | SCORES_ONLY
        rules[f"policy {name}"] = policy_rule(load_policy(values))
    print("| gate set | images | rule | promotions | truly worse | final true gain | of `>=` |")
    print("|---|---|---|---|---|---|---|")
    for images in sizes:
        for kept in (False, True):
            reference = 0.0
            for name, rule in rules.items():
                done = year(rule, images=images, repeats=repeats, weeks=weeks, kept=kept, seed=images)
                reference = reference or done[2]
                label = "kept" if kept else "renewed"
                figures = f"{done[0]:.2f} | {done[1]:.3f} | {done[2]:+.4f} | {done[2] / reference:.0%}"
                print(f"| {label} | {images} | {name} | {figures} |", flush=True)


def equal_models(trials: int) -> None:
    """How often one of two equal models is called better at a level of 5 %: plain and expanded percentile interval."""
    print(f"| images | objects | plain percentile | ours | standard error |  ({trials} trials)")
    print("|---|---|---|---|---|")
    error = (LEVEL * (1 - LEVEL) / trials) ** 0.5
    for images in SIZES:
        for objects in ("equal sizes", "sizes over two decades", "one image in three holds the class"):
            plain = ours = 0
            for batch in range(trials // 250):
                pairs = [equal_pair(images, objects, np.random.default_rng([images, batch, i])) for i in range(250)]
                for result in resample(pairs, metric="iou", resamples=10_000, seed=batch):
                    plain += float(result.for_low[int(LEVEL * 10_001) - 1]) > 0
                    ours += result.low(LEVEL) > 0
            print(f"| {images} | {objects} | {plain / trials:.2%} | {ours / trials:.2%} | {error:.2%} |", flush=True)


def equal_pair(images: int, objects: str, random: np.random.Generator) -> Pair:
    """Two models of the same quality on new images."""
    gate = GateSet(random.normal(size=(1, images)), random)
    size = np.full(images, 1.0)
    if objects == "sizes over two decades":
        size = np.exp(random.normal(0, 1, images))
    elif objects != "equal sizes":
        size = (random.random(images) < 1 / 3) + 0.0
    union = np.round(size * UNION).astype(np.int64)[:, None]

    def model() -> ImageCounts:
        tp = np.round(gate.scores(np.array([START]))[0][:, None] * union).astype(np.int64)
        return ImageCounts(tuple(map(str, range(images))), ("part",), tp, np.zeros_like(tp), union - tp)

    found = find_differences(load_policy("default"), model(), model())
    return found.overall.pair


def agrees_with_judge(policy: Policy, samples: int = 20) -> bool:
    """Whether the batched simulation promotes exactly where `judge` does."""
    random = np.random.default_rng(1)
    gate = GateSet(random.normal(size=(samples, 200)), random)
    one, other = gate.scores(random.normal(START + 0.01, NOISE, samples)), gate.scores(np.full(samples, START))
    models = {"challenger": ModelRef(version=2, digest="b"), "champion": ModelRef(version=1, digest="a")}
    context = Context.model_validate({"model": "m", "gate_set": "g", **models})
    alone = [
        judge(policy=policy, challenger=counts(a), champion=counts(b), context=context).passed
        for a, b in zip(one, other, strict=True)
    ]
    return bool(np.array_equal(policy_rule(policy)(one, other, other), alone))


def main() -> None:
    """Run the simulations and print their tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--images", type=int, nargs="+", default=SIZES)
    parser.add_argument("--trials", type=int, default=8_000)
    parser.add_argument("--only", choices=("equal", "year"))
    options = parser.parse_args()
    start = time.monotonic()
    policy = load_policy(load_policy("default").model_dump() | SCORES_ONLY)
    print(f"simulation and judge agree: {agrees_with_judge(policy)}\n")
    if options.only != "year":
        equal_models(options.trials)
        print()
    if options.only != "equal":
        years(options.images, options.repeats, options.weeks)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
