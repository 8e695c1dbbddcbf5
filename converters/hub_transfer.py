"""Download one file of a hub into the cache, with the listed size and hash."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import constants

from clip_jax.errors import InputError
from converters.hub_cache import ExpectedFile, RepoCache, find_mismatch
from converters.hub_errors import UnreachableError, WrongRangeError, hub_errors
from converters.hub_http import Response, enforce_min_speed, http_get
from converters.hub_names import read_commit, read_etag
from converters.torch_unpickler import safe_repr

ATTEMPTS = 5  # with a transfer that breaks off


def transfer(cache: RepoCache, commit: str, name: str, stored: ExpectedFile) -> Path:
    """Return the blob of a file, downloaded unless it is cached.

    An interrupted transfer is resumed. InputError where the hub sends more, less or other content
    than it lists; then nothing wrong is in the cache.
    """
    where, size = f"{cache.repo}: {name}", stored.size
    if size is None:
        raise InputError(f"{where}: the hub names no size of it")
    with hub_errors(cache.repo), cache.locked(stored.digest):
        blob, partial = cache.blob(stored.digest), cache.partial(stored.digest)
        if blob.is_file():
            return blob
        blob.parent.mkdir(parents=True, exist_ok=True)
        resumed = _size(partial) > 0
        _download(partial, cache.repo, commit, name, size)
        if fault := find_mismatch(partial, stored):
            cache.remove(partial)
            if not resumed:
                raise InputError(f"{where} {fault}; it is removed, so run the same again")
            _download(partial, cache.repo, commit, name, size)
            if fault := find_mismatch(partial, stored):
                cache.remove(partial)
                raise InputError(f"{where} {fault}; it is removed, so run the same again")
        os.replace(partial, blob)
        return blob


def _download(partial: Path, repo: str, commit: str, name: str, size: int) -> None:
    """Append to a partial file until it has `size` bytes."""
    where = f"{repo}: {name}"
    if _size(partial) > size:
        partial.unlink()
    for attempt in range(ATTEMPTS):
        start = _size(partial)
        free = shutil.disk_usage(partial.parent).free
        if size - start > free:
            raise InputError(
                f"{where}: is {size:,} bytes; {partial.parent} has {free:,} bytes free; free some, "
                "or set HF_HOME"
            )
        try:
            _append(partial, start, repo, commit, name, size)
            return
        except UnreachableError:
            if attempt == ATTEMPTS - 1:
                raise
        except WrongRangeError:
            partial.unlink(missing_ok=True)
            if not start:
                raise


def _append(partial: Path, start: int, repo: str, commit: str, name: str, size: int) -> None:
    from huggingface_hub.utils import tqdm

    where = f"{repo}: {name}"
    # A link in a partial file's place is not followed.
    flags = os.O_CREAT | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    if start == size > 0:
        return
    url = f"{constants.ENDPOINT}/{repo}/resolve/{commit}/{quote(name)}"
    with http_get(url, repo, where, start=start) as response:
        _check_headers(response, size, where)
        start = _start(response, start, size, where)
        _check_length(response, start, size, where)
        with (
            open(os.open(partial, flags, 0o666), "wb") as file,
            tqdm(
                total=size, initial=start, desc=name, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            file.truncate(start)
            file.seek(start)
            held = start
            for chunk in enforce_min_speed(response.chunks, where):
                file.write(chunk[: size - held])
                held += len(chunk)
                bar.update(len(chunk))
                if held > size:
                    break
    if held > size:
        partial.unlink()
        raise InputError(f"{where}: the hub sends more than the {size:,} bytes that it lists")
    if held < size:
        raise UnreachableError(
            f"{where}: ended after {held:,} bytes; it should be of size {size:,}; run the same "
            "again"
        )


def _check_headers(response: Response, size: int, where: str) -> None:
    """Raise InputError where headers contradict the listing. Only the listing's names are used.

    None of these names is used: the listing's are.
    """
    for headers in response.hub_headers:
        redirects = "Location" in headers  # its ETag is that of the redirect
        for header in ("X-Linked-ETag",) if redirects else ("X-Linked-ETag", "ETag"):
            if header in headers:
                read_etag(headers[header], where)
        if "X-Repo-Commit" in headers:
            read_commit(headers["X-Repo-Commit"], where)
        if (found := headers.get("X-Linked-Size", str(size))) != str(size):
            raise InputError(
                f"{where}: the hub names the size {safe_repr(found)}; it lists {size:,}"
            )


def _start(response: Response, start: int, size: int, where: str) -> int:
    """Return the position of the body's first byte: `start` for a range, 0 for the whole file."""
    if response.status == 200 or not start:
        return 0
    expected = f"bytes {start}-{size - 1}/{size}"
    found = response.headers.get("Content-Range", "")
    if found != expected:
        raise WrongRangeError(
            f"{where}: the hub sends the range {safe_repr(found)}; expected {expected}"
        )
    return start


def _check_length(response: Response, start: int, size: int, where: str) -> None:
    found = response.headers.get("Content-Length")
    if found is None:  # chunked
        return
    if not re.fullmatch(r"[0-9]{1,20}", found) or int(found) != size - start:
        error = WrongRangeError if start else InputError
        raise error(
            f"{where}: the hub sends {safe_repr(found)} bytes; it should be of size {size:,}, from "
            f"byte {start:,}"
        )


def _size(path: Path) -> int:
    return path.lstat().st_size if path.exists() and not path.is_symlink() else 0
