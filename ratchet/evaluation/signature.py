"""What an exported model takes and gives, as its `MLmodel` says, or else as its card does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ratchet.errors import ModelFilesError
from ratchet.evaluation.served import ModelCard

MLMODEL_FILE = "MLmodel"


def states_signature(directory: Path) -> bool:
    """Whether `MLmodel` says what the model takes and gives. Raises `ModelFilesError`."""
    return _stated(directory) is not None


def read_signature(directory: Path, answered: Sequence[int] = ()) -> str:
    """Input and output in one line, as `float32[-1, 3, 64, 64] → float32[-1, 2, 64, 64]`. Raises `ModelFilesError`.

    `answered` is the shape (1, C, h, w) of an answer of the model's: it tells C where nothing states it.
    """
    stated = _stated(directory)
    if stated is None:
        card = ModelCard.read(directory)
        size = [card.input_height, card.input_width]
        return f"float32{[-1, 3, *size]} → float32{[-1, _fitting(card, answered), *size]}"
    return " → ".join(", ".join(map(_text, stated[side])) for side in ("inputs", "outputs"))


def expected_shape(directory: Path, answered: Sequence[int] = ()) -> tuple[int, ...]:
    """The output's shape for one image, (1, C, h, w): C as the card's classes call for, the rest as the signature says.

    Where the classes allow for several C, it is that of the signature, or else of the shape that it `answered`; where no
    signature says otherwise, h and w are the input's. Raises `ModelFilesError`.
    """
    card, stated = ModelCard.read(directory), _stated(directory)
    outputs = stated["outputs"] if stated else []
    given = outputs[0].get("tensor-spec", {}).get("shape", []) if len(outputs) == 1 else []
    _, channels, *size = given if len(given) == len("BCHW") else (-1, -1, -1, -1)
    inputs = (card.input_height, card.input_width)
    fitting = channels if channels in card.channels else _fitting(card, () if stated else answered)
    return (1, fitting, *(own if own > 0 else other for own, other in zip(size, inputs, strict=True)))


def _fitting(card: ModelCard, answered: Sequence[int]) -> int:
    return next((channels for channels in answered[1:2] if channels in card.channels), card.channels[0])


def _stated(directory: Path) -> dict[str, list[dict[str, Any]]] | None:
    """The signature of `MLmodel`; None where there is none, or one of inputs alone."""
    path = directory / MLMODEL_FILE
    if not path.exists():
        return None
    try:
        signature = yaml.safe_load(path.read_text(encoding="utf-8")).get("signature")
        if signature is None or signature["outputs"] is None:
            return None
        return {side: json.loads(signature[side]) for side in ("inputs", "outputs")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ModelFilesError(f"{path} holds no signature that can be read: {error}") from error


def _text(spec: dict[str, Any]) -> str:
    tensor = spec.get("tensor-spec")
    name = f"{spec['name']}: " if spec.get("name") else ""
    return f"{name}{tensor['dtype']}{tensor['shape']}" if tensor else name + json.dumps(spec, sort_keys=True)
