"""Search in a folder of images, which is given when the server starts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from clip_jax import PretrainedClip
from clip_jax.config import WHITE, Background
from clip_jax.errors import InputError
from clip_jax.image import open_image, to_rgb
from clip_jax.index import IndexFolder, is_index, open_index, query_vector
from clip_jax.search import ImageIndex, build_image_index
from clip_jax.text import escape
from rudolph_jax.app.limits import Limits

THUMBNAIL_SIDE = 512  # largest, in pixels


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """Small copy of an image. caption: the cosine, and the file's path in the folder."""

    image: Image.Image
    caption: str


class SearchTabIndex:
    """A folder of images, or an index; the first search opens it and encodes what is not stored."""

    def __init__(self, clip: PretrainedClip, folder: Path) -> None:
        self.folder = folder
        self._clip = clip
        self._index: ImageIndex | IndexFolder | None = None

    def open(self, on_progress: Callable[[int, int], object] | None = None) -> tuple[int, int]:
        """Returns the numbers of images that are searched, and of unreadable files.

        on_progress: is called with the numbers of images that are read, and of all.
        """
        if self._index is None and is_index(self.folder):
            index = open_index(self.folder)
            index.check_model(self._clip)
            self._index = index
        elif self._index is None:
            self._index = build_image_index(
                self._clip, self.folder, quiet=True, on_progress=on_progress
            )
        if isinstance(self._index, IndexFolder):
            return self._index.count()
        return len(self._index.paths), len(self._index.unreadable)

    def close(self) -> None:
        """Drops the index, so that the next search lists the folder again."""
        self._index = None

    def search(self, text: str, count: float, limits: Limits) -> list[Thumbnail]:
        """Finds the images most like a text, as thumbnails, best first.

        Images whose files have been removed since are left out.
        """
        text = limits.text("text", text, required=True)
        number = limits.count("number of images", count)
        self.open()
        vector = query_vector(self._clip, [text])
        background = self._clip.config.image.background
        thumbnails = []
        for name, cosine, image in self._found(vector, number):
            caption = f"{cosine:.3f}  {escape(name)}"
            thumbnails.append(Thumbnail(_thumbnail(image, background), caption))
        return thumbnails

    def _found(self, vector: np.ndarray, count: int) -> Iterator[tuple[str, float, Path | bytes]]:
        """Yields name, cosine, and what `open_image` takes."""
        if isinstance(self._index, IndexFolder):
            for match in self._index.search(vector, count):
                with contextlib.suppress(InputError):
                    yield match.key, match.cosine, self._index.read(match.entries[0])
        elif self._index is not None:
            for result in self._index.search_vector(vector, count):
                if result.path.exists():
                    name = str(result.path.relative_to(self.folder))
                    yield name, result.cosine, result.path


def _thumbnail(source: Path | bytes, background: Background) -> Image.Image:
    """Makes a small copy; transparent pixels get the model's background, or white."""
    image = to_rgb(open_image(source), background or WHITE)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return image
