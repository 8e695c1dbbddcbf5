"""Check the names of commits, digests, sizes and files that a hub gives.

A hub's responses become paths in the user's cache: each value is checked here first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from clip_jax.errors import InputError
from converters.torch_unpickler import safe_repr

# Git's hash of a commit or a blob; SHA-256 of what Git LFS stores.
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# As huggingface_hub's `validate_repo_id`.
_REPOSITORY = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_NO_CHARACTERS = ("Cc", "Cs", "Zl", "Zp")  # controls, surrogates, ends of lines
_DRIVE = re.compile(r"[A-Za-z]:")

MAX_FILES = 100_000  # in a repository
MAX_FILE_BYTES = 1 << 40
MAX_NAME_BYTES = 255  # one part of a path, as file systems have it
MAX_PATH_BYTES = 1024


def check_repository(repo: str) -> None:
    """Raise InputError unless a repository's name is OWNER/NAME in ASCII."""
    odd = "--" in repo or ".." in repo or repo.endswith(".git")
    if odd or not _REPOSITORY.fullmatch(repo):
        raise InputError(
            f"{safe_repr(repo)} is neither a published model, nor a folder, nor a repository as "
            "OWNER/NAME"
        )


def is_commit(value: Any) -> bool:
    """Return whether a value is a commit's hash: 40 lower-case hexadecimal digits."""
    return isinstance(value, str) and _SHA1.fullmatch(value) is not None


def is_digest(value: Any) -> bool:
    """Return whether a value is the hash of a file: Git's of 40 digits or SHA-256 of 64."""
    return is_commit(value) or (isinstance(value, str) and _SHA256.fullmatch(value) is not None)


def read_commit(value: Any, where: str) -> str:
    """Return a commit's hash; InputError for any other value."""
    if is_commit(value):
        return str(value)
    raise InputError(
        f"{where}: the hub names the commit {safe_repr(value)}; expected 40 hexadecimal digits"
    )


def read_digest(value: Any, where: str) -> str:
    """Return a file's hash; InputError for any other value."""
    if is_digest(value):
        return str(value)
    raise InputError(
        f"{where}: the hub names the hash {safe_repr(value)}; expected 40 or 64 hexadecimal digits"
    )


def read_etag(header: str, where: str) -> str:
    """Return the hash in an ETag, without quotes and weak prefix."""
    return read_digest(header.removeprefix("W/").strip('"'), where)


def read_size(value: Any, where: str) -> int:
    """Return a size in bytes; InputError unless it is an integer from 0 to MAX_FILE_BYTES."""
    if type(value) is int and 0 <= value <= MAX_FILE_BYTES:  # bool is an int too
        return value
    found = repr(value) if isinstance(value, (float, bool)) else safe_repr(value)
    raise InputError(
        f"{where}: the hub names the size {found}; expected 0 to {MAX_FILE_BYTES:,} bytes"
    )


def check_file_name(name: Any, where: str) -> str:
    """Return the name of a file in a repository: a relative POSIX path of plain parts.

    InputError for an absolute path, a drive, `.`, `..`, an empty part or a backslash, which some
    system would resolve to another path; for control characters and names that are too long.
    """
    if not isinstance(name, str):
        raise InputError(f"{where}: the hub names the file {safe_repr(name)}; expected a path")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or _DRIVE.match(name):
        fault = "a path that leaves its folder"
    elif "\\" in name or any(unicodedata.category(c) in _NO_CHARACTERS for c in name):
        fault = "a name with characters that no file of a model has"
    elif "" in parts or "." in parts:
        fault = "a path with parts that name nothing"
    elif len(name) > MAX_PATH_BYTES or any(len(p.encode()) > MAX_NAME_BYTES for p in parts):
        fault = f"a name longer than {MAX_NAME_BYTES} bytes"
    else:
        return name
    raise InputError(f"{where}: holds {safe_repr(name)}, {fault}; name another repository")


def check_together(names: Iterable[str], where: str) -> None:
    """Raise InputError where two files would get one path, on any file system.

    That is so for names that differ by case alone, and for a file whose name is another's folder.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in files:
            _clash(name, files[folded], where)
        files[folded] = name
        while "/" in folded:
            folded = folded.rpartition("/")[0]
            folders[folded] = name
    for folded in files.keys() & folders.keys():
        _clash(files[folded], folders[folded], where)


def _clash(one: str, other: str, where: str) -> None:
    raise InputError(
        f"{where}: holds {safe_repr(one)} and {safe_repr(other)}, which would take one place; name "
        "another repository"
    )
