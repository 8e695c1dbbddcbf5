"""Opens an index folder and searches it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clip_jax.arguments import check_array, check_integer, check_path
from clip_jax.errors import InputError
from clip_jax.index import nearest
from clip_jax.index.catalog import FILE_NAME, Catalog
from clip_jax.index.embeddings import embeddings_file, read_embeddings
from clip_jax.index.sources import Entry, Source, open_source
from clip_jax.paths import local_path
from clip_jax.pretrained import PretrainedClip
from clip_jax.text import escape


@dataclasses.dataclass(frozen=True)
class Match:
    """An image that was found, and the cosine of its embedding and the query, from -1 to 1.

    entries: of the source, more than one where images have equal bytes.
    """

    entries: tuple[Entry, ...]
    cosine: float

    @property
    def key(self) -> str:
        return self.entries[0].key


class IndexFolder:
    """Holds an index open. Numbers of images are those of the time when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._catalog = Catalog(folder, write=False)
        self.facts = self._catalog.facts()
        if "rows" not in self.facts:
            raise InputError(f"{escape(str(folder))}: the index is empty; index once more")
        rows, width = int(self.facts["rows"]), int(self.facts["width"])
        file = embeddings_file(folder, int(self.facts["version"]))
        self.embeddings = read_embeddings(file, rows, width)
        self._unused = frozenset(self._catalog.unused_rows())
        self._source: Source | None = None
        self._search = nearest.open_search(folder, self.facts, self.embeddings)

    def __repr__(self) -> str:
        readable, unreadable = self._catalog.count()
        return f"IndexFolder({str(self.folder)!r}, {readable} images, {unreadable} unreadable)"

    @property
    def recall(self) -> float:
        """Returns the share of the first ten that a search finds: 1 where all are compared."""
        return float(self._search.recall)

    def check_model(self, clip: PretrainedClip) -> None:
        """Raises InputError for a model that did not make the embeddings."""
        if clip.content_hash != self.facts["model"]:
            raise InputError(
                f"{escape(str(self.folder))}: was made with another model (SHA-256 "
                f"{self.facts['model'][:12]}..., and this is {clip.content_hash[:12]}...)"
            )

    def search(self, vector: np.ndarray, count: int) -> list[Match]:
        """Returns up to `count` images, the most similar first; ties by the order of indexing.

        vector: float[E] of unit length, such as `query_vector` returns.
        """
        count = check_integer("count", count)
        vector = np.asarray(check_array("vector", vector), np.float32)
        if vector.shape != (self.embeddings.shape[1],):
            raise InputError(
                f"vector is {list(vector.shape)}; expected [{self.embeddings.shape[1]}]"
            )
        # Rows that no image has any longer are found too, at most so many.
        rows, cosines = self._search(vector, count + len(self._unused))
        live = [i for i, row in enumerate(rows) if int(row) not in self._unused][:count]
        images = self._catalog.images_of_rows([int(rows[i]) for i in live])
        return [
            Match(tuple(images[int(rows[i])]), float(cosines[i]))
            for i in live
            if int(rows[i]) in images
        ]

    def count(self) -> tuple[int, int]:
        """Returns the numbers of images that are searched, and of those that cannot be read."""
        return self._catalog.count()

    def unreadable(self) -> dict[str, str]:
        """Returns key -> error of images that are left out."""
        return self._catalog.unreadable()

    def items(self) -> Iterator[tuple[Entry, int]]:
        """Yields every image with its row of `embeddings`, in the order of keys."""
        for image in self._catalog.images():
            if image.row is not None:
                yield image.entry, image.row

    def read(self, entry: Entry) -> bytes:
        """Returns an image file's bytes from the source that was indexed.

        InputError where the source, or the image in it, is there no longer.
        """
        if self._source is None:
            self._source = open_source(self.facts["source"])
        try:
            return self._source.read(entry)
        except OSError as error:
            raise InputError(f"{escape(entry.key)}: {error.strerror or error}") from error

    def duplicates(self) -> list[list[str]]:
        """Returns the keys of images with equal bytes, a list for each group."""
        groups: dict[int, list[str]] = {}
        for entry, row in self.items():
            groups.setdefault(row, []).append(entry.key)
        return [keys for keys in groups.values() if len(keys) > 1]

    def close(self) -> None:
        self._catalog.close()
        self._search.close()


def is_index(folder: str | Path) -> bool:
    """Returns whether a folder is an index."""
    return (local_path(folder, "an index of images") / FILE_NAME).is_file()


def open_index(folder: str | Path) -> IndexFolder:
    """Opens the folder that `build_index` wrote; another one raises InputError."""
    place = local_path(check_path("folder", folder), "an index of images")
    if not (place / FILE_NAME).is_file():
        raise InputError(
            f"{escape(str(place))}: is no index; expected a folder that python -m clip_jax index "
            "wrote"
        )
    return IndexFolder(place)
