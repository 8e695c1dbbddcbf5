"""Search for images of a folder by text.

    index = build_image_index(clip, "photos")
    for result in index.search("кошка на подоконнике", 5):
        print(result.path, result.cosine)

An image is encoded once per model: embeddings are stored on disk under the contents of both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from clip_jax.arguments import check_flag, check_integer, check_path, check_text, check_type
from clip_jax.embedding_store import EmbeddingStore, FileState
from clip_jax.errors import InputError
from clip_jax.html_sheet import html_sheet
from clip_jax.image import PREPROCESSING_VERSION, open_image, resize_square
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.index.nearest import best_of
from clip_jax.index.query import query_vector
from clip_jax.paths import local_path
from clip_jax.predictor import Predictor
from clip_jax.pretrained import PretrainedClip
from clip_jax.progress import progress_bar
from clip_jax.system_folders import is_system
from clip_jax.text import escape

BATCHES_BETWEEN_WRITES = 16


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Holds an image and the cosine of its embedding and the text's, from -1 to 1."""

    path: Path
    cosine: float


class SearchResults(list[SearchResult]):
    """Lists results, the best first; a notebook shows their images."""

    def _repr_html_(self) -> str:
        captions = (f"{result.path.name}\ncosine {result.cosine:.3f}" for result in self)
        return html_sheet(zip((result.path for result in self), captions, strict=True))


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """Holds the images of a folder with their embeddings.

    latents: float32[images, E], unit rows.
    unreadable: file -> error, of images that were left out.
    ignored: number of files that are not images by their suffix.
    """

    clip: PretrainedClip
    paths: Sequence[Path]
    latents: np.ndarray
    unreadable: Mapping[Path, str]
    ignored: int = 0

    def search(self, text: str, count: int) -> SearchResults:
        """Returns up to `count` images, the most similar to `text` first; ties by name."""
        count = check_integer("count", count)
        if not check_text("text", text).strip():
            raise InputError("the text is empty; expected a description of an image: 'кошка'")
        return self.search_vector(query_vector(self.clip, [text]), count)

    def search_vector(self, vector: np.ndarray, count: int) -> SearchResults:
        """Returns the same for a unit vector, float32[E], of `clip_jax.index.query_vector`."""
        cosines = self.latents @ vector
        best, cosines = best_of(np.arange(len(cosines)), cosines, check_integer("count", count))
        return SearchResults(
            SearchResult(self.paths[i], float(cosine))
            for i, cosine in zip(best, cosines, strict=True)
        )


def build_image_index(
    clip: PretrainedClip,
    folder: str | Path,
    store: EmbeddingStore | None = None,
    *,
    batch_size: int = 32,
    quiet: bool = False,
    on_progress: Callable[[int, int], object] | None = None,
) -> ImageIndex:
    """Encodes all images below a folder.

    store: stores embeddings; None: the user's own.
    batch_size: images per batch.
    quiet: no progress bar.
    on_progress: called with the numbers of finished images and of all, after each write.

    Finished embeddings are stored, also when this is interrupted. A file that cannot be read as an
    image is left out and listed; a folder without any readable one raises InputError.
    """
    check_type("clip", clip, PretrainedClip, "clip_jax.load(folder)")
    if store is not None:
        check_type("store", store, EmbeddingStore, "EmbeddingStore(), or None")
    batch_size = check_integer("batch_size", batch_size)
    check_flag("quiet", quiet)
    if on_progress is not None and not callable(on_progress):
        raise InputError("on_progress is no function; expected one of two numbers, or None")
    files, ignored = _list_files(_local(folder))
    opened = EmbeddingStore() if store is None else store
    try:
        names, latents, unreadable = _embed(clip, files, opened, batch_size, quiet, on_progress)
    finally:
        if store is None:
            opened.close()
    paths = [path for path in files if path in names]
    if not paths:
        path, why = next(iter(unreadable.items()))
        raise InputError(
            f"{folder}: none of its {len(files)} images can be read; {escape(str(path))}: {why}"
        )
    rows = np.stack([latents[names[path]] for path in paths])
    return ImageIndex(clip, paths, rows, unreadable, ignored)


def list_images(folder: str | Path) -> list[Path]:
    """Lists files below a folder that are images by their suffix, sorted; InputError for none.

    Hidden files, and those in `system_folders`, are ignored.
    """
    return _list_files(_local(folder))[0]


def _local(folder: str | Path) -> Path:
    return local_path(check_path("folder", folder), "a folder of images to search")


def _list_files(folder: Path) -> tuple[list[Path], int]:
    """Returns the sorted images and the number of other files."""
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; expected one with images in it")
    found, ignored = [], 0
    for place, _, names in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        system = any(map(is_system, parts))
        for name in names:
            if system or is_system(name) or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                ignored += 1
            else:
                found.append(Path(place) / name)
    if not found:
        raise InputError(
            f"{folder}: holds no images; expected files {', '.join(IMAGE_SUFFIXES)}; {ignored} "
            "others are ignored"
        )
    return sorted(found), ignored


def _embed(
    clip: PretrainedClip,
    files: Sequence[Path],
    store: EmbeddingStore,
    batch_size: int,
    quiet: bool,
    on_progress: Callable[[int, int], object] | None,
) -> tuple[dict[Path, str], dict[str, np.ndarray], dict[Path, str]]:
    """Returns file -> hash, hash -> embedding, and file -> error of those left out."""
    model = f"{clip.content_hash} {clip.compute.dtype} {PREPROCESSING_VERSION}"
    predictor = Predictor(clip, batch_size=batch_size, quiet=True)
    names: dict[Path, str] = {}
    latents: dict[str, np.ndarray] = {}
    unreadable: dict[Path, str] = {}
    done = 0
    with progress_bar(len(files), "images", quiet=quiet) as bar:
        for batch in _batched(files, batch_size * BATCHES_BETWEEN_WRITES):
            hashes = _hashes(batch, store, unreadable)
            hashes = {path: name for path, name in hashes.items() if name}
            known = store.get(model, list(set(hashes.values())))
            pixels: dict[str, np.ndarray] = {}
            for path, name in hashes.items():
                if name in known or name in latents or name in pixels:
                    continue
                try:
                    size, how = clip.config.vision.image_size, clip.config.image
                    pixels[name] = resize_square(open_image(path), size, how)
                except InputError as error:
                    unreadable[path] = str(error).removeprefix(f"{escape(str(path))}: ")
            new = dict(zip(pixels, predictor.get_image_latents([*pixels.values()]), strict=True))
            store.put(model, new)
            latents |= known | new
            names |= {path: name for path, name in hashes.items() if name in latents}
            bar.update(len(batch))
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(files))
    return names, latents, unreadable


def _batched(files: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _hashes(
    paths: Sequence[Path], store: EmbeddingStore, unreadable: dict[Path, str]
) -> dict[Path, str]:
    """Returns the files' SHA-256; one of the size and time that it had is not read again."""
    states: dict[Path, FileState] = {}
    found: dict[Path, str] = {}
    for path in paths:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for its writer
                raise OSError("not a regular file")
            states[path] = (os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns)
        except OSError as error:
            unreadable[path] = error.strerror or str(error)
    known = store.get_hashes([*states.values()])
    new = {}
    for path, state in states.items():
        found[path] = known.get(state[0]) or _hash(path, unreadable)
        if found[path] and state[0] not in known:
            new[state] = found[path]
    store.put_hashes(new)
    return found


def _hash(path: Path, unreadable: dict[Path, str]) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        unreadable[path] = error.strerror or str(error)
        return ""
