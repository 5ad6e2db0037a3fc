"""Which images a model was trained and selected on, by content: a file inside the model's directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import ModelFilesError

SEEN_FILE = "seen_images.json"


class SeenImages(BaseModel):
    """SHA-256, in hexadecimal, of the bytes of every image file that decided the weights.

    `train` gave gradients and `val` chose among epochs and trials; `inherited` is all that the model had seen whose
    weights this one started from. `test` decided where the trial was selected by its metrics; None: an older Ratchet's.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a file by a newer Ratchet may say more

    format: Literal[1] = 1
    train: frozenset[str]
    val: frozenset[str]
    inherited: frozenset[str] = frozenset()
    test: frozenset[str] | None = None

    @property
    def all(self) -> frozenset[str]:
        """Every image that decided the weights."""
        return self.train | self.val | self.inherited

    def selected_by(self, metric: str, test_today: frozenset[str]) -> frozenset[str]:
        """Every image that decided the weights, or that this was the best trial by `metric`.

        Of an older Ratchet's, the test images are those of today: images keep their split.
        """
        if not metric.startswith("test_"):
            return self.all
        return self.all | (test_today if self.test is None else self.test)

    def write(self, directory: Path) -> None:
        """Put the file into a model's directory; the same images give the same bytes."""
        lists = {name: sorted(getattr(self, name)) for name in ("train", "val", "inherited")}
        lists |= {} if self.test is None else {"test": sorted(self.test)}
        (directory / SEEN_FILE).write_text(json.dumps({"format": self.format} | lists, indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> SeenImages | None:
        """Read a model directory's file; None where there is none, as in a model of an older Ratchet.

        Raises `ModelFilesError` for a file that is damaged.
        """
        try:
            return cls.model_validate_json((directory / SEEN_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ModelFilesError(
                f"{directory / SEEN_FILE} does not say which images the model saw: {error}"
            ) from error
