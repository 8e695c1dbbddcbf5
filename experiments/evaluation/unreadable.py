"""Finds images of an evaluation set that cannot be read, and lists them with the reason.

Numbers are of the readable images. A result lists the others under "unreadable" as objects of
split, key and why; "images" counts all that took part.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import jax

from clip_jax.config import ImageConfig
from clip_jax.errors import InputError
from clip_jax.image import preprocess
from clip_jax.progress import elapsed_lines
from clip_jax.text import escape

CHECK_SIZE = 8  # pixels; to find out whether an image can be read, any size does

# Pillow names a stream by its place in memory, which differs between two runs.
_ADDRESS = re.compile(r" ?<[\w.]+ object at 0x[0-9a-fA-F]+>")


class ImageSplit(Protocol):
    """A split of any kind of set."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Any: ...


def check_image(image: Any) -> None:
    """Raises InputError for an image that preprocessing cannot read."""
    preprocess([image], CHECK_SIZE, ImageConfig())


def why_unreadable(images: ImageSplit, place: int, read: Callable[[Any], Any] = check_image) -> str:
    """The reason in a line; "" for an image that can be read. read: raises InputError."""
    try:
        read(images.image(place))
    except (InputError, OSError) as error:  # OSError: a source whose file is gone
        reason = _ADDRESS.sub("", escape(" ".join(str(error).split())))
        return reason or type(error).__name__
    return ""


def find_unreadable(
    images: ImageSplit, places: Iterable[int], read: Callable[[Any], Any] = check_image
) -> dict[int, str]:
    """Place -> reason of those that cannot be read, in order. All are decoded, by threads."""
    places = list(places)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(lambda place: why_unreadable(images, place, read), places)
        return {place: why for place, why in zip(places, reasons, strict=True) if why}


def check_any_readable(images: ImageSplit, count: int, reasons: Mapping[int, str]) -> None:
    """Raises InputError where none of a split's first `count` images can be read."""
    if count and len(reasons) >= count:
        place, why = next(iter(reasons.items()))
        raise InputError(
            f"{images.name} {images.split} {escape(images.keys[place])}: {why}; none of the "
            f"{count} images of the split can be read"
        )


@dataclasses.dataclass(frozen=True)
class ReadableExamples:
    """examples: that are measured. count: of those that were to be. unreadable: the others, see
    `listed`.
    """

    examples: Any
    count: int
    unreadable: list[dict[str, str]]

    def metadata(self) -> dict[str, Any]:
        """Says in a result what took part, for JSON."""
        return {
            "examples": len(self.examples),
            "images": self.count,
            "unreadable": self.unreadable,
        }


def readable_examples(examples: Any, count: int) -> ReadableExamples:
    """Return the readable ones of the first `count` examples. InputError if there are none."""
    has_images = getattr(examples, "has_images", True)
    with elapsed_lines(f"opening {count:,} images", quiet=jax.process_index() > 0):
        reasons = find_unreadable(examples, range(count)) if has_images else {}
    check_any_readable(examples, count, reasons)
    places = [place for place in range(count) if place not in reasons]
    return ReadableExamples(examples.at(places), count, listed(examples, reasons))


def listed(images: ImageSplit, reasons: Mapping[int, str]) -> list[dict[str, str]]:
    """List the images and the reasons, for JSON."""
    return [
        {"split": images.split, "key": images.keys[place], "why": why}
        for place, why in sorted(reasons.items())
    ]


def still_unreadable(result: Mapping[str, Any], splits: Sequence[ImageSplit]) -> bool:
    """Returns whether all that an earlier result left out would be left out now too."""
    for images in splits:
        keys = {row["key"] for row in result.get("unreadable", ()) if row["split"] == images.split}
        places = [place for place, key in enumerate(images.keys) if key in keys]
        if keys and len(find_unreadable(images, places)) < len(keys):
            return False
    return True
