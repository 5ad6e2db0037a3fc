"""What a data set is by its bytes: digests of files, the split that follows from them, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ratchet.data.reading import read_size
from ratchet.data.samples import Sample
from ratchet.errors import MaskSizeError, SplitOverlapError, UnreadableImageError

_THREADS = 8  # reading and hashing release the interpreter lock
_BLOCK = 1024  # pairs queued at once: each takes 2 kB until it is read


@dataclass(frozen=True)
class PairContent:
    """SHA-256 of the bytes of an image and of its mask, in hexadecimal."""

    image: str
    mask: str


def read_contents(pairs: Mapping[str, tuple[Path, Path]]) -> dict[str, PairContent]:
    """Read every image and mask once: digest both, and compare the sizes that their headers give.

    Pixels are not decoded here: a file that is broken behind its header, and a mask value that stands for no class,
    show when the file is first read for training or scoring.

    Raises:
        UnreadableImageError: a file cannot be read, or is no image.
        MaskSizeError: a mask has another size than its image.
    """
    files, contents = list(pairs.values()), list[PairContent]()
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _BLOCK):
            contents += pool.map(read_pair, files[start : start + _BLOCK])
    return dict(zip(pairs, contents, strict=True))


def read_pair(pair: tuple[Path, Path]) -> PairContent:
    """Read one image and its mask: `read_contents` of a single pair."""
    digests, sizes = [], []
    for path in pair:
        data = _read_bytes(path)
        digests.append(hashlib.sha256(data).hexdigest())
        sizes.append(read_size(data, path))
    if sizes[0] != sizes[1]:
        (width, height), (mask_width, mask_height) = sizes
        raise MaskSizeError(
            f"{pair[1]} has {mask_width}x{mask_height} pixels, its image {pair[0]} {width}x{height}: "
            "a mask must have the size of its image"
        )
    return PairContent(*digests)


def position(digest: str, seed: int) -> float:
    """A place in [0, 1) that follows from the content and the seed alone, evenly spread."""
    hashed = hashlib.sha256(f"{seed}:{digest}".encode()).digest()
    return int.from_bytes(hashed[:6], "big") / 2**48


def split_by_content(digest: str, seed: int, sizes: Mapping[str, float]) -> str:
    """The split of an image by its content: `sizes` are the shares of all splits but `train`, which takes the rest.

    An image keeps its split while the data set grows, and images of the same bytes are in the same split.
    """
    place, upper = position(digest, seed), 0.0
    for split, size in sizes.items():
        upper += size
        if place < upper:
            return split
    return "train"


def check_contents_disjoint(
    splits: Mapping[str, str], contents: Mapping[str, PairContent], pairs: Mapping[str, tuple[Path, Path]]
) -> None:
    """Check that no image is in two splits by its bytes; `splits` is the split by name. Twice in one split is allowed.

    Raises:
        SplitOverlapError: an image is in two splits.
    """
    seen: dict[str, str] = {}
    for name, split in splits.items():
        first = seen.setdefault(contents[name].image, name)
        if splits[first] != split:
            raise SplitOverlapError(
                f"{pairs[first][0]} ({splits[first]}) and {pairs[name][0]} ({split}) are the same image: "
                "a model must not be judged on what it was trained on; remove one from its list"
            )


def fingerprint(samples: Iterable[Sample], contents: Mapping[str, PairContent], meaning: Mapping[str, object]) -> str:
    """SHA-256, in hexadecimal, of names, splits and bytes of the samples and of what the mask values mean.

    Neither paths nor times nor metadata count. `meaning` must be plain values that JSON can hold.
    """
    rows = sorted((s.name, s.split, contents[s.name].image, contents[s.name].mask) for s in samples)
    text = json.dumps({"samples": rows, **meaning}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read ({error.strerror})") from error
