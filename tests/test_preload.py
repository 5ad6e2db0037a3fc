"""What is imported before the first trial begins, and by whom."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.training.process import start_server

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


def test_filling_the_cache_needs_no_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from ratchet.data import ShapesDataModule
size = {{"size": 32, "input_height": 16, "input_width": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}}
folders = {{"data_path": {str(tmp_path / "shapes")!r}, "cache_path": {str(tmp_path / "cache")!r}}}
ShapesDataModule(months=2, images_per_month=4, cache=True, **size, **folders).fill_cache()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
    assert list((tmp_path / "cache").glob("*.npy"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells in a file what a process has loaded")
def test_imports_that_nobody_waits_for_any_more_are_broken_off() -> None:
    starter = """
import subprocess, sys, time
from pathlib import Path
program = "import ratchet.training.preload; print('all of it')"
child = subprocess.Popen([sys.executable, "-c", program])
loaded = Path(f"/proc/{child.pid}/maps")
while child.poll() is None and "libtorch" not in loaded.read_text():
    time.sleep(0.02)
"""
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.trains
def test_a_process_of_the_fork_server_has_what_a_trial_needs_before_it_asks_for_it(tmp_path: Path) -> None:
    start_server()
    looked = tmp_path / "looked"
    code = (
        f"import sys, pathlib; pathlib.Path({str(looked)!r}).write_text(str('ratchet.training.trial' in sys.modules))"
    )
    process = multiprocessing.get_context("forkserver").Process(target=exec, args=(code,))
    process.start()
    process.join(120)
    assert looked.read_text() == "True"


def test_planning_needs_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, ratchet.planning; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
