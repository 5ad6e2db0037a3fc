"""In mixed precision the network computes in bfloat16, the loss does not; memory lies as the device likes it."""

from __future__ import annotations

import functools

import pytest
import pytorch_lightning as pl
import torch

from ratchet.config import compose
from ratchet.training.fitting import resolve_precision
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
