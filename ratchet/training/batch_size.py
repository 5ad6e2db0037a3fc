"""Finds the largest batch that fits, where `datamodule.batch_size=auto` asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.tuner import batch_size_scaling
from pytorch_lightning.tuner.tuning import Tuner

from ratchet.run_names import BATCH_SIZE_TAG
from ratchet.training.memory import is_lack_of_memory, limited_to_what_is_free

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratchet.data.datamodule import SegmentationDataModule
    from ratchet.training.module import SegmentationModule
    from ratchet.training.run import TrialRun

_LEAST_STEPS = 8  # of an epoch: all images in one batch would fit often, and train nothing


def settle_batch_size(
    data: SegmentationDataModule,
    module: SegmentationModule,
    run: TrialRun,
    *,
    trainer: Callable[[], pl.Trainer],
    loaders: pl.LightningDataModule,
) -> None:
    """Try batches of 2, 4, 8, … images for three steps each, and keep the last that fits; the module stays as it is.

    The run is tagged with it, and keeps it when it goes on on another machine. `trainer` makes a trainer without
    callbacks and logger. Raises `MemoryError` where not even one image fits.
    """
    if BATCH_SIZE_TAG not in run.tags:
        most = len(data.samples["train"]) // _LEAST_STEPS
        data.batch_size = min(2, len(data.samples["train"]))
        with limited_to_what_is_free(), _every_lack_of_memory_known():
            found = Tuner(trainer()).scale_batch_size(
                module, datamodule=loaders, init_val=data.batch_size, max_trials=max(1, most.bit_length() - 1)
            )
        run.tag({BATCH_SIZE_TAG: str(found)})
    data.batch_size = int(run.tags[BATCH_SIZE_TAG])


@contextmanager
def _every_lack_of_memory_known() -> Iterator[None]:
    """Let the tuner take a smaller batch at any allocator's words: it knows those of NVIDIA's and of torch's on a CPU alone."""
    tuner: Any = batch_size_scaling
    known = tuner.is_oom_error
    tuner.is_oom_error = lambda error: known(error) or is_lack_of_memory(error)
    try:
        yield
    finally:
        tuner.is_oom_error = known
