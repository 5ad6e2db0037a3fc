"""Images and masks of every kind that people bring are read alike, and broken ones are named."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ratchet.data.reading import read_image, read_mask, read_size
from ratchet.errors import MaskValueError, UnreadableImageError

RED = (200, 30, 10)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 5, rows + columns], axis=2).astype(np.uint8)


def test_an_rgb_png_is_read_as_it_was_written(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_mode_becomes_three_channels_of_eight_bits(tmp_path: Path, mode: str) -> None:
    if mode in {"I;16", "I"}:
        gray = Image.fromarray(picture()[:, :, 0].astype(np.uint16) * 257)
        image = gray if mode == "I;16" else gray.convert("I")
    else:
        image = Image.fromarray(picture()).convert(mode)
    image.save(tmp_path / ("a.tif" if mode in {"CMYK", "YCbCr", "I"} else "a.png"))
    read = read_image(next(tmp_path.iterdir()))
    assert read.shape == (24, 32, 3)
    assert read.dtype == np.uint8


def test_a_gray_image_has_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(picture()[:, :, 0]).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    for channel in range(3):
        np.testing.assert_array_equal(read[:, :, channel], picture()[:, :, 0])


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 0], [0, 1, 128, 255])


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    image.save(tmp_path / "a.png", transparency=0)
    assert tuple(read_image(tmp_path / "a.png")[0, 0]) == RED


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_exif_orientation_is_applied_once(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (32, 16))
    image.paste(RED, (0, 0, 16, 16))  # left half, as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns by a quarter clockwise: left becomes top
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    read = read_image(tmp_path / f"a.{suffix}").astype(int)
    assert read.shape == (32, 16, 3)
    assert read[4, 8, 0] > 150
    assert read[28, 8, 0] < 50


EXIF = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # the orientation 6, and nothing else
XMP = b'XML:com.adobe.xmp\0%s<rdf:Description tiff:Orientation="6"/>'


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (b"eXIf", EXIF),
        (b"iTXt", XMP % bytes(4)),
        (b"tEXt", XMP % b""),
        (b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(EXIF), EXIF.hex().encode())),
    ],
)
def test_a_png_is_turned_as_by_those_who_serve_the_model_wherever_it_tells_its_orientation(
    tmp_path: Path, kind: bytes, told: bytes, late: bool
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(16, 32)).save(path)
    data = path.read_bytes()
    place = data.rindex(b"IEND" if late else b"IDAT") - 4  # a chunk begins with its length
    chunk = struct.pack(">I", len(told)) + kind + told + struct.pack(">I", zlib.crc32(kind + told))
    path.write_bytes(data[:place] + chunk + data[place:])
    served = ImageOps.exif_transpose(Image.open(path)).convert("RGB")  # as in docs/serving.md
    assert read_size(path.read_bytes(), path) == served.size == (16, 32)
    np.testing.assert_array_equal(read_image(path), np.asarray(served))


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA"])
def test_an_uncompressed_tiff_that_is_turned_keeps_its_pixels_in_place(tmp_path: Path, mode: str) -> None:
    stored = np.zeros((4, 8, 4) if mode == "RGBA" else (4, 8), dtype=np.uint16 if mode == "I;16" else np.uint8)
    stored[0, 0] = 255 * 257 if mode == "I;16" else 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.tif", exif=exif)
    read = read_image(tmp_path / "a.tif")[:, :, 0]
    assert read.shape == (8, 4)
    assert np.argwhere(read).tolist() == [[0, 3]]


def png_of_sixteen_bits(path: Path, value: int, kind: int) -> None:
    """A PNG of 2 x 2 pixels of one value, in the colour type `kind`; Pillow writes none with several channels."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    rows = (b"\0" + struct.pack(">H", value) * channels * 2) * 2
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
        for name, data in parts:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


@pytest.mark.parametrize("kind", [2, 4, 6])
def test_a_mask_of_sixteen_bits_in_several_channels_is_refused_rather_than_read_as_background(
    tmp_path: Path, kind: int
) -> None:
    png_of_sixteen_bits(tmp_path / "a.png", 1, kind)
    with pytest.raises(MaskValueError, match=r"a\.png: a mask with 16 bits in several channels"):
        read_mask(tmp_path / "a.png", {0: 0, 1: 1})
    png_of_sixteen_bits(tmp_path / "b.png", 1, 0)
    assert read_mask(tmp_path / "b.png", {0: 0, 1: 1}).tolist() == [[1, 1], [1, 1]]
    png_of_sixteen_bits(tmp_path / "c.png", 255 * 257, kind)
    assert read_image(tmp_path / "c.png")[0, 0, 0] == 255  # an image's upper 8 bits are its pixels


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=r"a\.tif: float pixels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.97])
def test_a_truncated_file_raises_and_never_gives_gray_pixels(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"broken.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UnreadableImageError, match=rf"broken\.{suffix}"):
        read_image(path)


def test_a_black_and_white_palette_in_a_bmp_is_never_read_as_something_else(tmp_path: Path) -> None:
    stored = np.zeros((8, 32), dtype=np.uint8)
    stored[:, 16:] = 1
    mask = Image.frombytes("P", (32, 8), stored.tobytes())
    mask.putpalette([0, 0, 0, 255, 255, 255])
    mask.save(tmp_path / "m.bmp")
    with pytest.raises(UnreadableImageError, match=r"m\.bmp.*save it as PNG"):
        read_mask(tmp_path / "m.bmp", {0: 0, 1: 1})
    with pytest.raises(UnreadableImageError, match=r"m\.bmp"):
        read_size((tmp_path / "m.bmp").read_bytes(), tmp_path / "m.bmp")
    mask.putpalette([0, 0, 0, 255, 255, 255, 9, 9, 9])
    mask.save(tmp_path / "three.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "three.bmp", {0: 0, 1: 1}), stored)
    Image.fromarray(stored.astype(bool)).save(tmp_path / "bits.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.bmp", {0: 0, 255: 1, 1: 1}), stored)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_of_a_tiff_in_which_0_is_white_an_image_is_as_shown_and_a_mask_is_refused(
    tmp_path: Path, compression: str
) -> None:
    shown = picture()[:, :, 0]
    Image.fromarray(shown).save(tmp_path / "a.tif", tiffinfo={262: 0}, compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[:, :, 0], shown)
    Image.fromarray(shown.astype(np.uint16) * 257).save(tmp_path / "b.tif", tiffinfo={262: 0}, compression=compression)
    with pytest.raises(UnreadableImageError, match=r"b\.tif.*16 bits in which 0 is white"):
        read_image(tmp_path / "b.tif")
    mask = np.array([[0, 255, 255], [0, 0, 255]], dtype=np.uint8)
    for image in (Image.fromarray(mask), Image.fromarray(mask > 0)):
        image.save(tmp_path / "m.tif", tiffinfo={262: 0}, compression=compression)
        with pytest.raises(MaskValueError, match=r"m\.tif: a TIFF mask in which 0 is white.*save it as PNG"):
            read_mask(tmp_path / "m.tif", {0: 0, 1: 1, 255: 1})
        image.save(tmp_path / "m.tif", compression=compression)
        np.testing.assert_array_equal(read_mask(tmp_path / "m.tif", {0: 0, 1: 1, 255: 1}), mask // 255)


def test_sixteen_bits_in_separate_planes_are_never_read_as_eight(tmp_path: Path) -> None:
    planes = np.full((3, 4, 6), 0x4000, dtype="<u2")
    size, start = planes[0].nbytes, 8 + 2 + 10 * 12 + 4
    tags = [(256, 3, 1, 6), (257, 3, 1, 4), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, start + 6)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 3, start + 18), (284, 3, 1, 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    places = struct.pack("<3I", *(start + 30 + plane * size for plane in range(3))) + struct.pack(
        "<3I", size, size, size
    )
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path = tmp_path / "a.tif"
    path.write_bytes(header + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + places + planes.tobytes())
    with pytest.raises(UnreadableImageError, match=r"a\.tif.*interleaved"):
        read_image(path)


def test_a_band_besides_the_colours_is_refused_and_transparency_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGBX", (4, 4)).save(path)
    with pytest.raises(UnreadableImageError, match=r"a\.tif.*a TIFF of 4 bands.*or three"):
        read_image(path)
    with pytest.raises(UnreadableImageError, match="4 bands"):
        read_size(path.read_bytes(), path)
    Image.new("RGBA", (4, 4), (*RED, 0)).save(path)
    assert tuple(read_image(path)[0, 0]) == RED


def gray_tiff_of_two_bands(path: Path, extra: int, pixel: bytes) -> None:
    """One pixel of gray and of something more: 0 is not told, 1 is transparency that the gray is multiplied with."""
    tags = [(256, 1), (257, 1), (259, 1), (262, 1), (273, 134), (277, 2), (278, 1), (279, 2), (338, extra)]
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack("<HHIHH", 258, 3, 2, 8, 8))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + pixel)


def test_a_second_band_of_a_gray_tiff_is_no_transparency_unless_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    gray_tiff_of_two_bands(path, 0, bytes([7, 9]))
    for read in (read_image, lambda path: read_size(path.read_bytes(), path)):
        with pytest.raises(UnreadableImageError, match="2 bands"):
            read(path)
    gray_tiff_of_two_bands(path, 1, bytes([7, 255]))
    assert read_image(path).tolist() == [[[7, 7, 7]]]
    assert read_mask(path, {7: 1}).tolist() == [[1]]
    gray_tiff_of_two_bands(path, 1, bytes([7, 100]))
    with pytest.raises(MaskValueError, match="transparent"):
        read_mask(path, {7: 1})


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_mask_that_is_transparent_in_places_is_refused(mode: str, tmp_path: Path) -> None:
    mask = Image.new(mode, (2, 1))  # black on black: only the transparency tells the object
    mask.putpixel((1, 0), (*[0] * (len(mode) - 1), 255))
    mask.save(tmp_path / "m.png")
    with pytest.raises(MaskValueError, match=r"m\.png: a mask that is transparent in places"):
        read_mask(tmp_path / "m.png", {0: 0, 1: 1})


def test_a_tiff_that_pillow_does_not_read_is_still_called_one(tmp_path: Path) -> None:
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 122), (277, 5), (278, 1), (279, 5)]  # of five bands
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4 + 5))
    with pytest.raises(UnreadableImageError, match=r"a\.tif.*a TIFF .* of a kind that Pillow does not read"):
        read_image(path)


def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(picture(16, 32)).save(tmp_path / "a.jpg", exif=exif)
    assert read_size((tmp_path / "a.jpg").read_bytes(), tmp_path / "a.jpg") == (32, 16)
    assert read_image(tmp_path / "a.jpg").shape == (16, 32, 3)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(UnreadableImageError, match=r"notes\.png"):
        read_mask(tmp_path / "notes.png", {0: 0})


def test_mask_values_become_class_indices(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, 2], [3, 2]], dtype=np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", {1: 1, 2: 0, 3: 1}), [[1, 0], [1, 0]])


def test_of_a_palette_mask_the_indices_count_and_not_the_colours(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    mask.putdata([0, 1, 2, 1])
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", {0: 0, 1: 1, 2: 2}), [[0, 1], [2, 1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_gray_mask_saved_with_more_channels_is_taken(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", {0: 0, 255: 1}), [[0, 1], [1, 0]])


def test_a_mask_of_one_bit_has_the_values_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", {0: 0, 1: 1}), [[0, 1]])


def test_a_mask_of_sixteen_bits_is_not_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1000]], dtype=np.uint16)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", {0: 0, 1000: 1}), [[0, 1]])


def test_a_mask_value_without_class_is_named_with_its_file(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1], [7, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(MaskValueError, match=r"m\.png: mask values 7, 255 .*known are 0, 1.*mask_values"):
        read_mask(tmp_path / "m.png", {0: 0, 1: 1})


@pytest.mark.parametrize("value", [0.97, float("nan"), float("inf")])
def test_a_mask_of_floats_is_taken_if_all_are_whole_and_refused_otherwise(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0, 1]], dtype=np.float32)).save(tmp_path / "m.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif", {0: 0, 1: 1}), [[0, 1]])
    Image.fromarray(np.array([[0, value]], dtype=np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(MaskValueError, match=rf"m\.tif: the mask value {value} is no whole number"):
        read_mask(tmp_path / "m.tif", {0: 0, 1: 1})


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "m.png")
    with pytest.raises(MaskValueError, match=r"m\.png: a coloured mask"):
        read_mask(tmp_path / "m.png", {0: 0})


def test_a_large_mask_is_read_in_a_few_bytes_a_pixel(tmp_path: Path) -> None:
    """Several are read at once, by the sweep's own process."""
    stored = np.random.default_rng(0).choice(np.array([0, 255], dtype=np.uint8), (1500, 2000))
    Image.fromarray(stored).save(tmp_path / "mask.png")
    tracemalloc.start()
    try:
        found = read_mask(tmp_path / "mask.png", {0: 0, 255: 1})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(found, stored // 255)
    assert peak < 4 * stored.size
