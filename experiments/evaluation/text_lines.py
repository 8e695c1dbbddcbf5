"""Text files of one entry a line."""

from __future__ import annotations

from pathlib import Path

from clip_jax.text import read_text


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file, whatever ends them: CR LF, LF or CR. No byte order mark.

    Not str.splitlines, which also breaks at characters that lines may hold, such as U+2028.
    """
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
