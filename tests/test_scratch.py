"""Folders for a while: gone with their block, or with the next one where their process was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ratchet.scratch import scratch

HOLD = """
import sys
from ratchet.scratch import scratch
with scratch("gate") as folder:
    (folder / "model").write_bytes(b"much")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_and_what_others_use_stays(ratchet_home: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    left = Path(other.stdout.readline().strip())
    with scratch("gate") as first, scratch("gate"):
        assert first.is_dir()
        assert (left / "model").is_file()
    other.kill()
    other.communicate()
    assert left.is_dir()
    with scratch("gate") as first:
        assert list(left.parent.iterdir()) == [first]
    assert not list(left.parent.iterdir())
