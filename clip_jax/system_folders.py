"""Folders that operating systems and network storage add to a user's own."""

from __future__ import annotations

# From macOS archives, Synology and QNAP, Windows, and ext file systems; in lower case.
SYSTEM_FOLDERS = (
    "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin",
    "system volume information", "lost+found",
)  # fmt: skip


def is_system(name: str) -> bool:
    """Returns whether a folder or file is hidden, or named in SYSTEM_FOLDERS."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS
