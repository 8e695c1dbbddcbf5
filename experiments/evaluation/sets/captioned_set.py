"""A prepared set of images with captions, several to an image: for retrieval."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import escape, normalize_name
from experiments.data.source import BUILTIN_SETS, Split, build_builtin_set
from experiments.evaluation.sets.labelled_set import LazyImages, hash_images, images_at
from experiments.evaluation.sets.loader import DATA_DIR, find_path


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSet:
    """Hold one split.

    captions: of each of N images, one or more.
    keys: N stable names of examples.
    images: N encoded files, read when needed.
    """

    name: str
    split: str
    captions: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    images: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.captions)

    def image(self, index: int) -> bytes:
        """Returns the encoded file of the index-th image."""
        return self.images[index]

    def at(self, places: Sequence[int]) -> CaptionedSet:
        """Returns the examples at these places alone, in their order."""
        return dataclasses.replace(
            self,
            captions=tuple(self.captions[place] for place in places),
            keys=tuple(self.keys[place] for place in places),
            images=images_at(self.images, places),
        )

    @functools.cached_property
    def source_hash(self) -> str:
        """Returns SHA-256 of all keys and captions, and of 16 images spread evenly."""
        digest = hashlib.sha256()
        for key, captions in zip(self.keys, self.captions, strict=True):
            digest.update(escape("\t".join((key, *captions, "\n"))).encode())
        hash_images(digest, self.images)
        return digest.hexdigest()


def open_captioned(
    folder: str | Path, split: str = "test", data_dir: str | Path = DATA_DIR
) -> CaptionedSet:
    """Opens a split of a set that `experiments.prepare` made, or of a built-in one by its name.

    data_dir: where built-in sets are built. A set without captions raises InputError.
    """
    name, place = str(folder), find_path(folder)
    if name in BUILTIN_SETS:
        place = build_builtin_set(name, as_path(data_dir).expanduser())
    opened = Split(place, split)
    opened.require_captions()
    captions, keys = [], []
    for i in tqdm(range(len(opened)), f"captions of {name}", disable=None, leave=False):
        row = opened[i]
        found = row["captions"]
        if not isinstance(found, list) or not found or not isinstance(found[0], str):
            raise InputError(
                f"{name}: example {i} of split {split!r} has captions {found!r}; expected a list "
                "of texts, as `python -m experiments.prepare` writes them"
            )
        captions.append(tuple(found))
        keys.append(normalize_name(row.get("key") or f"{split}[{i}]"))
    images = LazyImages(len(opened), lambda i: opened[i]["image"])
    return CaptionedSet(name, split, tuple(captions), tuple(keys), images)
