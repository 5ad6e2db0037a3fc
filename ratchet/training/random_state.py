"""The state of all random generators, as a snapshot within an epoch keeps it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The state of all generators, in types that torch loads without unpickling code."""
    _, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    numpy = [np.asarray(keys).tolist(), *rest]
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state(), "cuda": cuda, "mps": mps}


def set_random_state(state: dict[str, Any]) -> None:
    """Put it back."""
    random.setstate(state["python"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        # It may have seen more GPUs then, and used the first.
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"][: torch.cuda.device_count()]])
    if state.get("mps") is not None and torch.backends.mps.is_available():  # an earlier Ratchet kept none
        torch.mps.set_rng_state(state["mps"].cpu())
