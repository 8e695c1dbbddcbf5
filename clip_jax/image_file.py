"""Opens images: the one place where files, bytes, arrays and Pillow images are decoded.

Every image leaves here decoded, upright and with 8 bits a channel:

- the EXIF or XMP orientation is applied and its tag dropped, whatever the format;
- 16-bit grey (PNG, TIFF, JPEG 2000) is scaled by the depth that the file states. 32-bit integers
  and floats have no range of their own and are refused;
- transparency stays; `image.to_rgb` decides what becomes of it.

Whatever a decoder raises becomes an InputError that names the file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from clip_jax.errors import InputError
from clip_jax.paths import as_path, is_remote
from clip_jax.text import escape

# Files with other suffixes are ignored in folders of images. In order of preference, for samples of
# tar files that have several.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
ImageSource = Image.Image | np.ndarray | bytes | str | os.PathLike | IO[bytes]

# A sound PNG may carry megabytes of text (an editor's history); Pillow refuses chunks above 1 MB.
# Its limit on all chunks of a file together, 64 MB, stays.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)

# EXIF 2.32, tag 274: what the stored pixels need to become upright.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow looks for the tag.
_ORIENTATION_INFO = (
    "exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1",
)  # fmt: skip
_RGB_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_STRAIGHT_ALPHA = {"La": "LA", "RGBa": "RGBA"}  # by the mode with premultiplied alpha
# Pillow's mode "I" holds 32 bits; from these formats the values are of 16.
_SIXTEEN_BIT_FORMATS = ("PPM", "PNG")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8
_CHANNELS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGBA


def open_image(
    source: ImageSource, *, formats: Collection[str] | None = None, draft_side: int | None = None
) -> Image.Image:
    """Decodes one image whole, upright, with 8 bits a channel, in any mode that `to_rgb` takes.

    Args:
        source: a path, an encoded image (bytes or a binary file), a Pillow image, or an array
            uint8[H, W] or uint8[H, W, C] of C = 1 (grey), 2 (with alpha), 3 (RGB) or 4 (RGBA).
            The orientation tag of a Pillow image is applied too.
        formats: Pillow's names of the only formats to accept; None: all.
        draft_side: decode a JPEG at a half, a quarter or an eighth of its size, with sides of at
            least so many pixels; other formats are decoded whole. Pixels differ from a whole
            decode's.

    Raises InputError for anything else and for what cannot be decoded whole.
    """
    name = _name(source)
    if isinstance(source, Image.Image):
        opened = source
    elif _is_array(source):
        return _from_array(np.asarray(source))
    else:
        with _decoding(name):
            listed = None if formats is None else list(formats)
            opened = Image.open(_file(source), formats=listed)
            if draft_side is not None:
                opened.draft("RGB", (draft_side, draft_side))
    with _decoding(name):
        opened.load()
        image = _upright(_eight_bits(opened, name))
    if image.mode not in _RGB_MODES:
        raise InputError(f"{name}: has mode {image.mode}; expected one that converts to RGB")
    image.format = opened.format
    return image


def read_size(source: str | os.PathLike | bytes) -> tuple[int, int]:
    """Reads width and height as stored, without decoding; raises InputError as `open_image`."""
    name = _name(source)
    with _decoding(name), Image.open(_file(source)) as header:
        return header.size


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such image") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not a readable image (in no known format)") from error
    # Decoders raise what their parsers do: OSError, ValueError, TypeError, SyntaxError,
    # RuntimeError, EOFError, MemoryError, struct.error, KeyError, IndexError...
    except Exception as error:
        reason = " ".join(escape(str(error)).split()) or type(error).__name__
        raise InputError(f"{name}: not a readable image ({reason})") from error


def _name(source: Any) -> str:
    """Names a source for errors."""
    if isinstance(source, str | os.PathLike):
        return escape(os.fspath(source) if isinstance(source, str) else str(source))
    if isinstance(source, Image.Image):
        return escape(str(getattr(source, "filename", "") or "image"))
    if isinstance(source, bytes | bytearray | memoryview):
        return "image bytes"
    return escape(str(getattr(source, "name", "") or "image"))


def _file(source: Any) -> Any:
    """Returns what `PIL.Image.open` takes; InputError for no file and no bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesIO(source)
    if isinstance(source, str | os.PathLike):
        path = as_path(source)
        found = path.stat() if is_remote(path) else os.stat(source)
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for its writer
            raise InputError(f"{_name(source)}: not a regular file")
        return BytesIO(path.read_bytes()) if is_remote(path) else path
    if hasattr(source, "read") and hasattr(source, "seek"):
        return source
    raise InputError(
        f"image is {type(source).__name__}; expected a path, bytes, a Pillow image or "
        "uint8[H, W, 3]"
    )


def _is_array(source: Any) -> bool:
    return isinstance(source, np.ndarray) or hasattr(source, "__array__")


def _from_array(array: np.ndarray) -> Image.Image:
    found = f"image array is {array.dtype}{list(array.shape)}"
    if array.dtype != np.uint8:
        raise InputError(
            f"{found}; expected uint8[H, W, 3] with values 0 to 255: scale and convert it"
        )
    if array.ndim == 3 and array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        raise InputError(f"{found}; expected channels last, uint8[H, W, 3]: transpose it")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS):
        raise InputError(f"{found}; expected uint8[H, W, 3]")
    if not array.size:
        raise InputError(f"{found}, which is empty; expected at least one pixel")
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _upright(image: Image.Image) -> Image.Image:
    """Applies and drops the orientation tag; returns the image itself where there is none."""
    try:
        method = _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata that cannot be parsed say nothing, and the pixels are sound
        method = None
    if method is None:
        return image
    upright = image.transpose(method)
    upright.info = {k: v for k, v in upright.info.items() if k not in _ORIENTATION_INFO}
    return upright


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Converts to 8 bits a channel and straight alpha."""
    if image.mode in _STRAIGHT_ALPHA:
        return image.convert(_STRAIGHT_ALPHA[image.mode])
    if image.mode in ("I", "F") and image.format not in _SIXTEEN_BIT_FORMATS:
        kind = "32-bit integers" if image.mode == "I" else "floats"
        raise InputError(
            f"{name}: has mode {image.mode}, {kind} of no fixed range; scale it to 8 or 16 bits"
        )
    if not image.mode.startswith("I"):
        return image
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
    values = np.asarray(image)
    grey = (np.clip(values, 0, 2**bits - 1) >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    scaled.info = {k: v for k, v in image.info.items() if k != "transparency"}
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # PNG: the grey value that is not drawn
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled
