"""The published schema of a verdict is that of the type."""

import json
from pathlib import Path

import jsonschema
import numpy as np

from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Context, ModelRef, judge, load_policy
from ratchet.gate.verdict import schema

PUBLISHED = Path(__file__).parents[1] / "docs" / "verdict.schema.json"
WRITE = "python -c \"from ratchet.gate.verdict import schema; print(schema(), end='')\" > docs/verdict.schema.json"


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema(), f"write it again: {WRITE}"


def test_every_field_of_the_schema_says_what_it_is() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    types = {"Verdict": published, **published["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, kind in types.items()
        for key, field in kind["properties"].items()
        if "description" not in field
    ]
    assert not silent


def test_a_verdict_is_valid_under_the_schema() -> None:
    counts = ImageCounts(("1", "2"), ("cat",), *np.array([[[5], [6]], [[1], [0]], [[0], [2]]]))
    context = Context(model="m", challenger=ModelRef(version=1, digest="a"), gate_set="g")
    verdict = judge(policy=load_policy("strict"), challenger=counts, context=context)
    jsonschema.validate(json.loads(verdict.to_json()), json.loads(schema()))
