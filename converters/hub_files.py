"""Files of a repository of the Hugging Face hub: list and fetch them, all of it checked.

Files go into huggingface_hub's own cache, and its environment variables apply: HF_HOME,
HF_HUB_CACHE, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN and HF_HUB_DOWNLOAD_TIMEOUT.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from clip_jax.errors import InputError
from clip_jax.text import parse_json
from converters import hub_names
from converters.hub_cache import ExpectedFile, RepoCache, find_mismatch
from converters.hub_errors import UnreachableError, hub_errors
from converters.hub_http import http_get, read_limited_body
from converters.hub_transfer import transfer
from converters.torch_unpickler import safe_repr

MAX_LISTING_BYTES = 32 << 20


@dataclass(frozen=True)
class Listing:
    """Hold the files of a repository at one commit. is_cached: nothing may be downloaded."""

    repo: str
    commit: str
    files: Mapping[str, ExpectedFile]
    is_cached: bool = False


def fetch_listing(repo: str) -> Listing:
    """Return the listing of a repository's newest commit from the hub, every value checked.

    UnreachableError where the hub cannot be reached; InputError where it has no such repository or
    its response is malformed.
    """
    hub_names.check_repository(repo)
    if constants.is_offline_mode():
        raise UnreachableError(f"{repo}: HF_HUB_OFFLINE is set")
    with http_get(f"{constants.ENDPOINT}/api/models/{repo}?blobs=true", repo, repo) as response:
        body = read_limited_body(response, MAX_LISTING_BYTES, repo)
    metadata = parse_json(body, f"{repo}: the listing by {constants.ENDPOINT}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("siblings"), list):
        raise InputError(f"{repo}: {constants.ENDPOINT} answered no listing of a repository")
    if len(metadata["siblings"]) > hub_names.MAX_FILES:
        raise InputError(
            f"{repo}: holds {len(metadata['siblings']):,} files; expected at most "
            f"{hub_names.MAX_FILES:,}"
        )
    commit = hub_names.read_commit(metadata.get("sha"), repo)
    files: dict[str, ExpectedFile] = {}
    for sibling in metadata["siblings"]:
        name, stored = _file(sibling, repo)
        if name in files:
            raise InputError(f"{repo}: {constants.ENDPOINT} lists {safe_repr(name)} twice")
        files[name] = stored
    return Listing(repo, commit, files)


def _file(sibling: Any, repo: str) -> tuple[str, ExpectedFile]:
    if not isinstance(sibling, dict):
        raise InputError(f"{repo}: {constants.ENDPOINT} lists {safe_repr(sibling)} as a file")
    name = hub_names.check_file_name(sibling.get("rfilename"), repo)
    where = f"{repo}: {name}"
    size = hub_names.read_size(sibling.get("size"), where)
    lfs = sibling.get("lfs")
    if lfs is None:
        return name, ExpectedFile(size, hub_names.read_digest(sibling.get("blobId"), where))
    if not isinstance(lfs, dict) or lfs.get("size", size) != size:
        raise InputError(f"{where}: {constants.ENDPOINT} lists it in two ways that differ")
    return name, ExpectedFile(size, hub_names.read_digest(lfs.get("sha256"), where))


def cached_listing(repo: str) -> Listing | None:
    """Return the listing of the hub's cache, whose blobs are named by their hashes.

    The commit with the newest file counts; None where there is none.
    """
    hub_names.check_repository(repo)
    cache = RepoCache.for_repo(repo)
    newest: tuple[float, Listing] | None = None
    with hub_errors(repo):
        snapshots = cache.snapshots()
        for folder in snapshots.iterdir() if snapshots.is_dir() else ():
            if folder.is_symlink() or not hub_names.is_commit(folder.name):
                continue
            links = [path for path in _links(folder) if path.is_file()]
            files = {
                path.relative_to(folder).as_posix(): ExpectedFile(None, path.readlink().name)
                for path in links
            }
            if files:
                changed = max(path.stat().st_mtime for path in links)
                if newest is None or changed > newest[0]:
                    newest = changed, Listing(repo, folder.name, files, is_cached=True)
    return newest[1] if newest else None


def _links(folder: Path) -> Iterable[Path]:
    """Yield links to blobs below a folder, without following links to folders."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink() and hub_names.is_digest(path.readlink().name):
                yield path


def read_blob(found: Listing, name: str) -> Path:
    """Return the path of a file in the hub's cache that has the listed size and hash.

    InputError names a file that is absent, cannot be downloaded or differs; it is removed, so that
    the next run downloads it again. No snapshot is made.
    """
    if name not in found.files:
        held = ", ".join(sorted(found.files)[:8]) or "nothing"
        raise InputError(f"{found.repo}: has no {safe_repr(name)[1:-1]}; it holds {held}")
    cache, stored = RepoCache.for_repo(found.repo), found.files[name]
    with hub_errors(found.repo):
        pointer, blob = cache.pointer(found.commit, name), cache.blob(stored.digest)
        path = next((path for path in (pointer, blob) if path.is_file()), None)
        if path is None:
            if found.is_cached or constants.is_offline_mode():
                raise UnreachableError(f"{found.repo}: {name} is not in the cache")
            path = transfer(cache, found.commit, name, stored)
        if fault := find_mismatch(path, stored):
            for wrong in (pointer, blob):
                cache.remove(wrong)
            raise InputError(f"{found.repo}: {name} {fault}; it is removed, so run the same again")
        return path


def fetch(found: Listing, names: Sequence[str]) -> dict[str, Path]:
    """Return name -> path in a snapshot of the hub's cache, once all files are as listed.

    InputError as from `read_blob`; then no snapshot is made.
    """
    hub_names.check_together(names, found.repo)
    for name in names:
        read_blob(found, name)
    cache = RepoCache.for_repo(found.repo)
    with hub_errors(found.repo):
        return {name: cache.link(found.files[name].digest, found.commit, name) for name in names}
