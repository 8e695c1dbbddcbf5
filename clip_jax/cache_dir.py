"""The directory of this user's files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Returns $XDG_CACHE_HOME/rudolph-jax, or ~/.cache/rudolph-jax; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored (XDG Base Directory Specification).
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "rudolph-jax"
