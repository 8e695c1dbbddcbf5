"""A file that is whole, or as it was."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(file: Path, content: str | bytes) -> None:
    """Writes beside and renames: an interruption leaves the old file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    os.replace(beside, file)
