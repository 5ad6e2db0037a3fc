"""In mixed precision the network computes in bfloat16, the loss does not; memory lies as the device likes it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils._python_dispatch import TorchDispatchMode

from ratchet.config import compose
from ratchet.training.fitting import resolve_precision, resolve_trainer
from ratchet.training.losses import CrossEntropyLoss
from ratchet.training.module import SegmentationModule


class Watcher(torch.nn.Module):
    """A loss with a matrix product, which autocast would compute in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        flat = logits.flatten(1)
        product = flat @ flat.T
        self.seen.append((logits.dtype, product.dtype))
        return product.mean()


def train(channels_last: bool) -> tuple[Watcher, list[torch.dtype], list[bool]]:
    """Train and validate one batch; the loss, and of each convolution's input the type and whether channels are last."""
    loss, types, last = Watcher(), [], []
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 1))
    module = SegmentationModule(
        network=network,
        loss=loss,
        optimizer=functools.partial(torch.optim.SGD, lr=0.01),
        scheduler=None,
        classes=("pet",),
        channels_last=channels_last,
    )
    for layer in network:
        layer.register_forward_hook(lambda _, inputs, output: types.append(output.dtype))
        layer.register_forward_hook(
            lambda _, inputs, output: last.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    batch = {"image": torch.rand(2, 3, 8, 8), "mask": torch.randint(0, 2, (2, 8, 8))}
    trainer = pl.Trainer(
        fast_dev_run=True,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    trainer.fit(module, loader, loader)
    return loss, types, last


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning counts loader workers
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_loss_is_in_float32_where_the_network_is_in_bfloat16(channels_last: bool) -> None:
    loss, types, last = train(channels_last)
    assert loss.seen == [(torch.float32, torch.float32)] * 2
    assert set(types) == {torch.bfloat16}
    assert all(last) is channels_last


def test_the_precision_follows_the_device_unless_it_is_named() -> None:
    automatic = resolve_precision(compose(["trainer.accelerator=cpu"]).trainer)
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert automatic == ("bf16-mixed" if native else "32-true")
    assert resolve_precision(compose(["trainer.precision=16-mixed"]).trainer) == "16-mixed"


@pytest.mark.usefixtures("ratchet_home")
def test_a_trainer_logs_every_step_unless_that_is_waited_for_and_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    for overrides, every in (("accelerator=gpu", 10), ("accelerator=cpu", 1), ("log_every_n_steps=3", 3)):
        assert resolve_trainer(compose([f"trainer.{overrides}"]).trainer)["log_every_n_steps"] == every
    assert resolve_trainer(compose(["trainer.devices=[1]"]).trainer)["devices"] == 1


class Reads(TorchDispatchMode):
    """Counts the values that are read from tensors: at each one a GPU is waited for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Watched(SegmentationModule):
    """Notes what it logs that is no tensor."""

    def log(self, name: str, value: Any, **options: Any) -> None:
        if not isinstance(value, torch.Tensor):
            self.numbers = {*getattr(self, "numbers", ()), name}
        super().log(name, value, **options)


def train_and_count(batches: int) -> tuple[int, Watched, pl.Trainer]:
    """Train an epoch of so many batches, and validate on as many, with an interval of logging that is longer."""
    module = Watched(
        network=torch.nn.Conv2d(3, 1, 1),
        loss=CrossEntropyLoss(num_outputs=1),
        optimizer=functools.partial(torch.optim.SGD, lr=0.01),
        scheduler=None,
        classes=("pet",),
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        log_every_n_steps=100,
        num_sanity_val_steps=0,
        logger=DummyLogger(),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = {"image": torch.rand(2, 3, 8, 8), "mask": torch.randint(0, 2, (2, 8, 8))}
    loader = torch.utils.data.DataLoader([batch] * batches, batch_size=None)
    with Reads() as reads:
        trainer.fit(module, loader, loader)
    return reads.count, module, trainer


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning counts loader workers, and steps
def test_a_gpu_is_not_waited_for_in_a_step_that_is_not_logged() -> None:
    (few, _, _), (many, module, trainer) = train_and_count(2), train_and_count(7)
    assert few == many
    assert "lr" not in module.numbers  # of which Lightning would make a tensor on the GPU
    assert {"val_loss", "val_loss_epoch"} <= trainer.callback_metrics.keys()
    assert {name for name in trainer.logged_metrics if name.startswith("val_loss")} == {"val_loss_epoch"}
