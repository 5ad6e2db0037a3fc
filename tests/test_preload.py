"""What the fork server imports before any trial asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import ratchet.training.preload
print("scipy.signal" in sys.modules, "ratchet.training.trial" in sys.modules)
import scipy.signal
from torchmetrics.audio import ScaleInvariantSignalDistortionRatio
print(scipy.signal.windows.hamming(3).max(), ScaleInvariantSignalDistortionRatio.__name__)
"""


@pytest.mark.slow
def test_what_the_preload_leaves_out_is_there_for_who_asks_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False True", "1.0 ScaleInvariantSignalDistortionRatio"]
