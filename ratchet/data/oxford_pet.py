"""Oxford-IIIT Pet: pets against background, from the official layout, downloaded where it is missing.

Parkhi, Vedaldi, Zisserman and Jawahar, "Cats and Dogs", CVPR 2012; https://www.robots.ox.ac.uk/~vgg/data/pets/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ratchet.data.datamodule import SegmentationDataModule
from ratchet.data.download import Archive, fetch_archives
from ratchet.data.listing import Listing, list_files
from ratchet.errors import DatasetNotFoundError

DOWNLOAD_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
# As torchvision.datasets.OxfordIIITPet checks them.
CHECKSUMS = {
    "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
}
# Trimaps: 1 is the pet, 2 the background, 3 the pet's outline, which counts as pet.
TRIMAP_VALUES = {1: 1, 2: 0, 3: 1}


class OxfordPetDataModule(SegmentationDataModule):
    """`images/*.jpg`, `annotations/trimaps/*.png`, and the lists `annotations/trainval.txt` and `test.txt`.

    `val` is a share of `trainval.txt`, unless there is a list for it in `annotations/`. Images in no list are left out.
    """

    default_lists: ClassVar[Mapping[str, str]] = {
        "train": "trainval.txt",
        "val": "val.txt",
        "test": "test.txt",
        "gate": "gate.txt",
    }

    def __init__(
        self,
        *,
        idx_to_class: Mapping[int, str] | None = None,
        mask_values: Mapping[int, int] | None = None,
        name: str = "oxford_pet",
        download_url: str = DOWNLOAD_URL,
        checksums: Mapping[str, str] | None = None,
        download_timeout: float = 30.0,
        **options: Any,
    ) -> None:
        """Keep the settings; `options` are those of SegmentationDataModule.

        `checksums` are the MD5 of `images.tar.gz` and `annotations.tar.gz` below `download_url`; `download_timeout` is
        in seconds.
        """
        super().__init__(
            idx_to_class=idx_to_class or {1: "pet"}, mask_values=mask_values or TRIMAP_VALUES, name=name, **options
        )
        self._download_url = download_url.rstrip("/")
        self._checksums = dict(checksums or CHECKSUMS)
        self._download_timeout = download_timeout

    def fetch(self) -> None:
        """Download the archives whose folders are missing.

        Raises:
            DownloadError: they cannot be had.
            DatasetNotFoundError: there are folders, but not of this data set.
        """
        named = os.environ.get("RATCHET_OXFORD_PET")
        if named and self.data_path == Path(named).expanduser().absolute() and not self.data_path.is_dir():
            raise DatasetNotFoundError(f"RATCHET_OXFORD_PET={named} is no folder: correct it, or unset it to download")
        archives = tuple(
            Archive(f"{self._download_url}/{file}", md5, file.split(".")[0]) for file, md5 in self._checksums.items()
        )
        advice = "Set RATCHET_OXFORD_PET or datamodule.data_path to a folder that holds images/ and annotations/"
        fetch_archives(archives, self.data_path, timeout=self._download_timeout, advice=advice)
        if not (self.list_folder() / "trainval.txt").is_file() and "train" not in self._split_files:
            raise DatasetNotFoundError(f"{self.list_folder()} holds no trainval.txt: not the layout of Oxford-IIIT Pet")

    def list_samples(self) -> Listing:
        """The files that are there now."""
        return list_files(self.data_path / "images", self.data_path / "annotations" / "trimaps")

    def list_folder(self) -> Path:
        """The folder of the official lists."""
        return self.data_path / "annotations"
