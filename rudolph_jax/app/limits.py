"""Limits of what a user of the page may request."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from clip_jax.errors import InputError
from clip_jax.image_file import open_image, read_size
from clip_jax.text import invisible_characters, normalize_name


@dataclasses.dataclass(frozen=True)
class Limits:
    """Validates requests; those beyond a limit raise InputError.

    images: of one generation, shown by one search, or candidates of a caption.
    prompt, label: characters of a text, of a class's name.
    labels: number of classes.
    upload_mb: of a file, in units of 2^20 bytes.
    uploads_mb: of all files within two hours, after which they are deleted.
    megapixels: of an uploaded image, checked before it is decoded.
    waiting: tasks in the queue.
    """

    images: int = 32
    prompt: int = 500
    labels: int = 100
    label: int = 100
    upload_mb: int = 20
    uploads_mb: int = 1024
    megapixels: int = 50
    waiting: int = 20

    @property
    def upload_bytes(self) -> int:
        return self.upload_mb * 2**20

    def count(self, name: str, value: float | None) -> int:
        """Returns a whole number from 1 to `images`, which pages may send as a float."""
        if value is None or value != int(value) or not 1 <= value <= self.images:
            raise InputError(f"{name} is {value}; expected 1 to {self.images}")
        return int(value)

    def text(self, name: str, value: str, required: bool = False) -> str:
        """Returns the text stripped; an empty one is an error where it is `required`."""
        value = value.strip()
        if required and not value:
            raise InputError(
                f"the {name} is empty; expected a text such as «рукописная цифра семь»"
            )
        if len(value) > self.prompt:
            raise InputError(
                f"the {name} has {len(value)} characters; expected {self.prompt} at most"
            )
        return value

    def class_names(self, text: str) -> list[str]:
        """Parses at least two distinct names, separated by commas or lines, in order."""
        names = [normalize_name(name.strip()) for name in text.replace("\n", ",").split(",")]
        names = list(dict.fromkeys(filter(None, names)))
        if not 2 <= len(names) <= self.labels:
            raise InputError(
                f"{len(names)} different labels were given; expected 2 to {self.labels}, separated "
                "by commas or lines"
            )
        for name in names:
            if hidden := invisible_characters(name):
                raise InputError(
                    f"label {name!r} has invisible characters ({', '.join(hidden)}); type it again"
                )
        longest = max(names, key=len)
        if len(longest) > self.label:
            raise InputError(
                f"a label has {len(longest)} characters; expected {self.label} at most"
            )
        return names

    def open_upload(self, file: str | Path | None) -> Image.Image:
        """Decodes an uploaded image."""
        if not file:
            raise InputError("no image was given; upload one")
        size = Path(file).stat().st_size
        if size > self.upload_bytes:
            raise InputError(
                f"the file has {size / 2**20:.1f} MB; expected {self.upload_mb} MB at most"
            )
        try:
            width, height = read_size(file)
        except InputError as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                raise InputError(f"the image has more than {self.megapixels} megapixels") from error
            raise InputError(
                "the file is not an image; expected a format such as PNG or JPEG"
            ) from error
        if width * height > self.megapixels * 10**6:
            raise InputError(
                f"the image has {width}x{height} pixels; expected {self.megapixels} megapixels "
                "at most"
            )
        try:
            return open_image(Path(file))
        except InputError as error:
            raise InputError("the image is damaged; expected a whole file") from error
