"""Work that a copy of this process does beside it, on another core."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")

_PR_SET_PDEATHSIG = 1  # of prctl(2)


@contextmanager
def beside(work: Callable[[], Answer]) -> Iterator[Callable[[], Answer]]:
    """Begin the work, in one thread, and yield what waits for its answer; an error of it is raised there.

    A copy has what this process has in memory. Only where there are copies that one can work with (on Linux); elsewhere the
    work begins when its answer is asked for. What has not ended when the block is left is killed.
    """
    if sys.platform != "linux":
        yield work
        return
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, ours, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()

    def answer() -> Answer:
        try:
            found: Answer | Exception = ours.recv()
        except (EOFError, OSError) as error:  # the latter within an answer
            process.join()
            lacks = process.exitcode == -signal.SIGKILL  # nobody but the kernel would do that
            raise (MemoryError if lacks else RuntimeError)(
                f"its process ended with status {process.exitcode}"
            ) from error
        if isinstance(found, Exception):
            raise found
        return found

    try:
        yield answer
    finally:
        process.kill()
        process.join()
        ours.close()


def _work(work: Callable[[], object], parents: Connection, connection: Connection, parent: int) -> None:
    # It ends with its parent, however that ends. Else it would hold what the parent had open, which others wait for to close.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    parents.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # the others are the parent's: a copy has none of them
    # Nor can it use a GPU that the parent has used: where torch finds one, it asks for its random numbers, which is an error.
    cuda: Any = torch.cuda
    cuda.is_available = lambda: False
    try:
        connection.send(work())
    except Exception as error:  # noqa: BLE001 - it is raised where the answer is asked for
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))
