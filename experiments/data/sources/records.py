"""Records as a source gives them, and which of them are good enough to learn from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError

from clip_jax.errors import InputError
from clip_jax.image import open_image
from experiments.data.sources.forms import Form

# The ones that are stored as they are. Pillow reads more, some with the help of other programs.
KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LARGEST_FILE = 256 * 2**20  # bytes
JPEG_QUALITY = 95


class BadRecord(Exception):
    """Why a record, or one of its captions or answers, is left out."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A record before anything was checked.

    key: its name, the same whenever the source is read. where: the file and the row or key.
    image: an encoded picture, None in a form without. texts: by feature, str, or bytes of UTF-8,
    if all is well; a list of those that the form has several of. several_where: of each, if that
    differs.
    """

    key: str
    where: dict[str, Any]
    image: bytes | None
    texts: Mapping[str, Any]
    several_where: Sequence[dict[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A line of rejected.jsonl."""

    where: dict[str, Any]
    why: str


@dataclasses.dataclass(frozen=True)
class Record:
    key: str
    image: bytes | None
    texts: dict[str, Any]

    @property
    def example(self) -> dict[str, Any]:
        """By feature, as it is stored."""
        picture = {} if self.image is None else {"image": self.image}
        return {**picture, **self.texts, "key": self.key}

    @property
    def subject(self) -> bytes:
        """What decides the split: of questions on one picture or text all are in the same."""
        if "question" not in self.texts:
            return self.key.encode()
        return self.image or self.texts.get("context", self.texts["question"]).encode()


def check_record(
    candidate: Candidate, form: Form, max_side: int | None
) -> tuple[Record | None, list[Rejected]]:
    """The record without its bad captions or answers, or None; and what was left out.

    max_side: pictures with a longer side are encoded anew with this one, in pixels.
    """
    nouns = {name: column.noun for name, column in form.columns.items()}
    several: list[str] = []
    rejected = []
    given = candidate.texts[form.several]
    places = candidate.several_where or [candidate.where] * len(given)
    for text, where in zip(given, places, strict=True):
        try:
            several.append(_check_text(text, nouns[form.several]))
        except BadRecord as error:
            rejected.append(Rejected(where, str(error)))
    if not several:
        why = f"{nouns[form.several]} is missing"
        return None, rejected or [Rejected(candidate.where, why)]
    try:
        texts = {name: _check_text(candidate.texts[name], nouns[name]) for name in form.single}
        image = _check_image(candidate.image, max_side) if form.picture else None
    except BadRecord as error:
        return None, [*rejected, Rejected(candidate.where, str(error))]
    return Record(printable(candidate.key), image, {**texts, form.several: several}), rejected


def printable(text: str) -> str:
    """Names of files need not be Unicode; what is not becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_text(given: Any, noun: str) -> str:
    if given is None:
        raise BadRecord(f"{noun} is missing")
    if not isinstance(given, str | bytes):
        raise BadRecord(f"{noun} is no text: it is of type {type(given).__name__}")
    try:
        # Tables are read with surrogates for what is not UTF-8.
        text = given.decode() if isinstance(given, bytes) else given.encode().decode()
    except UnicodeError as error:
        raise BadRecord(f"{noun} is not UTF-8") from error
    if not text.strip():
        raise BadRecord(f"{noun} is empty")
    return text.strip()


def _check_image(data: bytes | None, max_side: int | None) -> bytes:
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
