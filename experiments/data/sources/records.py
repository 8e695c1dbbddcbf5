"""Records as a source gives them, and which of them are good enough to learn from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError

from clip_jax.errors import InputError
from clip_jax.image import open_image

# The ones that are stored as they are. Pillow reads more, some with the help of other programs.
KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LARGEST_FILE = 256 * 2**20  # bytes
JPEG_QUALITY = 95


class BadRecord(Exception):
    """Why a record, or one of its captions, is left out."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A record before anything was checked.

    key: its name, the same whenever the source is read. where: the file and the row or key.
    image: an encoded picture. captions: str, or bytes of UTF-8, if all is well. captions_where: of
    each, if that differs.
    """

    key: str
    where: dict[str, Any]
    image: bytes
    captions: Sequence[Any]
    captions_where: Sequence[dict[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A line of rejected.jsonl."""

    where: dict[str, Any]
    why: str


@dataclasses.dataclass(frozen=True)
class Record:
    key: str
    image: bytes
    captions: list[str]


def check_record(
    candidate: Candidate, max_side: int | None
) -> tuple[Record | None, list[Rejected]]:
    """The record without its bad captions, or None; and what was left out.

    max_side: pictures with a longer side are encoded anew with this one, in pixels.
    """
    captions, rejected = [], []
    places = candidate.captions_where or [candidate.where] * len(candidate.captions)
    for caption, where in zip(candidate.captions, places, strict=True):
        try:
            captions.append(_check_caption(caption))
        except BadRecord as error:
            rejected.append(Rejected(where, str(error)))
    if not captions:
        return None, rejected or [Rejected(candidate.where, "caption is missing")]
    try:
        image = _check_image(candidate.image, max_side)
    except BadRecord as error:
        return None, [*rejected, Rejected(candidate.where, str(error))]
    return Record(printable(candidate.key), image, captions), rejected


def printable(text: str) -> str:
    """Names of files need not be Unicode; what is not becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_caption(caption: Any) -> str:
    if caption is None:
        raise BadRecord("caption is missing")
    if not isinstance(caption, str | bytes):
        raise BadRecord(f"caption is no text: it is of type {type(caption).__name__}")
    try:
        # Tables are read with surrogates for what is not UTF-8.
        text = caption.decode() if isinstance(caption, bytes) else caption.encode().decode()
    except UnicodeError as error:
        raise BadRecord("caption is not UTF-8") from error
    if not text.strip():
        raise BadRecord("caption is empty")
    return text.strip()


def _check_image(data: bytes, max_side: int | None) -> bytes:
    if not data:
        raise BadRecord("picture is empty")
    try:
        format = Image.open(io.BytesIO(data), formats=FORMATS).format
        image = open_image(data)
    except (UnidentifiedImageError, Image.DecompressionBombError, InputError, OSError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, UnidentifiedImageError):
            reason = f"not one of {', '.join(FORMATS)}"
        raise BadRecord(f"picture cannot be read: {reason}") from error
    small = max_side is None or max(image.size) <= max_side
    if small and format in KEPT_FORMATS:
        return data
    image = image.convert("RGB")
    if not small:
        scale = max_side / max(image.size)
        w, h = (max(round(side * scale), 1) for side in image.size)
        image = image.resize((w, h), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if format in ("JPEG", "MPO", "WEBP"):
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()
