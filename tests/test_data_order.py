"""A training that goes on from a checkpoint sees the images that it would have seen."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torchvision.transforms import v2

from ratchet.data import ShapesDataModule
from ratchet.data.workers import workers_that_fit
from ratchet.training.fitting import Loaders
from ratchet.training.process import start_server

pytestmark = pytest.mark.trains


class Watcher(pl.LightningModule):
    """A network of one layer that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)
        self.seen: dict[int, list[torch.Tensor]] = {}

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).append(batch["image"].clone())
        return torch.nn.functional.cross_entropy(self.layer(batch["image"]), batch["mask"])

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self.log("val_loss", torch.nn.functional.cross_entropy(self.layer(batch["image"]), batch["mask"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder: Path, epochs: int, *, resume: Path | None = None, workers: int = 0) -> tuple[Watcher, pl.Trainer]:
    options: dict[str, Any] = {"months": 1, "images_per_month": 24, "size": 32, "input_height": 32, "input_width": 32}
    data = ShapesDataModule(
        data_path=folder,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        batch_size=4,
        num_workers=workers,
        train_transform=v2.RandomAffine(20),
        **options,
    )
    module = Watcher()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=Loaders(data), ckpt_path=None if resume is None else str(resume))
    return module, trainer


def seen(folder: Path, epochs: int, resume: Path, workers: int) -> dict[int, np.ndarray]:
    """The images that a resumed training saw, by epoch."""
    watcher, _ = fit(folder, epochs, resume=resume, workers=workers)
    return {epoch: torch.cat(images).numpy() for epoch, images in watcher.seen.items()}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning counts cores and steps
def test_a_resumed_training_sees_the_same_images_whatever_the_workers(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path / "shapes", 3)
    _, trainer = fit(tmp_path / "shapes", 1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    start_server()  # its child loads in a process that it forks, and other tests left threads in this one
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as fresh:
        resumed = fresh.submit(seen, tmp_path / "shapes", 3, tmp_path / "half.ckpt", 1).result()
    assert sorted(resumed) == [1, 2]
    for epoch in (1, 2):
        assert np.array_equal(torch.cat(whole.seen[epoch]).numpy(), resumed[epoch])
    assert not torch.equal(torch.cat(whole.seen[0]), torch.cat(whole.seen[1]))


def test_no_more_processes_load_than_the_shared_memory_has_room_for(caplog: pytest.LogCaptureFixture) -> None:
    free = shutil.disk_usage("/dev/shm").free  # noqa: S108
    assert workers_that_fit(8, 4 * 32 * 32) == 8
    assert not caplog.records
    pixels = free // (6 * 20 * 3) - 1000  # six such batches for each of three processes
    assert workers_that_fit(8, pixels) == 3
    assert workers_that_fit(8, free) == 0
    assert "--shm-size" in caplog.text
