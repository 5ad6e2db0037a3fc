"""Networks, their weights, and one training step of every loss, optimiser and schedule."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from ratchet.config import compose, instantiate
from ratchet.errors import ConfigError, WeightsUnavailableError
from ratchet.training.network import create_network, load_encoder_weights
from ratchet.training.trial import build_module

TINY = ["backbone.model.encoder_name=mobilenet_v2", "backbone.model.encoder_weights=null"]


@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("classes", [("pet",), ("disc", "polygon")])
@pytest.mark.parametrize(
    "override",
    [f"loss={name}" for name in ("dice", "cross_entropy", "focal", "sum")]
    + [f"optimizer={name}" for name in ("adam", "adamw", "sgd")],
)
def test_every_loss_and_optimizer_takes_a_step(override: str, classes: tuple[str, ...]) -> None:
    names = dict(enumerate(classes, start=1))
    config = compose([*TINY, override, f"datamodule.idx_to_class={names}".replace("'", "")])
    if len(classes) == 1:
        config = compose([*TINY, override, "experiment=generic/oxford_pet/segmentation/smp", TINY[0], TINY[1]])
    module = build_module(config, classes)
    optimizer = instantiate(config.optimizer)(module.parameters())
    before = [parameter.detach().clone() for parameter in module.parameters()]
    loss = module.loss(module(torch.rand(2, 3, 32, 32)), torch.randint(0, len(classes) + 1, (2, 32, 32)))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert loss.ndim == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_frozen_encoder_keeps_its_weights_and_its_batch_statistics() -> None:
    config = compose([*TINY, "backbone.model.freeze_encoder=true"])
    module = build_module(config, ("disc", "polygon")).train()
    encoder = module.network.get_submodule("encoder")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    module(torch.rand(2, 3, 32, 32)).mean().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [({"arch": "unett"}, "unet"), ({"encoder_name": "resnet19"}, "resnet18"), ({"in_channels": 1}, "in_channels")],
)
def test_an_unknown_network_is_told_with_what_is_near(change: dict[str, object], said: str) -> None:
    wanted: dict[str, object] = {"arch": "unet", "encoder_name": "resnet18", "encoder_weights": None, "num_classes": 1}
    with pytest.raises(ConfigError, match=said):
        create_network(**(wanted | change))  # type: ignore[arg-type]


def test_weights_of_a_file_are_loaded_by_name_or_in_order(tmp_path: Path) -> None:
    plain = {"arch": "unet", "encoder_weights": None, "num_classes": 1, "encoder_name": "mobilenet_v2"}
    state = create_network(**plain).get_submodule("encoder").state_dict()  # type: ignore[arg-type]
    for names in (list(state), [f"other.{index}" for index in range(len(state))]):
        path = tmp_path / "weights.pth"
        torch.save(dict(zip(names, state.values(), strict=True)) | {"head.weight": torch.zeros(3)}, path)
        loaded = create_network(**(plain | {"encoder_weights": str(path)}))  # type: ignore[arg-type]
        got = loaded.get_submodule("encoder").state_dict()
        assert all(torch.equal(got[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_weights_that_are_none_are_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsUnavailableError, match=r"weights\.pth"):
        load_encoder_weights(torch.nn.Linear(1, 1), path)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(7, 7)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsUnavailableError, match="does not fit"):
        load_encoder_weights(torch.nn.Linear(1, 1), tmp_path / "weights.pth")


def test_the_wheel_with_imagenet_weights_fits_its_encoder() -> None:
    config = compose(["experiment=generic/oxford_pet/segmentation/smp_offline"])
    network = instantiate(config.backbone.model)
    stem = network.get_submodule("encoder").state_dict()["model.conv_stem.weight"]
    file = torch.load(config.backbone.model["encoder_weights"], weights_only=True)
    assert torch.equal(stem, file["_conv_stem.weight"])


def test_a_hub_out_of_reach_names_the_three_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsUnavailableError, match=r"imagenet.*null.*path of a state dict"):
            create_network(arch="unet", encoder_name="resnet18", encoder_weights="imagenet", num_classes=1)
