"""Pieces of bulk work: which there are, whose they are, and which are finished.

    OUT/run.json                       the settings and the source, the same for all processes
    OUT/done/00012-00000-of-00003.json written last: this piece, of the 3 of group 12, is finished
    OUT/locks/00012-00000.lock         held by the process that works on the piece

A killed process loses its lock with its life, and another one, or itself when it is started again,
does the piece from its beginning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clip_jax.atomic_file import create_file, replace_file
from clip_jax.bulk.items import Source
from clip_jax.errors import InputError
from clip_jax.part import Part
from clip_jax.paths import is_remote
from clip_jax.text import escape, read_json

RUN, DONE, LOCKS = "run.json", "done", "locks"
VERSION = 1
_MARKER = re.compile(r"(\d{5,})-(\d{5,})-of-(\d{5,})\.json", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Piece:
    """Piece `number` of the `count` of a group."""

    group: int
    number: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.group:05d}-{self.number:05d}"

    @property
    def marker(self) -> str:
        return f"{self.name}-of-{self.count:05d}.json"


class Pieces:
    """The pieces of one run in its folder, as all of its processes see them."""

    def __init__(self, out: Path, source: Source, piece_items: int, part: Part) -> None:
        self.out, self.part = out, part
        self._source, self._piece_items = source, piece_items
        # Whole files where there are enough: the others' then need not be listed.
        self._by_group = source.has_files and source.groups >= part.count
        self._finished: dict[int, dict[int, Piece]] = {}

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Writes the run's settings, or compares them with those of the first process."""
        wanted = {
            "version": VERSION, "piece_items": self._piece_items,
            "source": self._source.fingerprint, **settings,
        }  # fmt: skip
        file = self.out / RUN
        create_file(file, json.dumps(wanted, ensure_ascii=False, indent=1) + "\n")
        found = read_settings(self.out)
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise InputError(
                    f"{escape(str(self.out))}: was begun with {name} {_shown(found.get(name))}, "
                    f"and this is {_shown(wanted.get(name))}; expected the same, or another --out"
                )

    def refresh(self) -> None:
        """Lists the finished pieces again."""
        self._finished = {}
        folder = self.out / DONE
        for file in folder.iterdir() if folder.is_dir() else ():
            if found := _MARKER.fullmatch(file.name):
                piece = Piece(*map(int, found.groups()))
                self._finished.setdefault(piece.group, {})[piece.number] = piece

    def groups(self) -> Iterator[int]:
        """Yields the groups with unfinished pieces of this part."""
        for group in range(self._source.groups):
            if self._by_group and group % self.part.count != self.part.number:
                continue
            found = self._finished.get(group, {})
            count = next(iter(found.values())).count if found else 0
            if not found or any(
                number not in found for number in range(count) if self._is_mine(group, number)
            ):
                yield group

    def unfinished(self, group: int, items: int) -> Iterator[tuple[Piece, range]]:
        """Yields a group's pieces of this part, and the numbers of their items.

        A group without items has a piece too, with which what it ignored is counted.
        """
        size = self._piece_items
        count = max(-(-items // size), 1)
        for number in range(count):
            if self._is_mine(group, number) and number not in self._finished.get(group, {}):
                first = number * size
                yield Piece(group, number, count), range(first, min(first + size, items))

    def is_finished(self, piece: Piece) -> bool:
        return (self.out / DONE / piece.marker).exists()

    def finish(self, piece: Piece, report: Mapping[str, Any]) -> None:
        text = json.dumps(report, ensure_ascii=False) + "\n"
        replace_file(self.out / DONE / piece.marker, escape(text))
        self._finished.setdefault(piece.group, {})[piece.number] = piece

    def reports(self, *, of_all: bool = False) -> Iterator[dict[str, Any]]:
        """Yields what `finish` wrote of the pieces of this part, or of all."""
        for group, found in sorted(self._finished.items()):
            for number, piece in sorted(found.items()):
                if of_all or self._is_mine(group, number):
                    yield read_json(self.out / DONE / piece.marker)

    def are_all_finished(self) -> bool:
        """Returns whether the pieces of all parts are there."""
        found = [self._finished.get(group) for group in range(self._source.groups)]
        return all(some and len(some) == next(iter(some.values())).count for some in found)

    @contextlib.contextmanager
    def claim(self, piece: Piece) -> Iterator[bool]:
        """Holds a piece; yields False where another process does, or has finished it."""
        if is_remote(self.out):  # without locks: the part alone says whose a piece is
            yield not self.is_finished(piece)
            return
        file = self.out / LOCKS / f"{piece.name}.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            # The holder before this one may have finished it, and then removed the lock's name.
            yield not self.is_finished(piece)
            if self.is_finished(piece):
                file.unlink(missing_ok=True)

    def _is_mine(self, group: int, number: int) -> bool:
        owner = group if self._by_group else group + number
        return owner % self.part.count == self.part.number


def read_settings(out: Path) -> dict[str, Any]:
    """Reads the settings of a run; InputError where there is none."""
    file = out / RUN
    found = read_json(file) if file.exists() else None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise InputError(
            f"{escape(str(out))}: holds no bulk work; expected a folder that such a command wrote"
        )
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
