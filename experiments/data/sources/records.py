"""Records as a source gives them, and the check of which are good enough to learn from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from clip_jax.errors import InputError
from clip_jax.image_file import open_image
from clip_jax.text import decode_text, escape, normalize_name
from experiments.data.sources.groups import find_group
from experiments.data.sources.schema import RecordSchema

# The ones that are stored as they are. Pillow reads more, some with the help of other programs.
KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF")
LARGEST_FILE = 256 * 2**20  # bytes
JPEG_QUALITY = 95
FAINT_ALPHA = 8  # of 255


class BadRecord(Exception):
    """Why a record, or one of its captions or answers, is left out."""


@dataclasses.dataclass(frozen=True)
class ImagePlace:
    """Where an image's bytes are in a tar of the source's folder: from byte `start` on."""

    tar: str
    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A record before anything was checked.

    key: its name, the same whenever the source is read. where: the file and the row or key.
    image: an encoded image, None in a form without. texts: by feature, str, or bytes of UTF-8,
    if all is well; a list of those that the form has several of. several_where: of each, if that
    differs: the row that it is from. items: rows, members or entries of the source in it. group:
    the value of the column that `SourceConfig.group_by` names. place: where the image's bytes are,
    of a member of a tar.
    """

    key: str
    where: dict[str, Any]
    image: bytes | None
    texts: Mapping[str, Any]
    several_where: Sequence[dict[str, Any]] = ()
    items: int = 1
    group: Any = None
    place: ImagePlace | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A line of rejected.jsonl.

    items: rows, members or entries of the source that are lost with it; 0 for a bad caption or
    answer of an item that has good ones too.
    """

    where: dict[str, Any]
    why: str
    items: int = 1


@dataclasses.dataclass(frozen=True)
class Ignored:
    """Items of a source that are no records by a rule of its kind, which `why` names."""

    why: str
    items: int = 1


@dataclasses.dataclass(frozen=True)
class Record:
    """A record as it is stored.

    pixels: its decoded image. group: of records that belong into one split, None for one alone.
    """

    key: str
    image: bytes | None
    texts: dict[str, Any]
    pixels: Image.Image | None = None
    group: str | None = None

    @property
    def example(self) -> dict[str, Any]:
        """Returns it by feature, as it is stored."""
        image = {} if self.image is None else {"image": self.image}
        return {**image, **self.texts, "key": self.key}

    @property
    def split_key(self) -> bytes:
        """Returns what decides the split: a group shares it, and questions on one image or text."""
        if self.group is not None:
            return self.group.encode()
        if "question" not in self.texts:
            return self.key.encode()
        return self.image or self.texts.get("context", self.texts["question"]).encode()


def check_record(
    candidate: Candidate,
    schema: RecordSchema,
    max_side: int | None,
    normalize_text: bool = False,
    group_by: str = "",
) -> tuple[Record | None, list[Rejected]]:
    """Returns the record without its bad captions or answers, or None; and what was left out.

    max_side: images with a longer side are encoded again with this one, in pixels.
    normalize_text: whether texts are stored in NFC. group_by: of `SourceConfig`. The items of all
    rejections together are those of the candidate that are not in the record.
    """
    nouns = {name: column.noun for name, column in schema.columns.items()}
    given = candidate.texts[schema.repeated_feature]
    places = candidate.several_where or [candidate.where] * len(given)
    several: list[str] = []
    rejected = []
    good_rows = set()
    for text, where in zip(given, places, strict=True):
        try:
            several.append(_check_text(text, nouns[schema.repeated_feature], normalize_text))
            good_rows.add(where.get("row"))
        except BadRecord as error:
            rejected.append(Rejected(where, str(error), items=0))
    try:
        if not several and not rejected:
            raise BadRecord(f"{nouns[schema.repeated_feature]} is missing")
        texts = {
            name: _check_text(candidate.texts[name], nouns[name], normalize_text)
            for name in schema.scalar_features
        }
        key = escape(normalize_name(candidate.key))
        group = find_group(key, candidate.group, group_by)
        if group_by and group is None:
            raise BadRecord(f"group ({escape(group_by)}) is missing")
        image, pixels = None, None
        if schema.has_image and several:
            image, pixels = _check_image(candidate.image, max_side)
    except BadRecord as error:
        lost = Rejected(candidate.where, str(error), candidate.items)
        return None, [*rejected, lost]
    if not several:
        return None, [dataclasses.replace(rejected[0], items=candidate.items), *rejected[1:]]
    rejected = _count_lost_rows(rejected, good_rows)
    stored = {**texts, schema.repeated_feature: several}
    return Record(key, image, stored, pixels, group), rejected


def _count_lost_rows(rejected: list[Rejected], good_rows: set[Any]) -> list[Rejected]:
    """Counts a row as lost, once, where none of its texts is good."""
    counted, seen = [], set(good_rows)
    for line in rejected:
        row = line.where.get("row")
        counted.append(dataclasses.replace(line, items=int(row not in seen)))
        seen.add(row)
    return counted


def _check_text(given: Any, noun: str, normalize: bool) -> str:
    if given is None:
        raise BadRecord(f"{noun} is missing")
    if not isinstance(given, str | bytes):
        raise BadRecord(f"{noun} is no text: it is of type {type(given).__name__}")
    try:
        text = decode_text(given, noun) if isinstance(given, bytes) else given
        text.encode()  # tables are read with surrogates for what is not UTF-8
    except InputError as error:
        raise BadRecord(f"{noun} is not UTF-8: {str(error).partition(': ')[2]}") from error
    except UnicodeError as error:
        raise BadRecord(f"{noun} is not UTF-8") from error
    if not text.strip():
        raise BadRecord(f"{noun} is empty")
    return normalize_name(text.strip()) if normalize else text.strip()


def _check_image(data: bytes | None, max_side: int | None) -> tuple[bytes, Image.Image]:
    """Returns the file itself, or an upright 8-bit one that keeps transparency; and its pixels."""
    if not data:
        raise BadRecord("image is empty")
    try:
        image = open_image(data, formats=FORMATS)
    except InputError as error:
        reason = str(error).removeprefix("image bytes: ")
        if "in no known format" in reason:
            reason = f"not one of {', '.join(FORMATS)}"
        raise BadRecord(f"image cannot be read: {reason}") from error
    small = max_side is None or max(image.size) <= max_side
    if small and image.format in KEPT_FORMATS:
        return data, image
    lossy = image.format in LOSSY_FORMATS and not image.has_transparency_data
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if not small:
        scale = max_side / max(image.size)
        w, h = (max(round(side * scale), 1) for side in image.size)
        image = _resize(image, (w, h))
    buffer = io.BytesIO()
    if lossy:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue(), image


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes by Lanczos. What is transparent keeps its hidden colour, which some models see."""
    resized = image.resize(size, Image.Resampling.LANCZOS)
    if image.mode == "RGB":
        return resized
    # Pillow weights colours by alpha: right at edges, but black where nothing is opaque, and
    # rounded to nothing where hardly anything is.
    hidden = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    alpha = resized.getchannel("A")
    visible = alpha.point(lambda value: 255 if value > FAINT_ALPHA else 0)
    colours = Image.composite(resized.convert("RGB"), hidden, visible)
    colours.putalpha(alpha)
    return colours
