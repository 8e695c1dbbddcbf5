"""Builds or updates an index: encodes what is new or changed, on all devices of the process."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clip_jax.arguments import check_flag, check_integer, check_path, check_type
from clip_jax.errors import InputError
from clip_jax.image import PREPROCESSING_VERSION, open_image, resize_square
from clip_jax.index import nearest
from clip_jax.index.catalog import Catalog, Indexed
from clip_jax.index.embeddings import EmbeddingWriter, embeddings_file, read_embeddings
from clip_jax.index.sources import Entry, Source, open_source
from clip_jax.paths import is_remote, local_path
from clip_jax.predictor import Predictor
from clip_jax.pretrained import PretrainedClip
from clip_jax.progress import elapsed_lines, progress_bar
from clip_jax.text import escape

FORMAT = "1"
LOCK_NAME = "index.lock"
BATCHES_PER_COMMIT = 16
READERS = 8  # threads that read and decode images
HASH_BYTES = 16
MOST_UNUSED = 0.2  # share of rows that no image has, above which they are removed
LINES_BETWEEN = 50  # commits between two plain lines where there is no terminal


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """Counts images: of the source, encoded now, with bytes known already, unchanged, unreadable.

    encoded + reused + unchanged + unreadable = images. removed: were in the index and are no longer
    in the source. ignored: files of other kinds.
    """

    images: int
    encoded: int
    reused: int
    unchanged: int
    unreadable: int
    removed: int
    ignored: int


def build_index(
    clip: PretrainedClip,
    source: str | Path,
    folder: str | Path,
    *,
    batch_size: int = 32,
    compare_content: bool = False,
    quiet: bool = False,
    on_progress: Callable[[int], object] | None = None,
) -> BuildReport:
    """Encodes the images of a source that are new or changed since the last time.

    source: a folder of images or of .tar files, a .tar file, or a prepared set.
    folder: of the index, local; created where it is absent.
    batch_size: images that one device encodes at once.
    compare_content: read every image and compare its hash; without, an image with the size and time
        that it had is taken as unchanged.
    on_progress: called with the number of images done, after each commit.

    Images with equal bytes are encoded once. One that cannot be read is left out, and listed by
    `IndexFolder.unreadable`. What is committed stays after an interruption, and the next call goes
    on behind it. An index of another model, or one that another process is writing, raises
    InputError.
    """
    check_type("clip", clip, PretrainedClip, "clip_jax.load(folder)")
    batch_size = check_integer("batch_size", batch_size)
    check_flag("compare_content", compare_content)
    check_flag("quiet", quiet)
    place = local_path(check_path("folder", folder), "an index of images")
    found = open_source(source)
    is_local = not is_remote(source)
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place), contextlib.closing(Catalog(place, write=True)) as catalog:
        facts = _check_facts(catalog, clip, place)
        catalog.commit((), {"source": os.path.abspath(source) if is_local else str(source)})
        builder = _Builder(clip, found, catalog, place, facts, batch_size)
        try:
            report = builder.run(compare_content, quiet, on_progress)
        finally:
            builder.close()
        nearest.update(place, catalog, quiet)
    return report


class _Builder:
    def __init__(
        self,
        clip: PretrainedClip,
        source: Source,
        catalog: Catalog,
        folder: Path,
        facts: dict[str, str],
        batch_size: int,
    ) -> None:
        devices = jax.local_devices()
        self._predictor = Predictor(
            clip.replicate(devices) if len(devices) > 1 else clip,
            batch_size=batch_size * len(devices),
            quiet=True,
        )
        self._clip, self._source, self._catalog, self._folder = clip, source, catalog, folder
        self._facts = facts
        width, rows = int(facts["width"]), int(facts["rows"])
        file = embeddings_file(folder, int(facts["version"]))
        self._writer = EmbeddingWriter(file, rows, width)
        self._threads = ThreadPoolExecutor(READERS)
        self._counts = dict.fromkeys(("encoded", "reused", "unchanged", "unreadable"), 0)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._writer.close()

    def run(
        self, compare_content: bool, quiet: bool, on_progress: Callable[[int], object] | None
    ) -> BuildReport:
        keys: list[str] = []
        with elapsed_lines("listing images", quiet=quiet):
            entries = list(self._source.entries())
        size = self._predictor.batch_size * BATCHES_PER_COMMIT
        with progress_bar(len(entries), "images", quiet=quiet) as bar:
            for number, batch in enumerate(_batched(entries, size)):
                self._index(batch, compare_content)
                keys += [entry.key for entry in batch]
                bar.update(len(batch))
                if on_progress is not None:
                    on_progress(len(keys))
                if bar.disable and not quiet and number % LINES_BETWEEN == LINES_BETWEEN - 1:
                    print(f"{len(keys)} of {len(entries)} images", flush=True)
        if not self._counts["encoded"] + self._counts["reused"] + self._counts["unchanged"]:
            unreadable = self._catalog.unreadable()
            first = next(iter(unreadable.items()), None)
            why = f"; {escape(first[0])}: {first[1]}" if first else ""
            raise InputError(
                f"none of {len(entries)} images can be read{why}; {self._source.ignored} files of "
                "other kinds are ignored"
            )
        removed = self._catalog.remove_all_but(keys)
        self._remove_unused_rows()
        return BuildReport(
            images=len(keys), removed=removed, ignored=self._source.ignored, **self._counts
        )

    def _index(self, entries: Sequence[Entry], compare_content: bool) -> None:
        """Brings a batch of images up to date, in one commit."""
        known = self._catalog.find([entry.key for entry in entries])
        changed = [
            entry
            for entry in entries
            if compare_content or entry.key not in known or not _same(known[entry.key], entry)
        ]
        unread = {each.key for each in changed}
        for entry in entries:
            if entry.key not in unread:
                name = "unchanged" if known[entry.key].row is not None else "unreadable"
                self._counts[name] += 1
        read = self._in_threads(self._read, {entry.key: entry for entry in changed})
        hashes = [content for _, content, _ in read.values() if content]
        rows = self._catalog.rows_of_hashes(hashes)
        new = {c: data for data, c, _ in read.values() if c and c not in rows}
        fresh, errors = self._encode(new)
        records, encoded = [], set()
        for entry in changed:
            _, content, error = read[entry.key]
            row = rows.get(content, fresh.get(content))
            error = error or errors.get(content)
            if row is None:
                self._counts["unreadable"] += 1
            elif entry.key in known and known[entry.key].row == row:
                self._counts["unchanged"] += 1  # read because it was to be compared
            elif content in fresh and content not in encoded:
                encoded.add(content)
                self._counts["encoded"] += 1
            else:
                self._counts["reused"] += 1
            records.append(Indexed(entry, content, row, None if row is not None else error))
        self._catalog.commit(records, {"rows": self._writer.rows})

    def _encode(self, files: dict[bytes, bytes]) -> tuple[dict[bytes, int], dict[bytes, str]]:
        """Returns the rows of images by the hash of their bytes, and the errors of the others."""
        images = self._in_threads(self._decode, files)
        errors = {c: image for c, image in images.items() if isinstance(image, str)}
        pixels = {c: image for c, image in images.items() if not isinstance(image, str)}
        latents = self._predictor.get_image_latents([*pixels.values()])
        return dict(zip(pixels, self._writer.append(latents), strict=True)), errors

    def _in_threads(self, function: Callable[[Any], Any], items: dict[Any, Any]) -> dict[Any, Any]:
        return dict(zip(items, self._threads.map(function, items.values()), strict=True))

    def _read(self, entry: Entry) -> tuple[bytes, bytes, str | None]:
        """Returns an image's bytes, their hash, and the error of reading it."""
        try:
            if entry.size < 0:  # reading a pipe would wait for its writer
                return b"", b"", "not a regular file"
            data = self._source.read(entry)
        except (OSError, InputError) as error:
            return b"", b"", getattr(error, "strerror", None) or str(error)
        return data, hashlib.blake2b(data, digest_size=HASH_BYTES).digest(), None

    def _decode(self, data: bytes) -> np.ndarray | str:
        """Returns pixels of the model's size, or the error."""
        try:
            config = self._clip.config
            return resize_square(open_image(data), config.vision.image_size, config.image)
        except InputError as error:
            return str(error)

    def _remove_unused_rows(self) -> None:
        rows, width = self._writer.rows, int(self._facts["width"])
        unused = self._catalog.note_unused(rows)
        if unused <= MOST_UNUSED * rows:
            return
        version = int(self._facts["version"])
        old = embeddings_file(self._folder, version)
        dead = set(self._catalog.unused_rows())
        kept = [row for row in range(rows) if row not in dead]
        values = read_embeddings(old, rows, width)
        writer = EmbeddingWriter(embeddings_file(self._folder, version + 1), 0, width)
        for batch in _batched(kept, 1 << 14):
            writer.append(values[np.asarray(batch)])
        writer.close()
        self._catalog.renumber(kept, {"rows": len(kept), "version": version + 1})
        old.unlink()  # a reader that has it mapped keeps it


def _check_facts(catalog: Catalog, clip: PretrainedClip, folder: Path) -> dict[str, str]:
    """Returns the facts of the index, written now where it is new."""
    wanted = {
        "format": FORMAT,
        "model": clip.content_hash,
        "dtype": clip.compute.dtype,
        "preprocessing": str(PREPROCESSING_VERSION),
        "width": str(clip.config.embed_dim),
    }
    found = catalog.facts()
    if not found:
        catalog.commit((), wanted | {"rows": 0, "version": 0})
        return catalog.facts()
    for name, value in wanted.items():
        if found.get(name) != value:
            raise InputError(
                f"{escape(str(folder))}: was made with {name} {found.get(name, 'none')[:16]}, and "
                f"this is {value[:16]}; expected the same model, or another folder for the index"
            )
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK_NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{escape(str(folder))}: another process is writing this index; wait until it ends"
            ) from error
        yield


def _same(known: Indexed, entry: Entry) -> bool:
    was = known.entry
    return (was.size, was.changed, was.offset) == (entry.size, entry.changed, entry.offset)


def _batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
