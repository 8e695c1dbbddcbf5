"""Reads tables, CSV, TSV or JSONL, by physical lines, so that no quote mark swallows other rows.

CSV has the quoting of RFC 4180 within a line. A quoted text over several lines is taken only where
none of its lines could be a row; what is not sure is rejected, line by line. TSV has no quoting
unless the whole file is consistent with it. docs/data.md ("Tables") states the rules.
"""

from __future__ import annotations

import codecs
import collections
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from clip_jax.errors import InputError
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.text import decode_text, escape, parse_json
from experiments.data.sources.cells import DONE, OPEN, QUOTE, Line, split_cells
from experiments.data.sources.records import BadRecord

JSON_LINES = ".jsonl"
TABLES = (".csv", ".tsv", JSON_LINES)
LONGEST_TEXT = 2**24  # characters of a line, or of a text over several
HEAD = 2**20  # bytes, by which a file's encoding and the ends of its lines are known
MOST_LINES = 256  # of a quoted text: what bounds the search for a closing quote mark

_ADVICE = "put the text into quotes and double the quote marks inside of it"


class QuotesWarning(UserWarning):
    """A TSV file is nearly consistent with quoting; its quote marks are read as text."""


class RowPlace(NamedTuple):
    """Where a row begins: the byte in the file, its number and its first line."""

    offset: int
    number: int
    line: int


class TableRow(NamedTuple):
    """Hold a row of a table.

    number: as a spreadsheet counts, a text over several lines being in one row. line: the first
    line of the file that the row is on. offset: its first byte. value: the cells by column, why the
    row is rejected, or None for a blank line.
    """

    number: int
    line: int
    offset: int
    value: dict[str, Any] | BadRecord | None

    @property
    def place(self) -> RowPlace:
        return RowPlace(self.offset, self.number, self.line)


class Table:
    """A table that can be read from any of its rows on; one that is no table raises InputError."""

    def __init__(self, path: Path, image_column: str = "", quoted: bool | None = None) -> None:
        """image_column: helps to tell a row from a line of a quoted text.

        quoted: whether quote marks have a meaning; None: found by reading all of a TSV file.
        """
        self.path = path
        self._image_column = image_column
        self._is_json = path.suffix.lower() == JSON_LINES
        self.quoted = not self._is_json and (_is_quoted(path) if quoted is None else quoted)
        self._encoding = _Encoding.find(path)
        self._names: list[str] | None = None

    def rows(self, start: RowPlace | None = None) -> Iterator[TableRow]:
        """Yields the rows, from the beginning of one on that was rejected for no row before it."""
        if self._is_json:
            yield from self._json_rows(start)
            return
        if self._names is None:
            with self._encoding.open(self.path) as file:
                self._names = _Reader(self.path, file, self.quoted, self._encoding.start).names
        with self._encoding.open(self.path, start.offset if start else None) as file:
            reader = _Reader(
                self.path, file, self.quoted, self._encoding.start,
                after=(start, self._names) if start else None,
            )  # fmt: skip
            yield from reader.rows(self._image_column)

    def _json_rows(self, start: RowPlace | None) -> Iterator[TableRow]:
        offset, number, _ = start or RowPlace(self._encoding.start, 1, 1)
        with self._encoding.open(self.path, offset) as file:
            for line, size in _lines(file):
                yield TableRow(number, number, offset, _json_row(line))
                number, offset = number + 1, offset + size


def table_rows(table: Path, image_column: str = "") -> Iterator[TableRow]:
    """Yields the rows of a table; one that is no table raises InputError."""
    return Table(table, image_column).rows()


def column_names(table: Path) -> list[str]:
    """The header of a CSV or TSV file; [] where the file is empty."""
    quoted = _is_quoted(table, warn=False)
    encoding = _Encoding.find(table)
    with encoding.open(table) as file:
        return _Reader(table, file, quoted, encoding.start).names


class _Encoding(NamedTuple):
    """Says how a table's bytes are decoded. start: the first byte after a byte order mark."""

    newline: str
    start: int

    @classmethod
    def find(cls, table: Path) -> _Encoding:
        """Looks at the file's first bytes; UTF-16 and UTF-32 raise InputError."""
        with table.open("rb") as file:
            head = file.read(HEAD)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
            decode_text(head, escape(str(table)))
        # In a table whose lines end in \n, a lone \r is a character; some old ones end lines in it.
        newline = "\n" if b"\n" in head or b"\r" not in head else "\r"
        return cls(newline, len(codecs.BOM_UTF8) * head.startswith(codecs.BOM_UTF8))

    def open(self, table: Path, offset: int | None = None) -> TextIO:
        """Opens at a byte at which a line begins, by default the first one."""
        file = table.open("rb")
        file.seek(self.start if offset is None else offset)
        # Bytes that are not UTF-8 concern one row, not the table.
        return io.TextIOWrapper(
            file, encoding="utf-8", errors="surrogateescape", newline=self.newline
        )


def _lines(file: TextIO) -> Iterator[tuple[str | None, int]]:
    """Physical lines with their ends, \n, \r\n or \r, None for one too long; and their bytes."""
    while line := file.readline(LONGEST_TEXT):
        whole, size = line, _size(line)
        while len(line) == LONGEST_TEXT and line[-1] not in "\r\n":
            line = file.readline(LONGEST_TEXT)
            whole, size = None, size + _size(line)
            if not line:
                break
        yield whole, size


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


class _Reader:
    """Cells of a CSV or TSV file."""

    def __init__(
        self,
        table: Path,
        file: TextIO,
        quoted: bool,
        offset: int,
        strict: bool = False,
        after: tuple[RowPlace, list[str]] | None = None,
    ) -> None:
        """Reads the header; one that is none raises InputError.

        quoted: whether quote marks have a meaning. offset: of the file's first byte. strict: refuse
        quote marks elsewhere, as programs that write quotes do. after: where the file is instead,
        and the header's names.
        """
        self._delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
        self._quoted, self._strict = quoted, strict
        self._source = _lines(file)
        self._ahead: collections.deque[Line] = collections.deque()
        self._line, self._offset = 0, offset
        self._number: int | None = None  # of the next row, if it is not its line's
        self._rejecting = 0  # lines to come, with the one before them
        self.quoted_cells = 0
        self.names: list[str] = []
        if after is not None:
            (self._offset, self._number, line), self.names = after
            self._line = line - 1
            return
        place = escape(str(table))
        while self._look(0):
            first = self._take()
            if first.text is None or "\0" in first.text:
                raise InputError(
                    f"{place}: line {self._line} has zero bytes or no end; expected the columns' "
                    "names as UTF-8 text"
                )
            if first.text.strip():
                self.names = self._header(place, first.text)
                return

    def _header(self, place: str, text: str) -> list[str]:
        cells, state = self._cells(text)
        if state:
            raise InputError(f"{place}: header: {state}; {_ADVICE}")
        names = [name.strip() for name in cells]
        if len(names) == 1:
            others = [c for c in (",", ";", "\t", "|") if c in text and c != self._delimiter]
            if others:
                wish = "commas" if self._delimiter == "," else "tabs"
                raise InputError(
                    f"{place}: header is one column, {escape(names[0])!r}, with {others[0]!r} "
                    f"between names; expected {wish}: save it with {wish}, or with commas as .csv "
                    "and with tabs as .tsv"
                )
        twice = [name for name in names if name and names.count(name) > 1]
        if twice:
            raise InputError(
                f"{place}: two columns are called {escape(twice[0])!r}; rename or remove one"
            )
        return names

    def rows(self, image_column: str = "") -> Iterator[TableRow]:
        """Yields the rows from here on; image_column: as in `Table`."""
        image = self.names.index(image_column) if image_column in self.names else None
        first = self._line + 1 if self._number is None else self._number
        for number in itertools.count(first):
            if not self._look(0):
                return
            line, offset = self._line + 1, self._offset
            value = self._row(image)
            if isinstance(value, list):
                value = dict(zip(self.names, value, strict=True))
            yield TableRow(number, line, offset, value)

    def _row(self, image: int | None) -> list[str] | BadRecord | None:
        first = self._take()
        if self._rejecting:
            self._rejecting -= 1
            return self._unsure()
        if first.text is None:
            return BadRecord(f"row is too long: over {LONGEST_TEXT} characters")
        if not first.text.strip() and self._delimiter not in first.text:
            return None
        cells, state = self._cells(first.text)
        used = 0
        if state == OPEN:
            joined, used = self._join(first, cells)
            if joined is not None:
                # Where rows name images, so does a line that is one; else it has as many cells.
                place = image if image is not None and _names_image(cells, image) else None
                if any(self._could_be_row(self._ahead[i].text, place) for i in range(used)):
                    self._rejecting = used
                    return self._unsure()
                for _ in range(used):
                    self._take()
                cells, state = joined, DONE
        if state:
            return BadRecord(f"{state}: {_ADVICE}")
        if any("\0" in cell for cell in cells):
            return BadRecord("row has a zero byte")
        if len(cells) != len(self.names):
            separator = "commas" if self._delimiter == "," else "tabs"
            advice = f"put a text with {separator} into quotes"
            if not self._quoted:
                advice = f"a text must have no {separator} and no ends of lines"
            return BadRecord(
                f"row has {len(cells)} cells; the header has {len(self.names)}: {advice}"
            )
        return cells

    def _could_be_row(self, text: str, image: int | None) -> bool:
        cells, state = split_cells(text, self._delimiter, strict=False)
        if image is not None:
            return _names_image(cells, image)
        return not state and len(cells) == len(self.names)

    def _unsure(self) -> BadRecord:
        return BadRecord(
            "a quoted text over several lines has lines that could be rows: "
            "close the quote mark, or write the text on one line"
        )

    def _join(self, first: Line, cells: list[str]) -> tuple[list[str] | None, int]:
        """The cells of a row over several lines and how many more it takes; None where none fits.

        cells: of the first line, the last one open.
        """
        done, parts, size = cells[:-1], [cells[-1], first.end], len(first.text)
        for used in range(1, MOST_LINES):
            if not self._look(used - 1):
                return None, 0
            line = self._ahead[used - 1]
            size += 0 if line.text is None else len(line.text)
            if line.text is None or size > LONGEST_TEXT:
                return None, 0
            if line.close < 0:
                parts += [line.text.replace('""', QUOTE), line.end]
                continue
            tail, state = line.tail(self._delimiter, self._strict)
            done = [*done, "".join([*parts, line.text[: line.close].replace('""', QUOTE)]), *tail]
            if state == OPEN and len(done) <= len(self.names):
                parts = [done.pop(), line.end]
                continue
            fits = state == DONE and len(done) == len(self.names)
            return (done, used) if fits else (None, 0)
        return None, 0

    def _cells(self, text: str) -> tuple[list[str], str]:
        if not self._quoted or QUOTE not in text:
            return text.split(self._delimiter), DONE
        self.quoted_cells += 1
        return split_cells(text, self._delimiter, self._strict)

    def _look(self, place: int) -> bool:
        """Reads ahead until there is a line at this place of `_ahead`."""
        while len(self._ahead) <= place:
            try:
                self._ahead.append(Line(*next(self._source)))
            except StopIteration:
                return False
        return True

    def _take(self) -> Line:
        taken = self._ahead.popleft()
        self._line += 1
        self._offset += taken.size
        return taken


def _names_image(cells: Sequence[str], place: int) -> bool:
    return len(cells) > place and cells[place].strip().lower().endswith(IMAGE_SUFFIXES)


def _is_quoted(table: Path, warn: bool = True) -> bool:
    """Return whether quotes have a meaning: in CSV, and in TSV if all of it is consistent with it.

    warn: of a file that is nearly consistent.
    """
    if table.suffix.lower() != ".tsv":
        return True
    encoding = _Encoding.find(table)
    with encoding.open(table) as file:
        header = next((line for line, _ in _lines(file) if line is None or line.strip()), None)
    try:
        with encoding.open(table) as file:
            reader = _Reader(table, file, True, encoding.start, strict=True)
            found = ((row.line, row.value) for row in reader.rows())
            wrong = next(((line, c) for line, c in found if isinstance(c, BadRecord)), None)
    except InputError:
        return False  # which the caller finds in its own way
    if wrong is None:
        return reader.quoted_cells > 0
    line, reason = wrong[0], str(wrong[1]).partition(":")[0]
    if header is not None and QUOTE in header:
        raise InputError(
            f"{escape(str(table))}: header has quotes, and in line {line} {reason}; {_ADVICE}"
        )
    if warn and reader.quoted_cells > 1:
        warnings.warn(
            f"{escape(str(table))}: in line {line} {reason}, so quote marks are read as text, not "
            "as quotes around texts",
            QuotesWarning,
            stacklevel=2,
        )
    return False


def _json_row(line: str | None) -> dict[str, Any] | BadRecord | None:
    if line is None:
        return BadRecord(f"row is too long: over {LONGEST_TEXT} characters")
    if not line.strip():
        return None
    try:
        row = parse_json(line, "row")
    except InputError as error:
        return BadRecord(f"row is not JSON: {error.__cause__}")
    return row if isinstance(row, dict) else BadRecord("row is no JSON object")
