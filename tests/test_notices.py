"""Notices: which events they may tell of, and that the examples are in order."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.service.notices import load_notices
from ratchet.errors import ConfigError

pytestmark = pytest.mark.slow  # Prefect takes seconds to import

EXAMPLES = Path(__file__).parent.parent / "deployments" / "notices.yaml"
NOTICE = {"name": "n", "block": "webhook/hook", "body": "{}"}


def written(folder: Path, *events: str) -> Path:
    path = folder / "notices.yaml"
    path.write_text(yaml.safe_dump([NOTICE | {"events": list(events)}]))
    return path


def test_the_examples_are_in_order_and_off(tmp_path: Path) -> None:
    assert {notice.enabled for notice in load_notices(EXAMPLES)} == {False}
    assert load_notices(tmp_path / "absent.yaml") == ()


@pytest.mark.parametrize("event", ["ratchet.model.promoted", "ratchet.model.*", "ratchet.data.changed"])
def test_a_notice_tells_of_what_happens_to_models(event: str, tmp_path: Path) -> None:
    assert load_notices(written(tmp_path, event))[0].events == (event,)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("ratchet.approval.asked.72h", "docs/events.md"),
        ("prefect.flow-run.Failed", "nothing of that name is announced of a model"),
        ("ratchet.model.promote", "nearest: ratchet.model.promoted"),
    ],
)
def test_an_event_that_no_notice_can_match_is_refused(event: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"notices\.yaml: 0\.events\.1: .*{told}"):
        load_notices(written(tmp_path, "ratchet.model.gated", event))
