"""Reading images and masks from files into arrays, the same way for every data set: Pillow and numpy, without torch."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import PREFIXES, TiffImageFile

from ratchet.errors import MaskValueError, UnreadableImageError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# What Pillow's decoders raise on broken files; UnidentifiedImageError is an OSError.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_ORIENTATION_TAG = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BMP_HEADER_SIZE, _BMP_BITS, _BMP_COLOURS = 14, 28, 46  # where a BMP says it
_BMP_OS2 = 12  # the size of OS/2's header
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR, _TIFF_SEPARATE = 258, 262, 284, 2
_TIFF_BANDS, _TIFF_EXTRA, _TIFF_UNSPECIFIED = 277, 338, 0
# What in a PNG may tell an orientation: the names of its chunks and texts are never compressed.
_PNG_ORIENTATION = (b"eXIf", b"tEXtexif\0", b"XML:com.adobe.xmp", b"Raw profile type exif")
READING = 4
"""Goes up when the same bytes give other pixels, or none: counts of before are of other images."""

_FIRST_SIDEWAYS = 5  # orientations from here on exchange width and height
_SIXTEEN_TO_EIGHT_BITS = 257  # 65535 / 255


def read_image(path: Path) -> NDArray[np.uint8]:
    """The image as shown by a viewer: RGB, uint8 of shape (H, W, 3).

    The EXIF orientation is applied, wherever in the file Pillow finds one. Gray is repeated to three channels, a palette
    is resolved, transparency is left out (the stored colours stay), 16 bits are scaled to 8, and of several frames the
    first is taken. Pixels of 32-bit float images have no agreed range and are refused, as are bands besides colours and
    transparency. A truncated file is an error, never gray pixels.

    Raises:
        UnreadableImageError: the file does not decode, its pixels have no agreed range, or it has other bands.
    """
    image = _decode(path)
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, path)
    if image.mode == "F":
        raise UnreadableImageError(f"{path}: float pixels have no agreed range; save the image with 8 or 16 bits")
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparency converts cleanly only this way
    if image.mode == "La":  # gray times its transparency, which Pillow converts to nothing else
        image = image.convert("LA")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def read_mask(path: Path, mask_values: Mapping[int, int]) -> NDArray[np.uint8]:
    """The mask as class indices, uint8 of shape (H, W), by looking each stored value up in `mask_values`.

    Of a palette image the indices count, not the colours; a colour image is taken if its three channels are equal.
    The EXIF orientation is applied, as for images.

    Raises:
        UnreadableImageError: the file does not decode.
        MaskValueError: the mask is coloured, transparent in places, or a TIFF in which 0 is white, or holds fractions, or
            values that `mask_values` does not name.
    """
    values = _single_channel(_decode(path, is_mask=True), path)
    found = np.unique(values)
    unknown = [int(value) for value in found if int(value) not in mask_values]
    if unknown:
        listed = ", ".join(map(str, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")  # noqa: PLR2004
        raise MaskValueError(
            f"{path}: mask values {listed} stand for no class; known are {', '.join(map(str, sorted(mask_values)))}. "
            "Mend the mask, name the class in datamodule.idx_to_class, or say what each value means in datamodule.mask_values "
            "(all of them: value: class index)"
        )
    classes = np.array([mask_values[int(value)] for value in found], dtype=np.uint8)
    if values.dtype == np.uint8:  # a table, since positions to look up take eight bytes a pixel
        table = np.zeros(256, dtype=np.uint8)
        table[found] = classes
        return table[values]
    return classes[np.searchsorted(found, values)]


def read_size(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height as shown by a viewer, from the header alone; `path` is named in errors.

    Raises:
        UnreadableImageError: the bytes are no image.
    """
    try:
        with _open(data) as image:
            _require_understood(image, data)
            width, height = image.size
            return (height, width) if _orientation(image, data) >= _FIRST_SIDEWAYS else (width, height)
    except _DECODING_ERRORS as error:
        raise UnreadableImageError(_unreadable(path, error)) from error


def _decode(path: Path, *, is_mask: bool = False) -> Image.Image:
    """The pixels, turned. Of 16 bits in several channels Pillow keeps the upper 8, which in a mask are none of its values."""
    try:
        # From memory: a file that Pillow maps, it maps in the shape that a turned TIFF has only when it is turned.
        data = path.read_bytes()
        with _open(data) as image:
            _require_understood(image, data)
            halved = not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in image.tile)
            inverted = image.mode in ("1", "L") and _zero_is_white(image)
            transpose = _TRANSPOSES.get(_orientation(image, data))
            image.load()
            turned = image.transpose(transpose) if transpose is not None else image.copy()
    except _DECODING_ERRORS as error:
        raise UnreadableImageError(_unreadable(path, error)) from error
    if halved and is_mask:
        raise MaskValueError(f"{path}: a mask with 16 bits in several channels; save it with one channel")
    if inverted and is_mask:
        raise MaskValueError(
            f"{path}: a TIFF mask in which 0 is white (PhotometricInterpretation 0): some programs read the opposite of its "
            "values; save it as PNG, or with 0 as black"
        )
    return turned


def _open(data: bytes) -> ImageFile.ImageFile:
    """As `Image.open`, but of a TIFF that Pillow does not know `ValueError` tells that it is one."""
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        if data.startswith(tuple(PREFIXES)):
            raise ValueError("a TIFF cut short, or of a kind that Pillow does not read: its bands or bits") from error
        raise


def _require_understood(image: Image.Image, data: bytes) -> None:
    """Refuse what Pillow decodes, without an error, to other pixels than those that the file means.

    Raises `ValueError`, as its decoders do.
    """
    bits = image.format == "BMP" and image.mode == "1"
    if bits and data[_BMP_HEADER_SIZE] != _BMP_OS2 and data[_BMP_BITS] != 1 and data[_BMP_COLOURS] > 1:
        raise ValueError("a BMP of more than 1 bit a pixel with a palette of black and white: save it as PNG")
    if image.mode.startswith("I") and _zero_is_white(image):
        raise ValueError("a TIFF of 16 bits in which 0 is white: save it as PNG, or with 0 as black")
    if not isinstance(image, TiffImageFile):
        return
    bands = image.tag_v2.get(_TIFF_BANDS, 1)
    if _TIFF_UNSPECIFIED in image.tag_v2.get(_TIFF_EXTRA, ()):
        raise ValueError(f"a TIFF of {bands} bands, and images are read as RGB: save one band, or three")
    if not any(tile[0] == "raw" for tile in image.tile):
        return
    planar = image.tag_v2.get(_TIFF_PLANAR) == _TIFF_SEPARATE
    if planar and max(image.tag_v2.get(_TIFF_BITS, (1,))) > 8:  # noqa: PLR2004 - bits
        raise ValueError("an uncompressed TIFF of 16 bits with separate planes: save it interleaved, or compressed")


def _zero_is_white(image: Image.Image) -> bool:
    """Whether it is a TIFF that says so, or says nothing, which Pillow takes for the same: it inverts up to 8 bits."""
    return isinstance(image, TiffImageFile) and bool(image.tag_v2.get(_TIFF_PHOTOMETRIC, 0) == 0)


def _orientation(image: Image.Image, data: bytes) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8: what `ImageOps.exif_transpose` goes by.

    Pillow turns TIFF by itself. What a PNG tells behind its pixels it finds only when it decodes them, and `getexif` of
    a PNG does so for any that tells nothing before them.
    """
    if image.format == "TIFF":
        return 1
    if image.format == "PNG" and any(mark in data[data.rfind(b"IDAT") :] for mark in _PNG_ORIENTATION):
        image.load()
    found = int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    return found if found in _TRANSPOSES else 1


def _from_sixteen_bits(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise UnreadableImageError(f"{path}: pixels outside 0..65535; save the image with 8 or 16 bits")
    gray = np.round(values / _SIXTEEN_TO_EIGHT_BITS).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _single_channel(image: Image.Image, path: Path) -> NDArray[np.uint8] | NDArray[np.int64]:
    stored = np.asarray(image)
    if image.mode == "F" and (odd := stored[~np.isfinite(stored) | (stored != np.floor(stored))]).size:
        raise MaskValueError(
            f"{path}: the mask value {odd[0]:g} is no whole number; save it with one whole number per class, not probabilities"
        )
    values = stored if stored.dtype == np.uint8 else stored.astype(np.int64)
    if values.ndim == 2:  # noqa: PLR2004 - (H, W)
        return values
    transparent = image.getbands()[-1] in ("A", "a")
    if transparent and (values[:, :, -1] != 255).any():  # noqa: PLR2004
        raise MaskValueError(
            f"{path}: a mask that is transparent in places, where programs disagree on what is there; save it with one channel "
            "that holds one value per class"
        )
    colours = values[:, :, : values.shape[2] - transparent]
    if (colours != colours[:, :, :1]).any():
        raise MaskValueError(f"{path}: a coloured mask; save it with one channel that holds one value per class")
    return np.ascontiguousarray(colours[:, :, 0])


def _unreadable(path: Path, error: Exception) -> str:
    said = "its bytes are those of none" if isinstance(error, UnidentifiedImageError) else error or type(error).__name__
    return f"{path}: cannot be read as an image ({said}); replace the file or leave it out"
