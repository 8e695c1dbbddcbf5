"""The folder of images that the page searches; it is named by whoever starts the server."""

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

THUMBNAIL = 512  # pixels of the longer side, at most


@dataclasses.dataclass(frozen=True)
class Shown:
    """caption: the cosine, and the file's place in the folder."""

    picture: Image.Image
    caption: str


class Shelf:
    """Opened by the first search, which encodes what is not in the store on disk yet."""

    def __init__(self, clip: PretrainedClip, folder: Path) -> None:
        self.folder = folder
        self._clip = clip
        self._album: ImageIndex | None = None

    def open(self, told: Callable[[int, int], object] | None = None) -> ImageIndex:
        """told: is called with the numbers of images that are read, and of all."""
        if self._album is None:
            self._album = build_image_index(self._clip, self.folder, quiet=True, on_progress=told)
        return self._album

    def close(self) -> None:
        """The next search looks again what is in the folder."""
        self._album = None

    def search(self, text: str, count: float, limits: Limits) -> list[Shown]:
        """The images most like a text, small enough for a page, best first.

        One whose file has gone since is left out.
        """
        text = limits.text("text", text, needed=True)
        found = self.open().search(text, limits.count("number of pictures", count))
        shown = []
        for each in found:
            if each.path.exists():
                place = escape(str(each.path.relative_to(self.folder)))
                picture = _thumbnail(each.path, self._clip.config.image.background)
                shown.append(Shown(picture, f"{each.cosine:.3f}  {place}"))
        return shown


def _thumbnail(path: Path, background: Background) -> Image.Image:
    """Transparent pixels on the model's background, on white where it has none."""
    picture = to_rgb(open_image(path), background or WHITE)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture
