"""What a data set comes to: its files listed, checked, split and fingerprinted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet.data.content import PairContent, check_contents_disjoint, fingerprint, read_contents
from ratchet.data.digests import DigestIndex
from ratchet.data.listing import Listing, check_disjoint, check_pairs, read_metadata, read_split_list
from ratchet.data.samples import SPLITS, Sample
from ratchet.data.splitting import (
    SplitSizes,
    assign_splits,
    check_folders_are_no_splits,
    check_groups_whole,
    choose_names,
    read_groups,
)


@dataclass(frozen=True)
class PreparedData:
    """The samples by split, the hashes of their files by name, and the fingerprints of all of them and of the gate set.

    `gate_samples` are those that the gate judges on: of images with the same bytes the first by name, since copies are no
    independent images. `unlisted` images take no part, since there is a list for `train` and no list names them.
    """

    samples: Mapping[str, tuple[Sample, ...]]
    gate_samples: tuple[Sample, ...]
    contents: Mapping[str, PairContent]
    fingerprint: str
    gate_fingerprint: str
    unlisted: int


def prepare_data(
    listing: Listing,
    files: Mapping[str, Path],
    metadata_file: Path,
    *,
    sizes: SplitSizes,
    only: Collection[str] | None,
    group_by: str | None,
    meaning: Mapping[str, object],
    index: DigestIndex | None = None,
) -> PreparedData:
    """Check, split and fingerprint what is listed. `files` are the lists of splits; `only` those names take part, if given.

    The `index` knows what was read of files before.

    Raises:
        DataError: in one of its kinds, naming the file.
    """
    lists = {split: read_split_list(path, listing.images) for split, path in files.items()}
    check_disjoint(lists)
    if not lists:
        check_folders_are_no_splits(listing.images, metadata_file.parent)
    names = choose_names(listing.images, lists)
    unlisted = len(listing.images) - len(names)
    if only is not None:
        names = tuple(sorted(set(names) & set(only)))
    check_pairs(listing, names, complete="train" not in lists and only is None)
    pairs = {name: (listing.images[name], listing.masks[name]) for name in names}
    contents = read_contents(pairs, index)
    metadata = read_metadata(metadata_file, listing.images)
    images = {name: content.image for name, content in contents.items()}
    groups = images if group_by is None else read_groups(group_by, names, metadata)
    splits = assign_splits(names, lists, groups, sizes)
    check_contents_disjoint(splits, contents, pairs)
    check_groups_whole(splits, groups)
    samples = [Sample(name, *pairs[name], splits[name], metadata.get(name, {})) for name in sorted(names)]
    by_split = {split: tuple(sample for sample in samples if sample.split == split) for split in SPLITS}
    present = {split: members for split, members in by_split.items() if members}
    first: dict[str, Sample] = {}
    for sample in present[gate_split(present)]:
        first.setdefault(images[sample.name], sample)
    gate_samples = tuple(first.values())
    return PreparedData(
        samples=present,
        gate_samples=gate_samples,
        contents=contents,
        fingerprint=fingerprint(samples, contents, meaning),
        gate_fingerprint=fingerprint(gate_samples, contents, meaning),
        unlisted=unlisted,
    )


def gate_split(samples: Mapping[str, tuple[Sample, ...]]) -> str:
    """The split that the gate judges on: `gate`, or `test` where there is none."""
    return "gate" if "gate" in samples else "test"
