"""What is asked of MLflow: to the end of its pages, and in words that it reads."""

from __future__ import annotations

import pytest

from ratchet.errors import RegistryError
from ratchet.registry.searches import (
    all_experiments,
    all_runs,
    ensure_experiment,
    one_of_runs,
    quoted_name,
    quoted_text,
)
from ratchet.registry.tracking import client


@pytest.mark.usefixtures("stored_home")
def test_every_run_and_every_experiment_is_found_however_few_come_in_one_answer() -> None:
    experiments = [ensure_experiment(f"e{number}") for number in range(5)]
    store = client()
    store.delete_experiment(experiments[3])
    assert {found.name for found in all_experiments(store, page=2)} - {"Default"} == {"e0", "e1", "e2", "e4"}
    made = [
        store.create_run(experiments[number % 2], start_time=number + 1, tags={"odd": str(number % 2)}).info.run_id
        for number in range(7)
    ]
    newest = all_runs(store, experiments[:2], "", page=2)
    assert [run.info.run_id for run in newest] == made[::-1]
    oldest = all_runs(store, experiments[:2], "tags.odd = '1'", order=["attributes.start_time ASC"], page=2)
    assert [run.info.run_id for run in oldest] == made[1::2]
    assert all_runs(store, experiments[2:3], "", page=2) == []


def test_texts_and_names_are_written_as_mlflow_reads_them() -> None:
    assert [quoted_text(text) for text in ("a", "it's", 'say "x"')] == ["'a'", '"it\'s"', "'say \"x\"'"]
    assert quoted_name("val/iou of all") == "`val/iou of all`"
    with pytest.raises(RegistryError, match="both kinds of quotes"):
        quoted_text("both'\"")
    with pytest.raises(RegistryError, match="backquote"):
        quoted_name("a`b")


def test_many_runs_are_asked_for_some_at_a_time() -> None:
    conditions = list(one_of_runs([str(number) for number in range(120)]))
    assert [condition.count("'") // 2 for condition in conditions] == [50, 50, 20]
    assert conditions[2].startswith("run_id IN ('100', '101', ")
    assert list(one_of_runs([])) == []
