"""Every error has its line in the docs, its place in the tree, and survives the way from a child process."""

import inspect
import pickle
import re
from pathlib import Path

import pytest

from ratchet import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.RatchetError)]
RAISED = [kind for kind in KINDS if kind not in (errors.RatchetError, errors.ServiceError)]
ROOT = Path(__file__).parent.parent


def test_the_docs_have_a_line_for_each_error_and_no_other() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {kind.__name__ for kind in RAISED}


def test_an_error_without_a_line_is_raised_only_as_one_of_its_kinds() -> None:
    code = "\n".join(path.read_text() for top in ("ratchet", "tasks", "flows") for path in (ROOT / top).rglob("*.py"))
    assert not set(re.findall(r"\braise (\w+)", code)) & {kind.__name__ for kind in KINDS if kind not in RAISED}


def test_the_tree_in_the_docstring_shows_each_error() -> None:
    assert set(re.findall(r"(\w+Error)\b", errors.__doc__ or "")) == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_from_another_process(kind: type[errors.RatchetError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what, where, what to do")))
    assert (type(again), str(again)) == (kind, "what, where, what to do")
