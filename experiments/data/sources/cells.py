"""Splits physical lines of CSV and TSV files into cells, with the quoting of RFC 4180."""

from __future__ import annotations

import re

QUOTE = '"'
_QUOTED = re.compile(r'[^"]*(?:""[^"]*)*')
_ENDS = ("\r\n", "\n", "\r")
DONE, OPEN = "", "a quote mark is never closed"
_AFTER = "text follows a closing quote mark"
_INSIDE = "quote marks stand inside of a text without quotes"


class Line:
    """A physical line, and how it goes on where a quoted text reaches it; both found once."""

    __slots__ = ("text", "end", "size", "_close", "_tail")

    def __init__(self, line: str | None, size: int) -> None:
        """line: None for one too long. size: of it in the file, in bytes."""
        self.size = size
        self.end = next((end for end in _ENDS if line and line.endswith(end)), "")
        self.text = None if line is None else line.removesuffix(self.end)
        self._close: int | None = None
        self._tail: tuple[list[str], str] | None = None

    @property
    def close(self) -> int:
        """The place of the quote mark that closes a text open at the line's start, or -1."""
        if self._close is None:
            self._close = _closing(self.text, 0)
        return self._close

    def tail(self, delimiter: str, strict: bool) -> tuple[list[str], str]:
        """The cells after that quote mark, and the state."""
        if self._tail is None:
            place = self.close + 1
            if place == len(self.text):
                self._tail = [], DONE
            elif self.text[place] != delimiter:
                self._tail = [], _AFTER
            else:
                self._tail = split_cells(self.text, delimiter, strict, place + 1)
        return self._tail


def _closing(text: str, start: int) -> int:
    """The place of the first quote mark that is not doubled, or -1."""
    place = _QUOTED.match(text, start).end()
    return place if place < len(text) else -1


def split_cells(text: str, delimiter: str, strict: bool, place: int = 0) -> tuple[list[str], str]:
    """The cells of a line from a place on, as far as they go; and what is wrong, if anything is."""
    cells: list[str] = []
    while True:
        if text.startswith(QUOTE, place):
            end = _closing(text, place + 1)
            inside = text[place + 1 :] if end < 0 else text[place + 1 : end]
            cells.append(inside.replace('""', QUOTE))
            if end < 0:
                return cells, OPEN
            place = end + 1
            if place == len(text):
                return cells, DONE
            if text[place] != delimiter:
                return cells, _AFTER
        else:
            end = text.find(delimiter, place)
            cells.append(text[place:] if end < 0 else text[place:end])
            if strict and QUOTE in cells[-1]:
                return cells, _INSIDE
            if end < 0:
                return cells, DONE
            place = end
        place += 1
