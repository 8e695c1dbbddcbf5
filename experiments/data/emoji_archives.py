"""Archives of more drawing styles: packages of Iconify on npm, each emoji of which is an SVG.

They are no wheels, so pip cannot install them: `download` fetches them when it is called for, or a
person puts the same files into the folder. A file whose SHA-512 differs from npm's is refused.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError

REGISTRY = "https://registry.npmjs.org"
FOLDER = "emoji_archives"  # in the folder of built-in sets
COMMAND = "python -m experiments.quickstart --data emoji --download"


@dataclasses.dataclass(frozen=True)
class Archive:
    """Describe one package. sha512: in base64, as npm states it. licence: of the drawings."""

    style: str
    package: str
    version: str
    sha512: str
    megabytes: float
    licence: str

    @property
    def file(self) -> str:
        return f"{self.package}-{self.version}.tgz"

    @property
    def url(self) -> str:
        return f"{REGISTRY}/@iconify-json/{self.package}/-/{self.file}"


ARCHIVES = (
    Archive(
        "noto", "noto", "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        3.1, "Apache-2.0",
    ),
    Archive(
        "fluent", "fluent-emoji-flat", "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        1.2, "MIT",
    ),
    Archive(
        "emojione2", "emojione", "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        0.7, "CC-BY-4.0",
    ),
    Archive(
        "emojione1", "emojione-v1", "1.2.3",
        "UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
        3.7, "CC-BY-SA-4.0",
    ),
    Archive(
        "fxemoji", "fxemoji", "1.2.2",
        "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        1.0, "Apache-2.0",
    ),
    Archive(
        "streamline", "streamline-emojis", "1.2.4",
        "iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
        0.4, "CC-BY-4.0",
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Icons:
    """Hold one package's drawings.

    icons: name -> {"body": SVG elements, "width": ..., ...}; aliases: name -> {"parent": a name,
    "hFlip": whether mirrored}. characters: code points in hexadecimal, joined by "-", -> name;
    empty where the package does not say. size: (width, height) of an icon that does not say.
    """

    icons: Mapping[str, Mapping[str, Any]]
    aliases: Mapping[str, Mapping[str, Any]]
    characters: Mapping[str, str]
    size: tuple[float, float]


def missing(folder: Path, archives: Sequence[Archive] = ARCHIVES) -> list[Archive]:
    """Returns the archives that are not in a folder."""
    return [archive for archive in archives if not (folder / archive.file).is_file()]


def download(folder: Path, archives: Sequence[Archive] = ARCHIVES) -> None:
    """Fetches what is missing; raises InputError where a server fails or sends other bytes."""
    for archive in missing(folder, archives):
        print(f"fetching {archive.url} ({archive.megabytes} MB, {archive.licence})", flush=True)
        try:
            with urllib.request.urlopen(archive.url, timeout=60) as answer:
                content = answer.read()
        except (OSError, HTTPException) as error:  # the second where an answer is cut short
            raise InputError(
                f"{archive.url}: {error}; fetch it some other way and put it into {folder}"
            ) from error
        _check(archive, content, archive.url)
        replace_file(folder / archive.file, content)


def read_icons(folder: Path, archive: Archive) -> Icons:
    """Reads an archive's drawings; a file that is absent or differs raises InputError."""
    file = folder / archive.file
    if not file.is_file():
        raise InputError(
            f"{file}: no such file; `{COMMAND}` fetches it, or put {archive.url} there"
        )
    _check(archive, file.read_bytes(), str(file))
    with tarfile.open(file) as tar:
        drawings = json.loads(tar.extractfile("package/icons.json").read())
        characters = json.loads(tar.extractfile("package/chars.json").read())
    width, height = (drawings.get(side, 16) for side in ("width", "height"))
    return Icons(drawings["icons"], drawings.get("aliases", {}), characters, (width, height))


def _check(archive: Archive, content: bytes, where: str) -> None:
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != archive.sha512:
        raise InputError(
            f"{where}: SHA-512 is {found[:12]}..., expected {archive.sha512[:12]}...; remove it "
            f"and fetch it again: {COMMAND}"
        )
