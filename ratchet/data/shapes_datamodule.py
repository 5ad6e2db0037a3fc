"""The generated shapes as a data module: two foreground classes, made on disk when first needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.data.datamodule import SegmentationDataModule
from ratchet.data.listing import Listing, list_files
from ratchet.data.shapes import CLASSES, generate, read_manifest


class ShapesDataModule(SegmentationDataModule):
    """At least `months` months of scenes; a folder that has grown further is used as it is.

    The site and the month of each image are in the samples' metadata.
    """

    def __init__(
        self,
        *,
        months: int = 6,
        images_per_month: int = 100,
        size: int = 64,
        data_seed: int = 0,
        drift: float = 0.0,
        label_noise: float = 0.0,
        idx_to_class: Mapping[int, str] | None = None,
        name: str = "shapes",
        **options: Any,
    ) -> None:
        """Keep the settings: those of `shapes.generate`, with its `seed` as `data_seed`, and of SegmentationDataModule.

        `seed` decides on the order, `split_seed` on the splits, `data_seed` on the scenes: another training seed trains on
        the same images.
        """
        super().__init__(idx_to_class=idx_to_class or CLASSES, name=name, **options)
        self._parameters: dict[str, Any] = {
            "months": months,
            "images_per_month": images_per_month,
            "size": size,
            "seed": data_seed,
            "drift": drift,
            "label_noise": label_noise,
        }

    def fetch(self) -> None:
        """Generate the months that are missing.

        Raises:
            ConfigError: parameters out of their range.
            DatasetNotFoundError: the folder holds something else.
        """
        generate(self.data_path, **self._parameters)

    def list_samples(self) -> Listing:
        """The files that the manifest names; a month that is being written at the moment is left out."""
        listing = list_files(self.data_path / "images", self.data_path / "masks")
        manifest = read_manifest(self.data_path)
        names = frozenset(manifest.names if manifest is not None else ())
        return Listing(
            images={name: path for name, path in listing.images.items() if name in names},
            masks={name: path for name, path in listing.masks.items() if name in names},
        )
