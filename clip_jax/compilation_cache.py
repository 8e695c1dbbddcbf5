"""Compiled programs that later processes find, so that only a program's first user waits for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import warnings
from functools import cache
from pathlib import Path

import jax
from filelock import FileLock, Timeout

from clip_jax.cache_dir import cache_dir

FOLDER = "programs"
LOCK = ".lockfile"  # as JAX names its own
# JAX's option -> its default, and what is better where programs are small and kept for good.
OPTIONS = {
    "jax_compilation_cache_max_size": (-1, 1 << 30),  # bytes; RUDOLPH-350M draws with one of 0.7 MB
    "jax_persistent_cache_min_compile_time_secs": (1.0, 0.1),
}


def enable_compilation_cache() -> None:
    """Has JAX look for compiled programs in `compilation_cache_dir()` and leave its own there.

    It is called by whatever loads or trains a model. Nothing changes where somebody has spoken:
    jax_compilation_cache_dir names a folder, or jax_enable_compilation_cache is off, as options
    or as environment variables in capitals. A folder that cannot be used is told once, as a
    warning, and programs then live no longer than the process.
    """
    values = jax.config.values
    spoken = "JAX_COMPILATION_CACHE_DIR" in os.environ or values["jax_compilation_cache_dir"]
    if spoken or not values["jax_enable_compilation_cache"]:
        return
    if (folder := _prepared()) is not None:
        for name, (default, value) in OPTIONS.items():
            if values[name] == default:
                jax.config.update(name, value)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def compilation_cache_dir() -> Path:
    """Of this kind of processor: another one, with the same home, may lack what programs use."""
    return cache_dir() / FOLDER / _processor()


@cache
def _prepared() -> Path | None:
    try:
        folder = compilation_cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
    # No such folder, no home; no locks on this file system.
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"compiled programs are not kept: {error}; set XDG_CACHE_HOME to a folder that can be "
            "written, or JAX_ENABLE_COMPILATION_CACHE=false",
            stacklevel=3,
        )
        return None
    return folder


def _processor() -> str:
    about = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # not Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        about += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]


def _remove_unfinished(folder: Path) -> None:
    """Those that a killed process had begun to write: JAX puts the time of use beside them last.

    JAX holds the lock while it writes. Where it is held for long, another process may do this.
    """
    with contextlib.suppress(Timeout), FileLock(folder / LOCK, timeout=1):
        programs, times = (
            {file.name.removesuffix(end): file for file in folder.glob(f"*{end}")}
            for end in ("-cache", "-atime")
        )
        for name in programs.keys() ^ times.keys():
            (programs.get(name) or times[name]).unlink(missing_ok=True)
