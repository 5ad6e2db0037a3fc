"""A data set of one's own: a folder with `images/` and `masks/`, files paired by name."""

from __future__ import annotations

from ratchet.data.datamodule import SegmentationDataModule
from ratchet.data.listing import Listing, list_files


class FolderDataModule(SegmentationDataModule):
    """`images/` and `masks/` below `data_path`, with optional split lists and an optional `metadata.csv`."""

    def list_samples(self) -> Listing:
        """The files that are there now."""
        return list_files(self.data_path / "images", self.data_path / "masks")
