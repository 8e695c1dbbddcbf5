"""Decoding of image files: orientation, bit depth, damage, in every format Pillow reads."""

import io
import os
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from clip_jax import InputError
from clip_jax.image_file import open_image, read_size

ORIENTATION = 274
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )


@pytest.fixture
def smooth(rng):
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize((64, 48), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_orientation_is_applied(smooth, format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    tagged = smooth.copy()
    tagged.info["exif"] = exif.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(tagged)).astype(int)
    opened = open_image(encoded(smooth, format, exif=exif, quality=95))
    assert opened.size == expected.shape[1::-1]
    assert np.abs(np.asarray(opened.convert("RGB")) - expected).mean() < 4
    # The tag is gone: a second pass turns nothing.
    np.testing.assert_array_equal(np.asarray(open_image(opened)), np.asarray(opened))


def test_orientation_in_xmp_is_applied(smooth):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert open_image(encoded(smooth, "JPEG", xmp=xmp)).size == (48, 64)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    opened = open_image(encoded(smooth, "PNG", pnginfo=info))
    np.testing.assert_array_equal(np.asarray(opened), np.rot90(np.asarray(smooth), -1))


def test_orientation_of_a_pillow_image_is_applied_to_a_copy(smooth, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    smooth.save(tmp_path / "a.png", exif=exif)
    given = Image.open(tmp_path / "a.png")  # not loaded yet
    opened = open_image(given)
    np.testing.assert_array_equal(np.asarray(opened), np.rot90(np.asarray(smooth), -1))
    assert given.size == (64, 48) and given.getexif()[ORIENTATION] == 6


def test_images_without_a_tag_are_untouched(smooth):
    assert open_image(smooth) is smooth
    for orientation in (0, 9, 1000):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        opened = open_image(encoded(smooth, "PNG", exif=exif))
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(smooth))


def test_damaged_metadata_do_not_make_an_image_unreadable(smooth):
    for exif in (b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", b"rubbish" * 9):
        opened = open_image(encoded(smooth, "PNG", exif=exif))
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(smooth))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_sixteen_bits_are_scaled_and_never_clipped(format):
    data = encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), format)
    assert Image.open(io.BytesIO(data)).mode.startswith("I")
    np.testing.assert_array_equal(np.asarray(open_image(data)), RAMP)


def test_sixteen_bits_of_the_other_byte_order():
    big = Image.frombytes("I;16B", (16, 16), (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(open_image(big)), RAMP)


def tiff_of_grey(values, bits, photometric=1):
    """Makes a little-endian TIFF of one strip, packed by the caller."""
    tags = [
        (256, 4, 16), (257, 4, 16), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 4, 16), (279, 4, len(values)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\x00" + struct.pack("<IH", 8, 9) + entries + bytes(4) + values


def test_twelve_bits_have_their_own_range():
    wide = RAMP.astype(np.uint16).ravel() << 4 | 15
    pairs = wide.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    ).astype(np.uint8)
    opened = open_image(tiff_of_grey(packed.tobytes(), 12))
    np.testing.assert_array_equal(np.asarray(opened), RAMP)


def test_white_is_zero_in_sixteen_bits_too():
    data = tiff_of_grey((RAMP.astype("<u2") * 257).tobytes(), 16, photometric=0)
    np.testing.assert_array_equal(np.asarray(open_image(data)), 255 - RAMP)


def test_sixteen_bits_with_a_transparent_value():
    values = RAMP.astype(np.uint16) * 257
    data = encoded(Image.fromarray(values), "PNG", transparency=int(values[3, 5]))
    opened = open_image(data)
    assert opened.mode == "LA"
    assert np.argwhere(np.asarray(opened)[..., 1] == 0).tolist() == [[3, 5]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_modes_without_a_range_are_refused_by_name(dtype, tmp_path):
    image = Image.fromarray(RAMP.astype(dtype))
    mode = {np.int32: "I", np.float32: "F"}[dtype]
    image.save(tmp_path / "deep.tif")
    for source in (image, tmp_path / "deep.tif"):
        with pytest.raises(InputError, match=f"has mode {mode}.*scale it to 8 or 16 bits"):
            open_image(source)
    with pytest.raises(InputError, match="has mode LAB"):
        open_image(Image.new("LAB", (4, 4)))


def test_premultiplied_alpha_becomes_straight():
    straight = Image.new("RGBA", (4, 4), (200, 100, 40, 128))
    opened = open_image(straight.convert("RGBa"))
    assert opened.mode == "RGBA"
    np.testing.assert_allclose(np.asarray(opened)[0, 0], (200, 100, 40, 128), atol=2)


def test_a_sound_png_with_much_text_opens(smooth):
    text = b"history\x00\x00" + zlib.compress(os.urandom(1 << 10) * (2 << 10))
    data = encoded(smooth, "PNG")
    ending = data.index(b"IEND") - 4
    opened = open_image(data[:ending] + chunk(b"zTXt", text) + data[ending:])
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(smooth))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), TypeError("x"), SyntaxError("x"), RuntimeError("x"), EOFError("x"),
        MemoryError(), struct.error("x"), OSError("x"), KeyError(3), ZeroDivisionError("x"),
        IndexError("x"), OverflowError("x"), AssertionError(),
    ],
)  # fmt: skip
def test_whatever_a_decoder_raises_names_the_file(smooth, tmp_path, monkeypatch, error):
    smooth.save(tmp_path / "a.png")

    def load(self):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png")):
        with pytest.raises(InputError, match=r"a\.png: not a readable image \(.+\)$"):
            open_image(source)


def test_a_lazy_pillow_image_is_loaded_here(smooth, tmp_path):
    (tmp_path / "cut.png").write_bytes(encoded(smooth, "PNG")[:-60])
    with pytest.raises(InputError, match=r"cut\.png: not a readable image"):
        open_image(Image.open(tmp_path / "cut.png"))


def test_a_damaged_tag_type_of_a_tiff(smooth):
    data = bytearray(encoded(smooth, "TIFF"))
    first = int.from_bytes(data[4:8], "little") + 2
    count = int.from_bytes(data[first - 2 : first], "little")
    for entry in range(count):
        for kind in (2, 7, 13, 99):
            wrong = bytearray(data)
            wrong[first + 12 * entry + 2] = kind
            try:
                open_image(bytes(wrong))
            except InputError as error:
                assert str(error).startswith("image bytes: ")


def test_arrays(rng):
    grey = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    colours = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    for array, mode in (
        (grey, "L"), (grey[..., None], "L"), (colours[..., :2], "LA"), (colours[..., :3], "RGB"),
        (colours, "RGBA"), (colours[::-1, ::2], "RGBA"), (colours[:, :1, :3], "RGB"),
    ):  # fmt: skip
        opened = open_image(array)
        assert opened.mode == mode
        np.testing.assert_array_equal(
            np.asarray(opened), array[..., 0] if array.shape[2:] == (1,) else array
        )
    np.testing.assert_array_equal(
        np.asarray(open_image(jnp.asarray(colours))), colours
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"uint8\[3, 8, 9\]; expected channels last"),
        (np.zeros((8, 9, 5), np.uint8), r"uint8\[8, 9, 5\]; expected uint8\[H, W, 3\]"),
        (np.zeros((0, 9, 3), np.uint8), r"uint8\[0, 9, 3\], which is empty"),
        (np.zeros((9, 0), np.uint8), r"uint8\[9, 0\], which is empty"),
        (np.zeros((8, 9, 3)), r"float64\[8, 9, 3\]; expected uint8"),
        (np.zeros((8, 9), bool), r"bool\[8, 9\]; expected uint8"),
        (np.zeros((8, 9), np.uint16), r"uint16\[8, 9\]; expected uint8"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"uint8\[2, 8, 9, 3\]; expected"),
        (np.zeros(9, np.uint8), r"uint8\[9\]; expected"),
        (np.array(None), r"object\[\]; expected"),
        (None, "image is NoneType; expected a path"),
        (3, "image is int; expected a path"),
        ([1, 2], "image is list; expected a path"),
    ],
)
def test_arrays_that_are_no_images_are_named(array, message):
    with pytest.raises(InputError, match=message):
        open_image(array)


def test_files_that_are_no_images(tmp_path):
    for source, message in (
        (tmp_path, "not a regular file"),
        ("", "no such image"),
        ("a\0b", "not a readable image"),
        (b"", "in no known format"),
    ):
        with pytest.raises(InputError, match=message):
            open_image(source)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png: not a regular file"):
        open_image(tmp_path / "pipe.png")
    name = os.fsdecode("кошка".encode("cp1251") + b".png")
    with pytest.raises(InputError, match=r"\\udcea.*\.png: no such image") as caught:
        open_image(tmp_path / name)
    str(caught.value).encode()


def test_sizes_are_read_without_decoding(smooth):
    data = encoded(smooth, "PNG")
    assert read_size(data[:-60]) == (64, 48)
    with pytest.raises(InputError, match="in no known format"):
        read_size(b"none")
