"""Networks of segmentation-models-pytorch, with random weights, the hub's, or a file's."""

from __future__ import annotations

import difflib
import logging
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from ratchet.errors import ConfigError, WeightsUnavailableError
from ratchet.targets import HUB_WEIGHTS

logger = logging.getLogger(__name__)


def create_network(
    *,
    arch: str,
    encoder_name: str,
    encoder_weights: str | None,
    num_classes: int,
    freeze_encoder: bool = False,
    in_channels: int = 3,
    **options: Any,
) -> nn.Module:
    """Return a network from images (B, 3, H, W) to logits (B, num_classes, H, W).

    `encoder_weights` is `imagenet` (from the hub), None (random) or the path of a state dict. `options` go to the
    architecture. Raises `ConfigError` for an unknown architecture or encoder, `WeightsUnavailableError` where the
    weights cannot be had or do not fit.
    """
    _require_known(arch, list(smp.MODEL_ARCHITECTURES_MAPPING), "arch")
    if not encoder_name.startswith("tu-"):
        _require_known(encoder_name, smp.encoders.get_encoder_names(), "encoder_name")
    if in_channels != 3:  # noqa: PLR2004
        raise ConfigError(f"backbone.model.in_channels={in_channels}: images are read as RGB, so it must be 3.")
    for key in ("activation", "aux_params"):
        if options.get(key) not in (None, "identity"):
            raise ConfigError(
                f"backbone.model.{key}={options[key]}: losses, metrics and serving take logits, one for each class. Leave it out."
            )
    from_hub = encoder_weights == HUB_WEIGHTS
    try:
        network: nn.Module = smp.create_model(
            arch,
            encoder_name=encoder_name,
            encoder_weights=HUB_WEIGHTS if from_hub else None,
            in_channels=in_channels,
            classes=num_classes,
            **options,
        )
    except (OSError, RuntimeError) as error:  # the hub's errors and timm's "no pretrained weights" are of these kinds
        if not from_hub:
            raise ConfigError(f"{arch} cannot be built on {encoder_name}: {error}") from error
        raise WeightsUnavailableError(_hub_message(encoder_name, error)) from error
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{arch} cannot be built on {encoder_name}: {error}") from error
    if encoder_weights is not None and not from_hub:
        load_encoder_weights(network.get_submodule("encoder"), Path(encoder_weights))
    if freeze_encoder:
        network.get_submodule("encoder").requires_grad_(False)
    return network


def load_encoder_weights(encoder: nn.Module, path: Path) -> None:
    """Load a state dict into an encoder, by name, or in order where the names differ but every shape agrees.

    A prefix of all names counts for nothing (segmentation-models-pytorch puts `model.` before timm's). The order is that of
    the layers, so a file written under another project's names (efficientnet-pytorch's for timm's, say) still fits, but for
    .safetensors, which keep no order; a classification head is left out, and counters that old files lack are kept. Raises
    `WeightsUnavailableError`.
    """
    state = _read_state(path)
    own = encoder.state_dict()
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    named = [counters | part for part in _under_other_prefixes(state)]
    if path.suffix != ".safetensors":
        named.append(dict(zip(own, state.values(), strict=False)))
    fitting = next((found for found in named if _misfit(own, found) is None), None)
    if fitting is None:
        wrong = str(_misfit(own, named[0]))
        raise WeightsUnavailableError(
            f"backbone.model.encoder_weights={path} does not fit the encoder: {wrong} {tuple(own[wrong].shape)} has no "
            f"counterpart by name or order. Give the file of this very encoder, or encoder_weights=null."
        )
    encoder.load_state_dict({name: fitting[name] for name in own})
    logger.info("loaded %d tensors of the encoder from %s", len(own), path)


def _under_other_prefixes(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    yield dict(state)
    for prefix in ("model.", "encoder.", "module.", "backbone."):
        yield {f"{prefix}{name}": tensor for name, tensor in state.items()}
        yield {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}


def _misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """The first of the encoder's tensors that has no counterpart of its name and shape."""
    return next((n for n, tensor in own.items() if n not in state or state[n].shape != tensor.shape), None)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsUnavailableError(
            f"backbone.model.encoder_weights={path}: no such file. It takes imagenet (downloaded from the hub), null "
            "(random weights) or the path of a state dict (.pt, .pth, .safetensors)."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415

            state: dict[str, Tensor] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        ImportError,
        pickle.UnpicklingError,
    ) as error:
        raise WeightsUnavailableError(f"backbone.model.encoder_weights={path} is not a state dict: {error}") from error
    state = state.get("state_dict", state)  # type: ignore[assignment]
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _require_known(name: str, known: list[str], key: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"Nearest: {', '.join(close)}." if close else f"Known: {', '.join(known)}."
        raise ConfigError(f"backbone.model.{key}={name} is not known to segmentation-models-pytorch. {hint}")


def _hub_message(encoder_name: str, error: Exception) -> str:
    return (
        f"the hub's ImageNet weights of {encoder_name} cannot be had ({type(error).__name__}: {str(error).splitlines()[0]}). "
        "backbone.model.encoder_weights takes imagenet (downloaded from the hub: needs the network once), null (random "
        "weights) or the path of a state dict (.pt, .pth, .safetensors) on this machine."
    )
