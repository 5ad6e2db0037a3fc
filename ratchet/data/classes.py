"""What the values in a mask mean: the foreground classes in index order, and the class of each stored value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratchet.errors import ConfigError

_MOST_CLASSES = 255  # class indices are held in uint8, and 0 is the background


@dataclass(frozen=True)
class ClassMap:
    """`classes` are the names of indices 1, 2, …; `mask_values` gives the index of each value that a mask may hold."""

    classes: tuple[str, ...]
    mask_values: Mapping[int, int]


def foreground(idx_to_class: Mapping[int, str]) -> dict[int, str]:
    """The names of the foreground classes by index. Index 0 is always the background: a name for it is left out.

    Raises `ConfigError` where it is no name for each index.
    """
    if not isinstance(idx_to_class, Mapping) or not all(str(index).isdecimal() for index in idx_to_class):
        raise ConfigError(
            f"datamodule.idx_to_class={idx_to_class}: it takes a name for each index, in a shell in quotes: "
            "'datamodule.idx_to_class={1: scratch, 2: dent}'."
        )
    return {int(index): str(name) for index, name in idx_to_class.items() if int(index) != 0}


def build_class_map(idx_to_class: Mapping[int, str], mask_values: Mapping[int, int] | None) -> ClassMap:
    """Check and complete what a configuration says; without `mask_values`, the values in a mask are the indices.

    Raises:
        ConfigError: indices with gaps, no class, two classes of one name, or values that are no table of known indices.
    """
    names = foreground(idx_to_class)
    if sorted(names) != list(range(1, len(names) + 1)) or not 0 < len(names) <= _MOST_CLASSES:
        raise ConfigError(
            f"datamodule.idx_to_class names the indices {sorted(names)}: foreground classes are 1, 2, … without gaps, "
            f"at most {_MOST_CLASSES}; 0 is the background. Where masks hold other values, datamodule.mask_values says what they "
            "stand for, as in {0: 0, 255: 1}"
        )
    classes = tuple(names[index] for index in sorted(names))
    if len(set(classes)) != len(classes):
        raise ConfigError(f"datamodule.idx_to_class gives two indices the same name: {', '.join(classes)}")
    if mask_values is None:
        return ClassMap(classes, {index: index for index in range(len(classes) + 1)})
    try:
        values = {int(value): int(index) for value, index in mask_values.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"datamodule.mask_values={mask_values}: it takes a class index for each value, in a shell in quotes: "
            "'datamodule.mask_values={0: 0, 255: 1}'."
        ) from error
    wrong = sorted(index for index in values.values() if not 0 <= index <= len(classes))
    if wrong:
        raise ConfigError(f"datamodule.mask_values names the class index {wrong[0]}; known are 0 to {len(classes)}")
    return ClassMap(classes, values)
