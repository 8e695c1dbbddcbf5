"""What a repository of the Hugging Face hub holds, and its files, checked.

huggingface_hub downloads into its own cache and heeds its own environment: HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN and the timeouts.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import huggingface_hub
from huggingface_hub import constants

from clip_jax.errors import InputError
from converters.files import read_bytes, sha256


class UnreachableError(InputError):
    """The hub cannot be asked: no network, offline mode, or it is out of order."""


@dataclass(frozen=True)
class Stored:
    """size in bytes, where the hub told it. digest: SHA-256, or git's own hash of a small file."""

    size: int | None
    digest: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit. here: nothing may be downloaded."""

    repo: str
    commit: str
    files: Mapping[str, Stored]
    here: bool = False


def listing(repo: str) -> Listing:
    """Of the repository's newest commit, from the hub. UnreachableError, or InputError."""
    with hub_errors(repo):
        info = huggingface_hub.HfApi().model_info(
            repo, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    files = {}
    for file in info.siblings or ():
        digest = file.lfs.sha256 if file.lfs else file.blob_id
        if digest is None:
            raise InputError(f"{repo}: {constants.ENDPOINT} tells no hash of {file.rfilename}")
        path = PurePosixPath(file.rfilename)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{repo}: holds {file.rfilename!r}, a path that leaves its folder")
        files[file.rfilename] = Stored(file.size, digest)
    return Listing(repo, info.sha or "", files)


def listing_here(repo: str) -> Listing | None:
    """The same of what lies in the hub's cache, whose blobs are named by their hashes; or None."""
    with contextlib.suppress(huggingface_hub.CacheNotFound):
        for cached in huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos:
            if (cached.repo_id, cached.repo_type) == (repo, "model") and cached.revisions:
                newest = max(cached.revisions, key=lambda revision: revision.last_modified)
                files = {
                    file.file_path.relative_to(newest.snapshot_path).as_posix(): Stored(
                        None, file.file_path.readlink().name
                    )
                    for file in newest.files
                    if file.file_path.is_symlink()
                }
                return Listing(repo, newest.commit_hash, files, here=True)
    return None


def fetch(found: Listing, names: Sequence[str]) -> dict[str, Path]:
    """name -> path in the hub's cache, of files that have the size and hash that the hub tells.

    InputError names a file that is absent, cannot be transferred or is not what it should be; that
    one is removed, so that it is transferred anew the next time.
    """
    if absent := [name for name in names if name not in found.files]:
        held = ", ".join(sorted(found.files)) or "nothing"
        raise InputError(f"{found.repo}: has no {absent[0]}; it holds {held}")
    paths = {}
    for name in names:
        with hub_errors(found.repo):
            path = huggingface_hub.hf_hub_download(
                found.repo, name, revision=found.commit, local_files_only=found.here
            )
        paths[name] = Path(path)
        _check(paths[name], found.files[name], f"{found.repo}: {name}")
    return paths


def _check(path: Path, stored: Stored, what: str) -> None:
    size = path.stat().st_size
    if stored.size not in (None, size):
        fault = f"is {size:,} bytes; the hub says {stored.size:,}"
    elif (digest := _digest(path, stored.digest)) != stored.digest:
        fault = f"has the hash {digest}; the hub says {stored.digest}"
    else:
        return
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise InputError(f"{what} {fault}; it is removed, so run the same again")


def _digest(path: Path, like: str) -> str:
    if len(like) == 64:
        return sha256(path)
    content = read_bytes(path)  # git's blobs are small files
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """The hub's errors as one line each."""
    # Unlike the package, which imports what is asked for, these import a client of HTTP at once.
    from huggingface_hub import errors

    hub = constants.ENDPOINT
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(
            f"{repo!r} is neither a released model, nor a folder, nor a repository as OWNER/NAME"
        ) from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo}: its owner lets in whom he knows; ask at {hub}/{repo}, then set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{repo}: {hub} has no such repository, or a private one; check the name, or set "
            "HF_TOKEN"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, errors.FileMetadataError):
            raise InputError(f"{hub} does not answer as a hub: {_line(error)}") from error
        raise UnreachableError(f"{repo}: {hub} cannot be reached") from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"{repo}: {_line(error)}") from error
    except errors.OfflineModeIsEnabled as error:
        raise UnreachableError(f"{repo}: HF_HUB_OFFLINE is set") from error
    except errors.HfHubHTTPError as error:
        answer = f"{repo}: {hub} answered {_line(error)}"
        status = error.response.status_code
        if status >= 500:
            raise UnreachableError(answer) from error
        hint = "; set an HF_TOKEN that may do this" if status in (401, 403) else ""
        raise InputError(answer + hint) from error
    except errors.HTTPError as error:
        raise UnreachableError(f"{repo}: {hub} cannot be reached ({_line(error)})") from error
    except OSError as error:
        raise InputError(f"{repo}: {_line(error)}; run the same again") from error


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\s*\(Request ID:[^)]*\)", "", text.splitlines()[0]).rstrip(". ")
