"""Limits how many files this process holds open."""

from __future__ import annotations

import contextlib
import resource

# Of many hard limits: more would serve nobody, and some libraries walk through all numbers.
MOST_FILES = 1 << 16


def raise_file_limit() -> int:
    """Raises this process's soft limit of open files as far as the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_FILES if soft == resource.RLIM_INFINITY else soft
    # Some kernels have a limit of their own, below the hard one.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
