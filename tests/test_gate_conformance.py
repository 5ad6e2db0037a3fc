"""What the gate answers in every awkward case: a table of named cases, each with its outcome and its reason."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import conformance_data
import conformance_evidence
import conformance_scores
import pytest
from conformance_cases import CASES, Case
from conformance_stories import STORIES, Story

from ratchet.gate import Verdict, judge

TABLES = (conformance_scores, conformance_data, conformance_evidence)
"""The modules that fill `CASES` when they are imported."""


@functools.cache
def judged(situation: Case) -> Verdict:
    return judge(**situation.arguments())


@pytest.mark.parametrize("situation", CASES, ids=lambda situation: situation.name)
def test_the_gate_answers_as_the_table_says(situation: Case) -> None:
    if not isinstance(situation.expected, str):
        with pytest.raises(situation.expected, match=situation.reason):
            judged(situation)
        return
    verdict = judged(situation)
    assert verdict.outcome == situation.expected, verdict.sentence
    failed = [f"on {check.slice}: {check.why}" for check in verdict.checks if not check.passed]
    said = " ".join([verdict.sentence, *failed])
    assert re.search(situation.reason, said), said
    assert Verdict.from_json(verdict.to_json()).digest == verdict.digest


@pytest.mark.slow
@pytest.mark.parametrize("situation", STORIES, ids=lambda situation: situation.name)
def test_every_story_ends_as_the_table_says(situation: Story, tmp_path: Path) -> None:
    if not isinstance(situation.expected, str):
        with pytest.raises(situation.expected, match=re.escape(situation.reason)):
            situation.play(tmp_path / "story")
        return
    outcome, said = situation.play(tmp_path / "story")
    assert outcome == situation.expected
    assert situation.reason in said


def test_the_table_is_large_and_its_names_are_unique() -> None:
    assert len({situation.name for situation in CASES}) == len(CASES) > 60


def test_no_awkward_case_leaves_a_rule_of_its_policy_without_a_check() -> None:
    for situation in CASES:
        if isinstance(situation.expected, str):
            verdict = judged(situation)
            asked = {rule for rule in ("leak", "serves") if getattr(verdict.policy, rule)}
            if verdict.champion is not None:
                asked |= {
                    rule for rule in ("superiority", "non_inferiority", "anchor") if getattr(verdict.policy, rule)
                }
            assert asked <= {check.rule for check in verdict.checks}, situation.name
