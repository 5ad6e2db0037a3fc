"""How much memory a trial took, and whether the lack of it is what ended it."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.control_groups import own_groups
from ratchet.errors import TrialFailedError
from ratchet.run_names import BATCH_SIZE_TAG

# How torch's and oneDNN's allocators, the loaders' workers and CUDA's libraries say it in a plain RuntimeError.
_SAID = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|Cannot allocate memory|could not create a memory|_STATUS_ALLOC_FAILED",
    re.I,
)

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_SHARE = 0.9  # of the free memory may be tried out
_VMSTAT = Path("/proc/vmstat")
_LIMITS = (  # limit and use, and what of the latter is files that the kernel drops when memory is wanted
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library can (glibc).

    Each step frees its tensors, and the next wants as much: given back, every page of it has to be had from the kernel
    and filled with zeros again, which takes a tenth of a step, and a fifth of a prediction.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Return to the kernel what `keep_freed_memory` has kept so far."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_memory() -> float:
    """Largest resident size of this process so far, in MiB; of the GPU's allocations too where there is one."""
    import torch  # noqa: PLC0415 - the sweep's own process does without

    unit = 2**20 if sys.platform == "darwin" else 2**10
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return host + (torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0)


def peak_of(pid: int) -> float:
    """Largest resident size of another process so far, in MiB; zero where that cannot be known."""
    return (_field(f"/proc/{pid}/status", "VmHWM") or 0) / 2**20


def out_of_memory_kills() -> int | None:
    """How many processes of this machine the kernel has killed for their memory; None where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) if found else None


def out_of_memory(peak: float, batch_size: int | None) -> str:
    """Say it, with the peak (MiB) where it is known, and what to try."""
    halved = (batch_size or 0) // 2
    smaller = f"datamodule.batch_size={halved}" if halved else "a smaller network or input"
    return f"killed: out of memory{told_peak(peak)}; try {smaller}"


def batch_size_of(datamodule: Mapping[str, Any], tags: Mapping[str, str]) -> int | None:
    """The images of a batch: those that a run with these tags found where they are `auto`; None before that."""
    size = datamodule.get("batch_size")
    if size == "auto":
        size = tags.get(BATCH_SIZE_TAG)
    return None if size is None else int(size)


def told_peak(peak: float) -> str:
    """The peak (MiB) as the end of a clause; empty where it is not known."""
    return f", peak {peak * 2**20 / 1e9:.1f} GB" if peak else ""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether it is an allocation that failed."""
    return isinstance(error, MemoryError) or _SAID.search(str(error)) is not None


@contextmanager
def lack_of_memory_told(batch_size: Callable[[], int | None]) -> Iterator[None]:
    """Turn the errors of allocators, the GPU's among them, into a `TrialFailedError` that says what to try."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if "shared memory(shm)" in str(error):
            raise TrialFailedError(
                "the shared memory, /dev/shm, has no room for the batches that processes load: give the container more "
                "(--shm-size, or a volume with emptyDir: medium Memory), or set datamodule.num_workers=0"
            ) from error
        if not is_lack_of_memory(error):
            raise
        raise TrialFailedError(out_of_memory(peak_memory(), batch_size())) from error


@contextmanager
def limited_to_what_is_free() -> Iterator[None]:
    """Let an allocation that the machine cannot serve fail here: the kernel would grant it, and kill somebody later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    free, used = free_bytes(), _field("/proc/self/status", "VmData")
    if free is None or used is None:
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(_SHARE * free), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def free_bytes() -> int | None:
    """Memory that can still be had: the machine's, or what our control groups leave of it; None where nobody says."""
    free = [_field("/proc/meminfo", "MemAvailable"), *map(left_of_group, own_groups("memory"))]
    known = [value for value in free if value is not None]
    return min(known) if known else None


def left_of_group(folder: Path) -> int | None:
    """The bytes that a control group's limit leaves, cached files not counted as used; None where there is no limit."""
    for limit, use, cached in _LIMITS:
        try:
            most, taken = int((folder / limit).read_text()), int((folder / use).read_text())
            files = re.search(rf"^{cached} (\d+)$", (folder / "memory.stat").read_text(), re.M)
        except (OSError, ValueError):  # no such controller, or its limit is `max`
            continue
        return most - taken + (int(files[1]) if files else 0)
    return None


def has_memory_for(peak: float) -> bool:
    """Whether a process that takes as much as one that took `peak` MiB fits beside those that run."""
    free = free_bytes()
    return free is None or free >= peak * 2**20


def _field(file: str, name: str) -> int | None:
    """A field of a file of /proc, in bytes."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(file).read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) * 2**10 if found else None
