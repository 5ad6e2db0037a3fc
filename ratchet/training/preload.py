"""What the fork server does once, so that no trial has to: importing this imports all that a trial uses."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from types import ModuleType

from ratchet.registry.tracking import tracking_uri

# The libraries import most of these only when they are used. A name that is gone costs each trial time, nothing else.
_MODULES = (
    "torch",
    "torchmetrics",
    "pytorch_lightning",
    "mlflow.pytorch",
    "ratchet.training.trial",
    "ratchet.training.network",  # segmentation-models-pytorch and timm: 0.6 s
    "ratchet.training.losses",
    "ratchet.data.dataset",
    "torchvision.transforms.v2",
    "torch.export.pt2_archive",
    "torch._inductor.decomposition",  # by torch.export, with the next 0.7 s
    "torch._functorch.partitioners",
    "matplotlib.backends.backend_agg",
    "git",  # by MLflow, for the commit
)
_OWN_STORE = "mlflow.store.tracking.sqlalchemy_workspace_store"  # 1.4 s; a tracking server needs none of it


def _preload() -> None:
    gc.disable()  # nothing of what is imported is garbage, and looking for it takes a fifth of the time
    parent = os.getppid()
    for name in (*_MODULES, *(() if tracking_uri().startswith("http") else (_OWN_STORE,))):
        if os.getppid() != parent:
            sys.exit()  # whoever started it has ended, over a mistake in the overrides say
        with suppress(ImportError), _signal_processing_left_out() if name == "torchmetrics" else nullcontext():
            import_module(name)
    gc.freeze()  # nor do trials look there again, which would also copy the pages that they share
    gc.enable()


@contextmanager
def _signal_processing_left_out() -> Iterator[None]:
    """Keep torchmetrics, which Lightning imports, from importing scipy.signal: a second, to amend it for audio metrics.

    Whoever needs it imports it as it is, without that amendment: the name `hamming`, which SciPy has dropped.
    """
    name = "scipy.signal"
    stand_in = ModuleType(name)
    stand_in.hamming = None  # type: ignore[attr-defined]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


_preload()
