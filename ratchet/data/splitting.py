"""Which sample is in which split: by the lists that a data set brings, otherwise by content."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet.data.content import split_by_content
from ratchet.data.samples import SPLITS
from ratchet.errors import ConfigError, DatasetNotFoundError, EmptySplitError, MetadataError, SplitOverlapError

# What people call the folders of their splits, and the list that would name the same images.
_CALLED = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "gate": "gate"}


@dataclass(frozen=True)
class SplitSizes:
    """The shares of the images, in [0, 1), that make the splits for which there is no list; `train` takes the rest."""

    val: float
    test: float
    gate: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to train on."""
        for key in ("val", "test", "gate"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"datamodule.{key}_size is {getattr(self, key)}: a share from 0 to less than 1")
        if not self.val + self.test + self.gate < 1:
            raise ConfigError("datamodule.val_size + test_size + gate_size reach 1: nothing is left to train on")

    def missing(self, lists: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
        """The shares of the splits without a list. The order is fixed: the gate set stays when `val` is resized."""
        shares = {"gate": self.gate, "test": self.test, "val": self.val}
        return {split: share for split, share in shares.items() if share > 0 and split not in lists}


def choose_names(images: Mapping[str, object], lists: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The names that take part: with a list for `train`, only what is in some list; otherwise all images."""
    if "train" not in lists:
        return tuple(images)
    return tuple(name for names in lists.values() for name in names)


def check_folders_are_no_splits(names: Iterable[str], folder: Path) -> None:
    """Check that the images of a data set without lists, in `folder`, do not all lie in folders that are called as splits.

    Raises:
        DatasetNotFoundError: they do, in several: who made these wants no others.
    """
    tops = sorted({name.partition("/")[0] if "/" in name else "" for name in names})
    if len(tops) <= 1 or not all(top.lower() in _CALLED for top in tops):
        return
    lists: dict[str, list[str]] = {}
    for top in tops:
        lists.setdefault(_CALLED[top.lower()], []).append(f"images/{top}")
    commands = [f"find -L {' '.join(found)} -type f -not -name '.*' > {split}.txt" for split, found in lists.items()]
    raise DatasetNotFoundError(
        f"the images of {folder} lie in folders called {', '.join(tops)}, but folders are no splits: without lists, all images "
        f"would be shared out anew. Write the lists (cd {shlex.quote(str(folder))}; {'; '.join(commands)}), or rename the folders"
    )


def assign_splits(
    names: tuple[str, ...],
    lists: Mapping[str, tuple[str, ...]],
    keys: Mapping[str, str],
    sizes: SplitSizes,
) -> dict[str, str]:
    """The split of each name. A split without a list is a share of `train`'s list, or of the images in no list: `keys` are
    what decides, and names of the same key come into the same split.

    Raises:
        EmptySplitError: `train`, `val`, `test`, or a wanted `gate` would be without images.
    """
    listed = {name: split for split, members in lists.items() if split != "train" for name in members}
    shares = sizes.missing(lists)
    splits = {name: listed.get(name) or split_by_content(keys[name], sizes.seed, shares) for name in sorted(names)}
    wanted = [split for split in SPLITS if split != "gate" or split in lists or sizes.gate > 0]
    for split in wanted:
        if split not in splits.values():
            raise EmptySplitError(_no_images(split, split in lists, len(names)))
    return splits


def read_groups(column: str, names: Iterable[str], metadata: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The group of each name: its value in this column of the metadata.

    Raises:
        MetadataError: an image has none.
    """
    groups = {name: metadata.get(name, {}).get(column, "") for name in names}
    if absent := sorted(name for name, group in groups.items() if not group):
        raise MetadataError(
            f"{len(absent)} images have no {column!r} in metadata.csv, the first is {absent[0]!r}: add it, or unset "
            "datamodule.group_by"
        )
    return groups


def check_groups_whole(splits: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """Check that the images of a group are all in one split. Lists can part them.

    Raises:
        SplitOverlapError: a group is in two splits.
    """
    seen: dict[str, str] = {}
    for name, split in splits.items():
        first = seen.setdefault(groups[name], name)
        if splits[first] != split:
            raise SplitOverlapError(
                f"{first} ({splits[first]}) and {name} ({split}) are of the same group, {groups[name]!r}: a model must not be "
                "judged on what it was trained on; move one to the other's list"
            )


def _no_images(split: str, has_list: bool, total: int) -> str:
    if has_list:
        return f"the list of split {split!r} names no image: add names to it, or remove it"
    if split == "train":
        return f"split 'train' is empty ({total} images in all): add images, or lower val_size, test_size and gate_size"
    return (
        f"split {split!r} is empty ({total} images in all): raise datamodule.{split}_size, add images, "
        f"or name its images in {split}.txt"
    )
