"""How much one person on the page may ask of the machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from clip_jax.errors import InputError
from clip_jax.image_file import open_image, read_size
from clip_jax.text import invisible_characters, normalize_name


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is more raises InputError.

    pictures: of one drawing, or that one search shows; captions to choose from too. prompt, label:
    characters of a text, of a class's name. labels: classes. upload_mb: of a file, each 2^20 bytes;
    uploads_mb: of all files within two hours, which is how long they may lie on the disk.
    megapixels: of an uploaded picture, which is measured before it is decoded. waiting: tasks in
    the queue.
    """

    pictures: int = 32
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
        """A whole number from 1 to `pictures`, which pages may send as a float."""
        if value is None or value != int(value) or not 1 <= value <= self.pictures:
            raise InputError(f"{name} is {value}; expected 1 to {self.pictures}")
        return int(value)

    def text(self, name: str, value: str, needed: bool = False) -> str:
        """Stripped; `needed`: not empty."""
        value = value.strip()
        if needed and not value:
            raise InputError(
                f"the {name} is empty; expected a text such as «рукописная цифра семь»"
            )
        if len(value) > self.prompt:
            raise InputError(
                f"the {name} has {len(value)} characters; expected {self.prompt} at most"
            )
        return value

    def class_names(self, text: str) -> list[str]:
        """Distinct names in order, from lines or with commas between them; at least two."""
        names = [normalize_name(name.strip()) for name in text.replace("\n", ",").split(",")]
        names = list(dict.fromkeys(filter(None, names)))
        if not 2 <= len(names) <= self.labels:
            raise InputError(
                f"{len(names)} different labels were given; expected 2 to {self.labels}, with "
                "commas or on lines of their own"
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

    def picture(self, file: str | Path | None) -> Image.Image:
        """An uploaded image, decoded."""
        if not file:
            raise InputError("no picture was given; drop one into its field")
        size = Path(file).stat().st_size
        if size > self.upload_bytes:
            raise InputError(
                f"the file has {size / 2**20:.1f} MB; expected {self.upload_mb} MB at most"
            )
        try:
            width, height = read_size(file)
        except InputError as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                raise InputError(
                    f"the picture has more than {self.megapixels} megapixels"
                ) from error
            raise InputError("the file is no picture; expected such as PNG or JPEG") from error
        if width * height > self.megapixels * 10**6:
            raise InputError(
                f"the picture has {width}x{height} pixels; expected {self.megapixels} megapixels "
                "at most"
            )
        try:
            return open_image(Path(file))
        except InputError as error:
            raise InputError("the picture is damaged; expected a whole file") from error
