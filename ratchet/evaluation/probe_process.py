"""What the probe's fresh process runs: a file of its own that imports numpy and torch, and nothing of Ratchet.

It is given a job as a JSON file, and writes its answer, or `{"error": …}`, as another.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_STATUS = Path("/proc/self/status")
_WARM_UP = 2  # samples; the TorchScript executor profiles the first run and compiles in the second
_TURNS = 3
_FORBIDDEN = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")


def forbid_network(*, namespace: bool = True) -> str:
    """Take the network away from this process, and say what holds: the kernel where it may, else Python itself.

    Only a process with one thread may enter a namespace, so this comes before torch is imported.
    """
    if namespace and sys.platform == "linux":
        identity = f"{os.getuid()} {os.getuid()} 1", f"{os.getgid()} {os.getgid()} 1"
        unshare = ctypes.CDLL(None).unshare
        # Root needs no user namespace for it, and would have no right there to other users' private folders.
        if os.geteuid() == 0 and unshare(_CLONE_NEWNET) == 0:
            return "a network namespace of its own"
        if unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
            with contextlib.suppress(OSError):  # without it the user has no name here, and needs none
                Path("/proc/self/uid_map").write_text(identity[0])
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/gid_map").write_text(identity[1])
            return "a network namespace of its own"

    def refuse(event: str, _: object) -> None:
        if event in _FORBIDDEN:
            raise PermissionError(f"{event}: the exported model has no network here")

    sys.addaudithook(refuse)
    return "Python's sockets closed"


def pin() -> None:
    """Stay on one core, where the system lets a process choose: the last of those it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def peak_memory() -> float | None:
    """Largest resident size of this program so far, in MB; None where the system does not tell, as in gVisor.

    On Linux `ru_maxrss` would do no: a child inherits its parent's, and a gate that holds images is large.
    """
    if _STATUS.exists():
        peaks = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peaks[0]) * 1024 / 1e6 if peaks else None
    import resource  # noqa: PLC0415

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run one model on its images, one at a time, and on the reference input that it was exported with."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    module = _load(job["model"])
    shapes, finite = [], True
    for image in np.load(job["images"], allow_pickle=False):
        output = module(torch.from_numpy(image[None]))
        shapes.append(list(output.shape))
        finite = finite and bool(torch.isfinite(output).all())
    difference = None
    if job["reference"] is not None:
        with np.load(job["reference"], allow_pickle=False) as reference:
            given, expected = torch.from_numpy(reference["input"]), torch.from_numpy(reference["output"])
        output = module(given)
        if output.shape == expected.shape:
            difference = float((output - expected).abs().max() / expected.abs().max().clamp(min=1))
    return {"shapes": shapes, "finite": finite, "difference": difference, "memory_mb": peak_memory()}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time the models in turns, one image a sample: milliseconds of CPU time, the quickest of three turns.

    One thread does the work, so on an idle core that is the latency; on a busy one it leaves out what other programs
    took. The order turns round every time, so that a drift meets both alike. docs/gate.md has what this is worth.
    """
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    modules = {role: _load(model["model"]) for role, model in job["models"].items()}
    images = {
        role: [torch.from_numpy(image[None]) for image in np.load(model["images"], allow_pickle=False)]
        for role, model in job["models"].items()
    }
    samples: dict[str, list[float]] = {role: [] for role in modules}
    order, started, taken = list(modules), time.monotonic(), -_WARM_UP
    while taken < job["least"] or (taken < job["most"] and time.monotonic() - started < job["seconds"]):
        quickest = dict.fromkeys(modules, math.inf)
        for _ in range(_TURNS):
            for role in order:
                before = time.process_time_ns()
                modules[role](images[role][taken % len(images[role])])
                quickest[role] = min(quickest[role], (time.process_time_ns() - before) / 1e6)
            order.reverse()
        if taken >= 0:
            for role, milliseconds in quickest.items():
                samples[role].append(round(milliseconds, 4))
        taken += 1
    return {"latency_ms": samples}


def _load(path: str) -> Any:
    import torch  # noqa: PLC0415

    return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]


def main(job_file: str, answer_file: str) -> None:
    """Do the job, isolated; whatever goes wrong is the answer."""
    job = json.loads(Path(job_file).read_text())
    signal.alarm(job["time_limit"] + 10)  # should the parent, who watches the time, be gone
    isolation = forbid_network()
    pin()
    warnings.simplefilter("ignore")
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    try:
        with torch.inference_mode():
            result = {"answer": answer, "measure": measure}[job["task"]](job)
    except Exception as error:  # noqa: BLE001 - a model can raise anything, and the parent is told
        result = {"error": f"{type(error).__name__}: {str(error).strip()[:2000]}"}
    Path(answer_file).write_text(json.dumps(result | {"isolation": isolation}))


if __name__ == "__main__":
    main(*sys.argv[1:])
