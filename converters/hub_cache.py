"""A repository's place in the cache of huggingface_hub, with checks that no path leaves it.

models--OWNER--NAME/blobs/HASH              a file, named by its hash
models--OWNER--NAME/blobs/HASH.incomplete   what a transfer has brought of it
models--OWNER--NAME/snapshots/COMMIT/FILE   a link to the blob
.locks/models--OWNER--NAME/HASH.lock        held by whoever transfers it
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants

from clip_jax.errors import InputError
from converters.files import sha256
from converters.hub_names import check_file_name, is_commit, is_digest


@dataclass(frozen=True)
class ExpectedFile:
    """Describe a file as the hub lists it.

    size: in bytes; None: not listed.
    digest: SHA-256, or git's own hash of a small file.
    """

    size: int | None
    digest: str


@dataclass(frozen=True)
class RepoCache:
    """Give paths in the cache, each checked to be inside. root: the cache, with links resolved."""

    root: Path
    repo: str

    @classmethod
    def for_repo(cls, repo: str) -> RepoCache:
        return cls(Path(constants.HF_HUB_CACHE).resolve(), repo)

    @property
    def _name(self) -> str:
        return f"models--{self.repo.replace('/', '--')}"

    def blob(self, digest: str) -> Path:
        assert is_digest(digest)
        return self._inside(Path(self._name, "blobs", digest))

    def partial(self, digest: str) -> Path:
        assert is_digest(digest)
        return self._inside(Path(self._name, "blobs", f"{digest}.incomplete"))

    def snapshots(self) -> Path:
        return self._inside(Path(self._name, "snapshots"))

    def pointer(self, commit: str, name: str) -> Path:
        assert is_commit(commit)
        return self._inside(Path(self._name, "snapshots", commit, check_file_name(name, self.repo)))

    @contextlib.contextmanager
    def locked(self, digest: str) -> Iterator[None]:
        """Hold the lock that huggingface_hub takes for the same file."""
        assert is_digest(digest)
        path = self._inside(Path(".locks", self._name, f"{digest}.lock"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield

    def link(self, digest: str, commit: str, name: str) -> Path:
        """Make a file of a snapshot from its blob, unless it exists."""
        blob, pointer = self.blob(digest), self.pointer(commit, name)
        if pointer.is_file():
            return pointer
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)  # a link to a blob that is gone
        try:
            if getattr(constants, "HF_HUB_DISABLE_SYMLINKS", False):
                raise OSError("links are switched off")
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:
            pass  # of another process
        except OSError:  # a file system without links
            shutil.copyfile(blob, pointer)
        return pointer

    def remove(self, path: Path) -> None:
        """Remove a file or a link, never the target of the link."""
        if not path.parent.resolve().is_relative_to(self.root):
            raise self._outside(path)
        path.unlink(missing_ok=True)

    def _inside(self, path: Path) -> Path:
        path = self.root / path
        if not path.resolve().is_relative_to(self.root):
            raise self._outside(path)
        return path

    def _outside(self, path: Path) -> InputError:
        return InputError(
            f"{path}: leads to {path.resolve()}, out of the cache {self.root}; remove the link"
        )


def find_mismatch(path: Path, stored: ExpectedFile) -> str | None:
    """Return how a file differs from what the hub lists, or None."""
    size = path.stat().st_size
    if stored.size not in (None, size):
        return f"is {size:,} bytes; the hub says {stored.size:,}"
    if (digest := _digest(path, stored.digest)) != stored.digest:
        return f"has the hash {digest}; the hub says {stored.digest}"
    return None


def _digest(path: Path, like: str) -> str:
    if len(like) == 64:
        return sha256(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
