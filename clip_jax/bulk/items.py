"""Items of bulk work, and the sources that list them in a fixed order.

A source has groups: the tar files of a folder, the splits of a prepared set, or one of everything.
Listing a group does not list those before it, so that a process reads only the tars of its part.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

SEED_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Record:
    """An item that was read.

    image: an encoded file; None for a prompt. texts: of the image, or the prompt.
    members: the item as a sample of a tar, file by extension, byte for byte.
    """

    image: bytes | None = None
    texts: tuple[str, ...] = ()
    members: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Item:
    """An item before it is read.

    group, number: its place in the source. name: of its sample in a tar.
    read: returns it; InputError or OSError where that fails.
    """

    key: str
    group: int
    number: int
    name: str
    read: Callable[[], Record]

    def seed(self, run_seed: int) -> int:
        """Derives the item's seed, uint32, from the run's and the item's place alone."""
        text = f"{run_seed}/{self.group}/{self.number}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=SEED_BYTES).digest(), "little")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The items of a group. ignored: how many files of it are of no use.

    items: of a range of numbers.
    """

    count: int
    items: Callable[[range], Sequence[Item]]
    ignored: int = 0


class Source(Protocol):
    """Groups of items.

    groups: their number. has_files: whether each is a file, which takes time to list.
    fingerprint: changes when the items do.
    """

    groups: int
    has_files: bool
    fingerprint: str

    def open(self, group: int) -> AbstractContextManager[Listing]:
        """Lists a group, whose items can be read until the context ends."""
        ...


def sample_name(group: int, number: int) -> str:
    """Names a sample of a tar, without a dot, by which webdataset would cut it."""
    return f"{group:05d}-{number:09d}"


def digest(*parts: str | bytes) -> str:
    """Hashes texts or bytes to a fingerprint."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()
