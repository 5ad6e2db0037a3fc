"""What others let through: the cases of tests/test_gate_conformance.py on plain `>=` and on MLflow's validation.

The two baselines see what they are usually given: one number per model, taken from the same counts. `>=` promotes when
the challenger's is not lower; MLflow's `validate_evaluation_results` is asked for the policy's floor and for a relative
gain of at least zero. A case that our gate refuses with an error counts as let through when a baseline promotes it. In
the stories, where something happens to the registry, the record or the files, the number is that of a clear gain, if
there is any.

    python benchmarks/gate_conformance.py
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import EvaluationResult, MetricThreshold

from ratchet.errors import GateError, RatchetError
from ratchet.evaluation.counts import ImageCounts, score, unmeasured
from ratchet.gate import judge

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conformance_cases import better
from conformance_stories import STORIES, Story
from test_gate_conformance import CASES


def number(metric: str, counts: ImageCounts | None) -> float | None:
    """The one number that a baseline is given; None when there is no model or no such metric."""
    return None if counts is None or unmeasured(metric, counts) else score(metric, counts)


def plain(policy: Any, challenger: float | None, champion: float | None) -> str:
    """`challenger >= champion`, and the floor alone for a first model."""
    if challenger is None:
        return "error"
    if champion is None:
        return "promote" if policy.floor is None or challenger >= policy.floor else "reject"
    return "promote" if challenger >= champion else "reject"


def by_mlflow(policy: Any, challenger: float | None, champion: float | None) -> str:
    """`validate_evaluation_results` with the floor and a relative gain of at least zero."""
    if policy.floor is None and champion is None:
        return "promote"  # it refuses to be asked for nothing, so nobody asks it
    threshold = MetricThreshold(
        threshold=policy.floor,
        min_relative_change=None if champion is None else 1e-10,
        greater_is_better=True,
    )

    def result(value: float | None) -> EvaluationResult:
        return EvaluationResult(metrics={} if value is None else {policy.metric: value}, artifacts={})

    try:
        mlflow.validate_evaluation_results(
            candidate_result=result(challenger),
            baseline_result=None if champion is None else result(champion),
            validation_thresholds={policy.metric: threshold},
        )
    except MlflowException as error:
        return "reject" if "not pass" in str(error) or "failed" in str(error).lower() else "error"
    except (TypeError, ValueError, ZeroDivisionError, AttributeError):
        return "error"
    return "promote"


def ours(arguments: dict[str, Any]) -> str:
    """Our gate's answer."""
    try:
        return judge(**arguments).outcome
    except GateError as error:
        return type(error).__name__


def case_answers(arguments: dict[str, Any]) -> dict[str, str]:
    """Everyone's answer to one case."""
    figures = [number(arguments["policy"].metric, arguments[role]) for role in ("challenger", "champion")]
    return {
        "Ratchet": ours(arguments),
        ">=": plain(arguments["policy"], *figures),
        "MLflow": by_mlflow(arguments["policy"], *figures),
    }


def story_answers(story: Story, folder: Path) -> dict[str, str]:
    """Everyone's answer to one story; the baselines see a challenger that is clearly better, where they are asked."""
    try:
        outcome = story.play(folder)[0]
    except RatchetError as error:
        outcome = type(error).__name__
    others = case_answers(better()) if story.one_number else {">=": "not asked", "MLflow": "not asked"}
    return {**others, "Ratchet": outcome}


def main() -> None:
    """Print the table, and how many cases that must not be promoted each lets through."""
    logging.disable(logging.INFO)
    let_through = {"Ratchet": 0, ">=": 0, "MLflow": 0}
    refused = 0
    print("| case | must be | Ratchet | `>=` | MLflow |")
    print("|---|---|---|---|---|")
    for case in (*CASES, *STORIES):
        expected = case.expected if isinstance(case.expected, str) else case.expected.__name__
        try:
            if isinstance(case, Story):
                with tempfile.TemporaryDirectory() as folder:
                    answers = story_answers(case, Path(folder) / "story")
            else:
                answers = case_answers(case.arguments())
        except GateError as error:  # refused before it could be judged: no number exists for the others either
            answers = {"Ratchet": type(error).__name__, ">=": "no number", "MLflow": "no number"}
        print(f"| {case.name} | {expected} | {' | '.join(answers[name] for name in let_through)} |", flush=True)
        if expected != "promote":
            refused += 1
            for name, answer in answers.items():
                let_through[name] += answer == "promote"
    print(f"\nOf {refused} cases that must not be promoted, let through: {let_through}")


if __name__ == "__main__":
    main()
