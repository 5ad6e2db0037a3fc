"""Which files a data set consists of: images paired with masks by name, split lists, and the rows of metadata.csv."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ratchet.data.reading import IMAGE_SUFFIXES
from ratchet.errors import (
    DataError,
    DatasetNotFoundError,
    DuplicateNameError,
    MetadataError,
    MissingImageError,
    MissingMaskError,
    SplitOverlapError,
    UnreadableImageError,
)
from ratchet.spelling import closest


@dataclass(frozen=True)
class Listing:
    """The files of a data set by name."""

    images: Mapping[str, Path]
    masks: Mapping[str, Path]


def list_files(images: Path, masks: Path) -> Listing:
    """List two folders with everything below them, also behind links.

    Hidden files (also macOS's `._*`) and other suffixes are left out.

    Raises:
        DatasetNotFoundError: a folder is absent or cannot be read, or there is no image.
        UnreadableImageError: the name of an image or mask is not UTF-8.
        DuplicateNameError: two files of one folder have the same name but for the suffix.
    """
    listing = Listing(images=_by_name(images), masks=_by_name(masks))
    if not listing.images:
        raise DatasetNotFoundError(f"{images} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return listing


def check_pairs(listing: Listing, names: Iterable[str], *, complete: bool) -> None:
    """Check that each of `names` has image and mask; with `complete`, also that no mask is without its image.

    Raises:
        MissingMaskError: an image without its mask, or a mask without its image.
    """
    orphans = sorted(listing.masks.keys() - listing.images.keys())
    if without := [name for name in names if name not in listing.masks]:
        first, many = without[0], _counted(len(without), "image")
        near = closest(first, orphans)
        rename = f". Is it {listing.masks[near]}? Rename masks to the names of their images" if near else ""
        raise MissingMaskError(
            f"{listing.images[first]} has no mask of the name {first!r} ({many}): add the mask{rename}"
        )
    if complete and orphans:
        raise MissingMaskError(
            f"{listing.masks[orphans[0]]} has no image of the name {orphans[0]!r} ({_counted(len(orphans), 'mask')}): "
            "add the image, or remove the mask"
        )


def _counted(number: int, what: str) -> str:
    return f"{number} such {what}{'s' if number > 1 else ''}"


def read_split_list(path: Path, images: Mapping[str, Path]) -> tuple[str, ...]:
    """The names in a split list: one a line, further columns ignored, empty lines and lines with `#` left out.

    A name may also be written as a path, `images/name.png`.

    Raises:
        DatasetNotFoundError: there is no such list, or it is not UTF-8.
        MissingImageError: a listed image is not there.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"the split list {path} does not exist")
    names: dict[str, None] = {}
    for number, line in enumerate(_text(path, DatasetNotFoundError).splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name = next((form for form in _spellings(entry) if form in images), None)
        if name is None:
            raise MissingImageError(
                f"{path}, line {number}: there is no image {entry!r} below images/, and its path there is what a line holds: "
                "correct or remove the line, or add the image"
            )
        names[name] = None
    return tuple(names)


def check_disjoint(lists: Mapping[str, Collection[str]]) -> None:
    """Check that no name is in two lists.

    Raises:
        SplitOverlapError: a name is.
    """
    seen: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if name in seen:
                raise SplitOverlapError(f"{name!r} is in the lists of both {seen[name]} and {split}: keep it in one")
            seen[name] = split


def read_metadata(path: Path, images: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """The rows of a CSV file by the image that their first column, `name`, names; empty if there is no such file.

    Raises:
        MetadataError: the first column is not `name`, a row has too many or too few columns, a name comes twice, a quote is
            not closed, none of them names an image, or it is not UTF-8.
    """
    if not path.is_file():
        return {}
    with io.StringIO(_text(path, MetadataError), newline="") as file:
        reader = csv.reader(file, strict=True)  # else a quote that is not closed swallows the lines below it
        try:
            rows = _metadata_rows(path, reader, images)
        except csv.Error as error:
            raise MetadataError(
                f"{path}, line {reader.line_num}: {error}; a quote that is opened must be closed"
            ) from error
    if rows and images and not rows.keys() & images.keys():
        raise MetadataError(f"{path} names no image: it has {next(iter(rows))!r}, and there is {next(iter(images))!r}")
    return rows


def _metadata_rows(path: Path, reader: Any, images: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    header: list[str] = next(reader, [])
    if header[:1] != ["name"]:
        raise MetadataError(f"{path}: the first column must be 'name', found {header[:1]}")
    rows: dict[str, dict[str, str]] = {}
    for row in filter(None, reader):
        name = next((form for form in _forms(row[0]) if form in images), row[0])
        if len(row) != len(header) or name in rows:
            what = "comes a second time" if name in rows else f"has {len(row)} columns, the header {len(header)}"
            raise MetadataError(f"{path}, line {reader.line_num}: {row[0]!r} {what}")
        rows[name] = dict(zip(header[1:], row[1:], strict=True))
    return rows


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetNotFoundError(f"there is no folder {folder}: a data set has one of images and one of masks")
    files: dict[str, Path] = {}
    for path in sorted(_files_below(folder)):
        relative = path.relative_to(folder)
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        name = relative.with_suffix("").as_posix()
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UnreadableImageError(
                f"{os.fsencode(path)!r}: the name is not UTF-8, so no report could show it: rename it"
            ) from error
        if name in files:
            raise DuplicateNameError(f"{files[name]} and {path} have the same name {name!r}: rename or remove one")
        files[name] = path
    return files


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, also those behind links to folders; but nothing in hidden folders."""

    def refuse(error: OSError) -> None:
        raise DatasetNotFoundError(f"{error.filename} cannot be read, so what it holds is not known: {error.strerror}")

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for link in (Path(place, name) for name in folders if Path(place, name).is_symlink()):
            if link.parent.resolve().is_relative_to(link.resolve()):
                raise DatasetNotFoundError(f"{link} is a link to a folder that it lies in: remove it")
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            # Of a folder, what lies behind would be missed in silence, images and masks alike. An image's own is told when
            # it is read, unless no list names it.
            is_folder = path.suffix.lower() not in IMAGE_SUFFIXES
            if is_folder and path.is_symlink() and not os.path.exists(path):  # noqa: PTH110 - Path.exists may raise
                raise DatasetNotFoundError(
                    f"{path} is a link to {os.path.realpath(path)}, which is not there or cannot be read, so what it holds is "
                    "not known: mount it, or remove the link"
                )
            yield path


def _text(path: Path, error: type[DataError]) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as found:
        raise error(f"{path} is not UTF-8 ({found}): save it as UTF-8") from found


def _spellings(entry: str) -> Iterable[str]:
    """The names that a line of a split list can mean: all of it, or its first column, as a name or as a path."""
    for text in (entry, entry.split(maxsplit=1)[0]):
        yield from _forms(text)


def _forms(text: str) -> Iterable[str]:
    """The names that a text can mean, as a name or as a path."""
    yield text
    path = PurePosixPath(text)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        path = path.with_suffix("")
        yield path.as_posix()
    if path.parts[:1] == ("images",):
        yield PurePosixPath(*path.parts[1:]).as_posix()
