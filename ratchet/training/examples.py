"""What a trial sees in a few test images, the same ones in every trial on the same data: to be looked at side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ratchet.page_parts import data_uri

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXAMPLES_FILE = "examples.json"

_WIDTH = 240  # pixels: the examples of a trial stay under 200 kB
_QUALITY = 80


class Example(BaseModel):
    """A test image: its IoU (0 to 1), and three pictures as data URIs, in two of which the classes are coloured.

    `classes` are the foreground classes, whose colours `ratchet.evaluation.pictures.palette` has; older files name none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    iou: float
    image: str
    truth: str
    prediction: str
    classes: tuple[str, ...] = ()


_EXAMPLES = TypeAdapter(tuple[Example, ...])


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write the examples of one trial."""
    path.write_bytes(_EXAMPLES.dump_json(tuple(examples)))


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read what `write_examples` wrote."""
    return _EXAMPLES.validate_json(path.read_bytes())


def picture_uri(pixels: NDArray[np.uint8]) -> str:
    """Return pixels (H, W, 3) as the data URI of a small JPEG."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_WIDTH, 2 * _WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return data_uri(buffer.getvalue())
