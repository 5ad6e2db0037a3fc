"""The probe: a fresh process that tries an exported model, and tells every way in which it can fail."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from exported_models import BEST, SIZE, Brightness, Hanging, export
from torch import nn

from ratchet.errors import GateError
from ratchet.evaluation import probe_process
from ratchet.evaluation.probe import Exported, ProbeAnswer, time_models, try_model
from ratchet.evaluation.signature import expected_shape, read_signature

pytestmark = pytest.mark.slow
IMAGES = np.random.default_rng(0).random((2, 3, SIZE, SIZE), dtype=np.float32)
PATIENCE = 300  # seconds that a busy machine may take to import torch


def tried(directory: Path) -> ProbeAnswer:
    return try_model(Exported(directory, IMAGES), time_limit=PATIENCE)


def test_a_sound_export_answers_as_the_trained_model_did_and_the_process_is_measured(tmp_path: Path) -> None:
    held = np.ones(40_000_000)  # 320 MB of the parent's must not count as the child's
    answer = tried(export(tmp_path / "model", Brightness(BEST)))
    assert answer.error is None
    assert answer.shapes == ((1, 1, SIZE, SIZE),) * 2
    assert answer.finite
    assert answer.difference == pytest.approx(0, abs=1e-5)
    large = tried(export(tmp_path / "large", Brightness(BEST, ballast=50_000_000)))
    assert answer.memory_mb is not None
    assert large.memory_mb is not None
    assert held.nbytes / 1e6 > 300
    assert 150 < large.memory_mb - answer.memory_mb < 300


def test_where_the_system_does_not_tell_its_memory_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  100 kB\n")  # as in gVisor
    monkeypatch.setattr(probe_process, "_STATUS", tmp_path / "status")
    np.save(tmp_path / "images.npy", IMAGES)
    model = export(tmp_path / "model", Brightness(BEST)) / "model.pt"
    told = probe_process.answer({"model": str(model), "images": str(tmp_path / "images.npy"), "reference": None})
    assert told["memory_mb"] is None
    assert told["shapes"] == [[1, 1, SIZE, SIZE]] * 2


def test_a_process_that_is_killed_from_outside_is_told_from_one_that_answers(tmp_path: Path) -> None:
    directory = export(tmp_path / "model", Hanging(), reference=nn.Identity())
    assert _killed(directory, times=2).error == "its process was killed by SIGKILL, twice: no output"


def test_what_the_kernel_kills_once_for_the_memory_of_others_is_no_fault_of_the_model(tmp_path: Path) -> None:
    answer = _killed(export(tmp_path / "model", Brightness(BEST)), times=1)
    assert answer.error is None
    assert answer.finite


def _killed(directory: Path, *, times: int) -> ProbeAnswer:
    """The answer of a model whose process is killed so many times, as the kernel does when memory runs out."""
    killed = set[int]()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tried, directory)
        while not answer.done():
            for child in psutil.Process().children():
                if "probe_process.py" in " ".join(child.cmdline()) and (child.pid in killed or len(killed) < times):
                    child.kill()
                    killed.add(child.pid)
            time.sleep(0.01)
    return answer.result()


def test_a_machine_on_which_nothing_can_be_tried_rejects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "probe_process.py"
    script.write_text("raise SystemExit('No space left on device')\n")
    monkeypatch.setattr(probe_process, "__file__", str(script))
    with pytest.raises(GateError, match=r"cannot be tried on this machine: .* status 1 .*No space left"):
        tried(export(tmp_path / "model", Brightness(BEST)))


def test_an_export_of_other_weights_than_the_trained_ones_is_seen(tmp_path: Path) -> None:
    answer = tried(export(tmp_path / "model", Brightness(BEST + 0.1), reference=Brightness(BEST)))
    assert answer.difference is not None
    assert answer.difference > 0.01


@pytest.mark.parametrize("namespace", [True, False])
def test_the_process_reaches_no_network(namespace: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        code = (
            "import runpy, socket, sys\n"
            "process = runpy.run_path(sys.argv[1])\n"
            f"print(process['forbid_network'](namespace={namespace}))\n"
            f"socket.create_connection(('127.0.0.1', {port}), timeout=5)\n"
        )
        command = [sys.executable, "-c", code, str(probe_process.__file__)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert ("unreachable" if "namespace" in done.stdout else "PermissionError") in done.stderr
        assert namespace or "Python's sockets closed" in done.stdout
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_same_model_costs_the_same_when_both_are_timed_in_turns(tmp_path: Path) -> None:
    same = Exported(export(tmp_path / "model", Brightness(BEST, work=200)), IMAGES)
    slow = Exported(export(tmp_path / "slow", Brightness(BEST, work=2_000)), IMAGES)
    timed = time_models({"challenger": same, "champion": same, "slow": slow}, least=20, time_limit=PATIENCE)
    assert timed.error is None
    assert {len(samples) for samples in timed.samples.values()} == {50}
    challenger, champion, slower = (float(np.median(timed.samples[role])) for role in timed.samples)
    assert 0.8 < challenger / champion < 1.25
    assert slower / champion > 4


def test_the_signature_is_that_of_mlmodel_and_else_that_of_the_card(tmp_path: Path) -> None:
    directory = export(tmp_path / "model", Brightness(BEST))
    by_card = read_signature(directory)
    assert by_card == f"float32[-1, 3, {SIZE}, {SIZE}] → float32[-1, 1, {SIZE}, {SIZE}]"
    spec = '[{{"type": "tensor", "tensor-spec": {{"dtype": "float32", "shape": [-1, {}, {}, {}]}}}}]'
    for channels, size in ((1, SIZE), (2, SIZE), (1, 8)):
        (directory / "MLmodel").write_text(
            f"signature:\n  inputs: '{spec.format(3, SIZE, SIZE)}'\n  outputs: '{spec.format(channels, size, size)}'\n"
        )
        assert (read_signature(directory) == by_card) == ((channels, size) == (1, SIZE))
        assert expected_shape(directory) == (1, channels, size, size)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away, and loses what others own")
def test_root_keeps_its_right_to_the_folders_of_others(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "module.py").touch()
    private.chmod(0o700)
    os.chown(private, 12345, 12345)
    code = "import runpy, sys\nrunpy.run_path(sys.argv[1])['forbid_network']()\nprint(open(sys.argv[2]).read() == '')\n"
    command = [sys.executable, "-c", code, str(probe_process.__file__), str(private / "module.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
