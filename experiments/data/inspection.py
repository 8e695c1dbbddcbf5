"""Inspects the images and captions of a set: what a person would want to know before training.

`Inspector` keeps notes on the records of a chunk. `find` reads the notes of all chunks and lists
transparent and nearly uniform images, duplicates, and captions that many records share.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from clip_jax.atomic_file import replacing
from clip_jax.config import Background
from clip_jax.image import to_rgb
from clip_jax.paths import is_remote
from experiments.data.sources.records import Record

TRANSPARENT, UNIFORM = "transparent", "nearly uniform"
EXACT, NEAR, CAPTION = "exact duplicates", "near duplicates", "repeated captions"
ACROSS = "across_splits"  # in lines of duplicates that lie in both splits
INSPECTED_SIDE = 64  # pixels: images are reduced to a square of it
# Standard deviation of the most varied channel of the reduced image, of 255: JPEG noise is below.
UNIFORM_DEVIATION = 2.0
MIN_REPEATS = 3  # records of one caption
# Perceptual hashes of near duplicates differ in at most so many of their 64 bits: of four bands of
# 16 bits one is then equal in both, by which the pairs are found.
NEAR_BITS = 3
LARGEST_BAND = 20_000  # images of one band; in a larger one only equal hashes are found
# Above so many records nothing is compared across records: 28 bytes a record are in memory.
MOST_COMPARED = 10_000_000
MOST_KEYS = 20  # of a finding that are listed
MOST_CAPTIONS = 1000  # that are listed, the most frequent ones


class Inspector:
    """Collects notes on the records of a chunk, in their order."""

    def __init__(self, background: Background, validation: str) -> None:
        """background: under transparent pixels. validation: the name of the second split."""
        self._background, self._validation = background, validation
        self._keys: list[str] = []
        self._in_validation: list[bool] = []
        self._images: list[tuple[float, float, int, int]] = []
        self._captions: list[str] = []
        self._caption_of: list[int] = []

    def add(self, record: Record, split: str) -> None:
        for caption in record.texts.get("captions", ()):
            self._captions.append(caption)
            self._caption_of.append(len(self._keys))
        self._keys.append(record.key)
        self._in_validation.append(split == self._validation)
        if record.pixels is not None:
            self._images.append(_inspect(record.pixels, self._background))

    def write(self, file: Path) -> None:
        columns = zip(*self._images, strict=True) if self._images else ((),) * 4
        visible, deviation, content, perceptual = columns
        with replacing(file) as beside, beside.open("wb") as opened:
            np.savez_compressed(
                opened,
                keys=_json_array(self._keys),
                texts=_json_array(self._captions),
                in_validation=np.array(self._in_validation, bool),
                visible=np.array(visible, np.float32),
                deviation=np.array(deviation, np.float32),
                content=np.array(content, np.uint64),
                perceptual=np.array(perceptual, np.uint64),
                captions=np.array([_digest(text.encode()) for text in self._captions], np.uint64),
                caption_of=np.array(self._caption_of, np.int64),
            )


def _inspect(image: Image.Image, background: Background) -> tuple[float, float, int, int]:
    """Returns the opaque share of an image, how varied it is, and the hashes of its pixels.

    The hashes are xxh3 of all pixels and pHash, in which images that look alike differ in few bits.
    """
    import imagehash  # brings a package of wavelets, of which pHash needs nothing

    visible = 1.0
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        visible = float(alpha.mean()) / 255
    seen = to_rgb(image, background)
    content = _digest(f"{seen.size}".encode() + seen.tobytes())
    small = seen.resize((INSPECTED_SIDE, INSPECTED_SIDE), Image.Resampling.BOX)
    deviation = float(np.asarray(small, np.float32).std((0, 1)).max())
    bits = imagehash.phash(small).hash.ravel()
    return visible, deviation, content, int.from_bytes(np.packbits(bits).tobytes(), "big")


def _digest(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def _json_array(texts: list[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Records that a person should look at.

    records: how many. keys: of the first of them. detail: what else is known, such as the caption.
    across_splits: whether records of both splits are alike.
    """

    kind: str
    records: int
    keys: list[str]
    detail: Mapping[str, Any]
    across_splits: bool

    @property
    def line(self) -> dict[str, Any]:
        """Returns it as a line of inspection.jsonl has it."""
        crossing = {ACROSS: True} if self.across_splits else {}
        shown = {"finding": self.kind, "records": self.records, **self.detail, **crossing}
        return {**shown, "keys": self.keys}


class _Notes:
    """The notes of all chunks, as one table whose texts are read when they are needed."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        lengths = [len(self._load(i, "in_validation")) for i in range(len(files))]
        self.starts = np.cumsum([0, *lengths])
        self._texts = functools.lru_cache(64)(self._load_texts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> np.ndarray:
        return np.concatenate([self._load(i, name) for i in range(len(self._files))])

    def chunks(self, *names: str) -> Iterator[tuple[int, ...]]:
        """Yields the first row of each chunk, and some of its columns."""
        for i in range(len(self._files)):
            yield int(self.starts[i]), *(self._load(i, name) for name in names)

    def key(self, row: int) -> str:
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self._texts(chunk, "keys")[row - int(self.starts[chunk])]

    def caption(self, place: int, counts: np.ndarray) -> str:
        """Returns a caption by its place among all; counts: captions up to each chunk's end."""
        chunk = int(np.searchsorted(counts, place, side="right"))
        return self._texts(chunk, "texts")[place - int(counts[chunk - 1] if chunk else 0)]

    def _load(self, chunk: int, name: str) -> np.ndarray:
        file = self._files[chunk]
        opened = io.BytesIO(file.read_bytes()) if is_remote(file) else file
        with np.load(opened, allow_pickle=False) as stored:
            return stored[name]

    def _load_texts(self, chunk: int, name: str) -> list[str]:
        return json.loads(self._load(chunk, name).tobytes())


def find(files: Sequence[Path]) -> Iterator[Finding]:
    """Yields what is found in the notes of all chunks, which `files` hold in their order.

    Sets of more than MOST_COMPARED records are not compared across records.
    """
    notes = _Notes(files)
    yield from _transparent(notes)
    yield from _uniform(notes)
    if len(notes) > MOST_COMPARED:
        return
    in_validation = notes.column("in_validation")

    def finding(kind: str, rows: Sequence[int], **detail: Any) -> Finding:
        keys = [notes.key(row) for row in rows[:MOST_KEYS]]
        both = bool(in_validation[rows].any() and not in_validation[rows].all())
        return Finding(kind, len(rows), keys, detail, both)

    content = notes.column("content")
    first = np.ones(len(content), bool)
    for rows in _equal(content):
        first[rows[1:]] = False
        yield finding(EXACT, rows)
    # Uniform images have hashes of noise.
    varied = np.flatnonzero(first & (notes.column("deviation") >= UNIFORM_DEVIATION))
    for rows in _near(notes.column("perceptual")[varied]):
        yield finding(NEAR, varied[rows].tolist())
    owners = np.concatenate([start + of for start, of in notes.chunks("caption_of")])
    counts = np.cumsum([len(of) for _, of in notes.chunks("caption_of")])
    for place, rows in _repeated(notes.column("captions"), owners):
        yield finding(CAPTION, rows, caption=notes.caption(place, counts))


def _transparent(notes: _Notes) -> Iterator[Finding]:
    for start, visible in notes.chunks("visible"):
        for row in np.flatnonzero(visible < 1).tolist():
            detail = {"opaque": round(float(visible[row]), 3)}
            yield Finding(TRANSPARENT, 1, [notes.key(start + row)], detail, False)


def _uniform(notes: _Notes) -> Iterator[Finding]:
    for start, deviation in notes.chunks("deviation"):
        for row in np.flatnonzero(deviation < UNIFORM_DEVIATION).tolist():
            detail = {"deviation": round(float(deviation[row]), 3)}
            yield Finding(UNIFORM, 1, [notes.key(start + row)], detail, False)


def _equal(values: np.ndarray) -> list[list[int]]:
    """Returns the rows of each value that is there more than once, in the order of the first."""
    order = np.argsort(values, kind="stable")
    bounds = np.flatnonzero(np.diff(values[order])) + 1
    groups = (rows.tolist() for rows in np.split(order, bounds) if len(rows) > 1)
    return sorted(groups, key=lambda rows: rows[0])


def _near(hashes: np.ndarray) -> Iterator[list[int]]:
    """Yields rows whose hashes are linked by differences of at most NEAR_BITS bits."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [np.stack(pair) for pair in _near_pairs(hashes)]
    if not pairs:
        return
    left, right = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(left), bool), (left, right)), (len(hashes),) * 2)
    _, component = connected_components(graph, directed=False)
    linked = np.unique(np.concatenate([left, right]))
    for rows in _equal(component[linked]):
        yield linked[rows].tolist()


def _near_pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for rows in _equal(hashes):
        yield np.full(len(rows) - 1, rows[0]), np.array(rows[1:])
    for shift in range(0, 64, 16):
        bands = (hashes >> np.uint64(shift)) & np.uint64(0xFFFF)
        for rows in map(np.array, _equal(bands)):
            for place in range(len(rows) - 1) if len(rows) <= LARGEST_BAND else ():
                others = rows[place + 1 :]
                bits = np.bitwise_count(hashes[others] ^ hashes[rows[place]])
                close = others[bits <= NEAR_BITS]
                if len(close):
                    yield np.full(len(close), rows[place]), close


def _repeated(captions: np.ndarray, owners: np.ndarray) -> list[tuple[int, list[int]]]:
    """Returns the place of each repeated caption and its records, the most frequent first."""
    found = []
    for places in _equal(captions):
        rows = list(dict.fromkeys(owners[places].tolist()))
        if len(rows) >= MIN_REPEATS:
            found.append((places[0], rows))
    return sorted(found, key=lambda repeated: -len(repeated[1]))[:MOST_CAPTIONS]


def count_findings(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Counts the records of each kind of finding; of duplicates those beyond the first."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts[line["finding"]] += line["records"] - (line["finding"] in (EXACT, NEAR))
    return dict(counts)
