"""Models by name: download and convert once, then return the folder.

folder = converters.pretrained("ruclip-vit-base-patch32-384")
clip = clip_jax.load(folder)
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clip_jax import byte_bpe, model_folder
from clip_jax.cache_dir import cache_dir
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.progress import elapsed_lines
from converters import (
    byte_vocabulary,
    hf_clip,
    open_clip_config,
    openai_clip,
    ruclip,
    youtokentome,
)
from converters.api import convert
from converters.conversion import DTYPES
from converters.files import read_json
from converters.hub_errors import UnreachableError
from converters.hub_files import Listing, cached_listing, fetch, fetch_listing, read_blob
from converters.hub_names import check_repository, check_together
from converters.registry import PUBLISHED_MODELS, PublishedModel
from converters.weights import shard_names

OURS = ""  # the kind of a repository that holds a model folder


def pretrained(model: str | Path, dtype: str = "float32") -> Path:
    """Return the model folder of a published model, of a repository, or of a folder.

    model: a name in `registry.PUBLISHED_MODELS`; OWNER/NAME on the hub that holds a model folder
        (`push_to_hub`), a ruCLIP, transformers' CLIP or open_clip's; or a model folder, which is
        returned as it is.
    dtype: of the parameters, where they are converted.

    The newest commit is downloaded with huggingface_hub, checked against the sizes and hashes that
    the hub lists, converted, and cached in `cache_dir()/models`; offline, the newest cached one is
    returned. Of several processes one works, the others wait. InputError where the model cannot be
    had; then nothing new is in the cache.
    """
    if (folder := as_path(model)).is_dir():
        model_folder.read_config(folder)
        return folder
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    model = str(model)
    published = PUBLISHED_MODELS.get(model) or _repository(model)
    place = cache_dir() / "models"
    stem = _stem(model, dtype)
    with _exclusive(place, stem, model):
        try:
            listings = [fetch_listing(repo) for repo in published.repos]
        except UnreachableError as error:
            if made := newest_cached(model, dtype):
                return made
            cached = [cached_listing(repo) for repo in published.repos]
            listings = [found for found in cached if found]
            if len(listings) < len(cached):
                raise UnreachableError(
                    f"{error}, and {model} is not in the cache, where one download would put it"
                ) from error
        folder = place / (stem + "-".join(found.commit[:12] for found in listings))
        if not folder.exists():
            _make(folder, published, {found.repo: found for found in listings}, dtype)
        return folder


def newest_cached(model: str, dtype: str = "float32") -> Path | None:
    """Return the folder that `pretrained` made last, if any, without asking the hub."""
    made = (cache_dir() / "models").glob(f"{glob.escape(_stem(model, dtype))}*")
    return max(made, key=lambda path: path.stat().st_mtime, default=None)


def _stem(model: str, dtype: str) -> str:
    return f"{model.replace('/', '--')}--{dtype}--"


@dataclass(frozen=True)
class DownloadPlan:
    """Say what to download.

    kind: how to convert; OURS: not at all.
    files: name -> the repository that holds it.
    """

    kind: str
    files: Mapping[str, str]


def _repository(model: str) -> PublishedModel:
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        check_repository(model)
        return PublishedModel((model,))
    near = difflib.get_close_matches(model, PUBLISHED_MODELS, n=1)
    hint = f"; did you mean {near[0]}?" if near else f": {', '.join(PUBLISHED_MODELS)}"
    raise InputError(
        f"{model!r} is no folder, no OWNER/NAME on the hub and no published model{hint}"
    )


def _make(
    folder: Path, published: PublishedModel, found: Mapping[str, Listing], dtype: str
) -> None:
    plan = (
        DownloadPlan(published.kind, published.files) if published.files else _detect_format(found)
    )
    check_together(plan.files, " and ".join(found))
    fetched: dict[str, Path] = {}
    for repo, there in found.items():
        fetched |= fetch(there, [name for name, owner in plan.files.items() if owner == repo])
    origin = {repo: there.commit for repo, there in found.items()}
    if plan.kind == OURS:
        with model_folder.atomic_folder(folder) as partial_folder:
            _link_files(fetched, partial_folder)
            model_folder.read_config(partial_folder)
        return
    source = folder.with_name(f".{folder.name}.source")
    source.mkdir()
    try:
        _link_files(fetched, source)
        with elapsed_lines(f"converting to {folder}"):
            convert(plan.kind, source, folder, dtype, published.preset, origin)
    finally:
        shutil.rmtree(source, ignore_errors=True)


def _detect_format(found: Mapping[str, Listing]) -> DownloadPlan:
    """Detect the format of a repository that is not in the registry."""
    ((repo, there),) = found.items()
    names: list[str] = []
    kind = None
    if "config.json" in there.files:
        config = read_json(read_blob(there, "config.json"))
        kind = _kind(config)
    if kind == OURS:
        names = [name for name in there.files if name not in ("README.md", ".gitattributes")]
        if model_folder.PARAMS in names:
            raise InputError(f"{repo}: {model_folder.PARAMS} is a file; expected a folder")
    elif kind == "ruclip":
        names = ["config.json", _first(there, ruclip.WEIGHTS), youtokentome.ORIGINAL_NAME]
    elif kind == "hf-clip":
        weights = _first(there, hf_clip.WEIGHTS)
        names = ["config.json", weights, *_shards(there, weights)]
        names += [name for name in hf_clip.COPIED_FILES if name in there.files]
    elif open_clip_config.NAME in there.files:
        kind = "openai-clip"
        vocabulary = (byte_vocabulary.OPENAI_NAME, *byte_bpe.FILES)
        names = [open_clip_config.NAME, _first(there, openai_clip.WEIGHTS)]
        names += [name for name in vocabulary if name in there.files]
    else:
        held = ", ".join(sorted(there.files)[:8]) or "nothing"
        raise InputError(
            f"{repo}: holds {held}; expected a model folder of this package, ruCLIP's files, "
            "transformers' CLIP (by config.json) or open_clip's (by open_clip_config.json); "
            "convert another by python -m converters KIND"
        )
    return DownloadPlan(kind, dict.fromkeys(names, repo))


def _kind(config: Mapping[str, Any]) -> str | None:
    if set(config) == model_folder.CONFIG_KEYS:
        return OURS
    if config.get("model_type") == "clip":
        return "hf-clip"
    return "ruclip" if set(ruclip.SIZES) <= set(config) else None


def _first(there: Listing, names: tuple[str, ...]) -> str:
    held = [name for name in names if name in there.files]
    if not held:
        raise InputError(f"{there.repo}: holds no weights; expected {' or '.join(names)}")
    return held[0]


def _shards(there: Listing, weights: str) -> list[str]:
    if not weights.endswith(".index.json"):
        return []
    return shard_names(read_json(read_blob(there, weights)), f"{there.repo}: {weights}")


def _link_files(files: Mapping[str, Path], folder: Path) -> None:
    """Put the hub's files into a folder, as hard links or copies."""
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target)


@contextlib.contextmanager
def _exclusive(place: Path, stem: str, model: str) -> Iterator[None]:
    """Admit one process at a time; remove an interrupted one's leftovers first."""
    locks = place.with_name("locks")
    for folder in (place, locks):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{stem}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that makes {model}", file=sys.stderr)
        lock.acquire()
    try:
        for left in place.glob(f".{glob.escape(stem)}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()
