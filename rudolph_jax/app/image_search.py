"""Search in a folder of images, which is given when the server starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from clip_jax import PretrainedClip
from clip_jax.config import WHITE, Background
from clip_jax.image import open_image, to_rgb
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
    """Index of a folder; the first search opens it and encodes images that are not stored yet."""

    def __init__(self, clip: PretrainedClip, folder: Path) -> None:
        self.folder = folder
        self._clip = clip
        self._index: ImageIndex | None = None

    def open(self, on_progress: Callable[[int, int], object] | None = None) -> ImageIndex:
        """on_progress: is called with the numbers of images that are read, and of all."""
        if self._index is None:
            self._index = build_image_index(
                self._clip, self.folder, quiet=True, on_progress=on_progress
            )
        return self._index

    def close(self) -> None:
        """Drops the index, so that the next search lists the folder again."""
        self._index = None

    def search(self, text: str, count: float, limits: Limits) -> list[Thumbnail]:
        """Finds the images most like a text, as thumbnails, best first.

        Images whose files have been removed since are left out.
        """
        text = limits.text("text", text, required=True)
        results = self.open().search(text, limits.count("number of images", count))
        thumbnails = []
        for result in results:
            if result.path.exists():
                path = escape(str(result.path.relative_to(self.folder)))
                image = _thumbnail(result.path, self._clip.config.image.background)
                thumbnails.append(Thumbnail(image, f"{result.cosine:.3f}  {path}"))
        return thumbnails


def _thumbnail(path: Path, background: Background) -> Image.Image:
    """Makes a small copy; transparent pixels get the model's background, or white."""
    image = to_rgb(open_image(path), background or WHITE)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return image
