"""What a data set is by its bytes: digests of files, the split that follows from them, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ratchet.data.digests import DigestIndex, FileContent, Stamp
from ratchet.data.reading import read_size
from ratchet.data.samples import Sample
from ratchet.errors import MaskSizeError, SplitOverlapError, UnreadableImageError

_THREADS = 8  # reading and hashing release the interpreter lock
_BLOCK = (
    512  # pairs queued at once: each takes 3 kB until it is read; what is read of them is kept, whatever comes then
)


@dataclass(frozen=True)
class PairContent:
    """SHA-256 of the bytes of an image and of its mask, in hexadecimal."""

    image: str
    mask: str


def read_contents(pairs: Mapping[str, tuple[Path, Path]], index: DigestIndex | None = None) -> dict[str, PairContent]:
    """Read every image and mask once: digest both, and compare the sizes that their headers give.

    What the `index` knows, and nobody has touched since, is not read again. Pixels are not decoded here: a file that is
    broken behind its header, and a mask value that stands for no class, show when the file is first read for training or
    scoring.

    Raises:
        UnreadableImageError: a file cannot be read, or is no image.
        MaskSizeError: a mask has another size than its image.
    """
    named, contents = list(pairs.items()), dict[str, PairContent]()
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(named), _BLOCK):
            block = named[start : start + _BLOCK]
            read = _read_files(list({path: None for _, pair in block for path in pair}), pool, index)
            contents |= {name: _pair_content(pair, read[pair[0]], read[pair[1]]) for name, pair in block}
    return contents


def _read_files(paths: list[Path], pool: ThreadPoolExecutor, index: DigestIndex | None) -> dict[Path, FileContent]:
    if index is None:
        return dict(zip(paths, pool.map(_read_file, paths), strict=True))
    asked = time.time_ns()
    found = zip(paths, pool.map(Stamp.of, paths), strict=True)
    stamps = {path: stamp for path, stamp in found if stamp is not None}
    known = index.find(stamps)
    missing = [path for path in paths if path not in known]
    read = dict(zip(missing, pool.map(_read_file, missing), strict=True))
    index.keep(read, stamps, asked=asked)
    return known | read


def read_pair(pair: tuple[Path, Path]) -> PairContent:
    """Read one image and its mask: `read_contents` of a single pair."""
    return _pair_content(pair, _read_file(pair[0]), _read_file(pair[1]))


def _pair_content(pair: tuple[Path, Path], image: FileContent, mask: FileContent) -> PairContent:
    if (image.width, image.height) != (mask.width, mask.height):
        raise MaskSizeError(
            f"{pair[1]} has {mask.width}x{mask.height} pixels, its image {pair[0]} {image.width}x{image.height}: "
            "a mask must have the size of its image"
        )
    return PairContent(image.digest, mask.digest)


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


def _read_file(path: Path) -> FileContent:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read ({error.strerror})") from error
    return FileContent(hashlib.sha256(data).hexdigest(), *read_size(data, path))
