"""How many threads a process starts: as many as it has cores, or as its container's quota comes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet.cores import cores


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_containers_quota_bounds_the_threads_and_a_container_without_one_has_all_cores(
    files: dict[str, str], found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cores([tmp_path]) == found
    assert cores([tmp_path / "absent", tmp_path]) == found
    monkeypatch.setattr("ratchet.cores.own_groups", lambda controller: [tmp_path] if controller == "cpu" else [])
    assert cores() == found
