"""JAX's persistent compilation cache, in the user's cache directory."""

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
from clip_jax.errors import InputError
from clip_jax.paths import as_path, check_bucket, check_scheme, is_remote

FOLDER = "programs"
LOCK = ".lockfile"  # as JAX names its own
# JAX's option -> its default, and the value set here: programs are small and cached for good.
OPTIONS = {
    "jax_compilation_cache_max_size": (-1, 1 << 30),  # bytes; RUDOLPH-350M's sampler has 0.7 MB
    "jax_persistent_cache_min_compile_time_secs": (1.0, 0.1),
}

# Of caches that XLA itself has for GPUs; and JAX's default.
GPU_CACHE = "jax_persistent_cache_enable_xla_caches", "xla_gpu_per_fusion_autotune_cache_dir"


def enable_compilation_cache() -> None:
    """Sets `compilation_cache_dir()` as JAX's compilation cache, unless the user configured one.

    All functions that load or train a model call this. A user's configuration is
    jax_compilation_cache_dir, or jax_enable_compilation_cache=False, as options or as environment
    variables in capitals; a bucket that cannot be used raises InputError. A directory of the user's
    own cache that cannot be used gives one warning, and nothing is cached.
    """
    values = jax.config.values
    in_environment = "JAX_COMPILATION_CACHE_DIR" in os.environ
    user_configured = in_environment or values["jax_compilation_cache_dir"]
    if user_configured:
        place = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(user_configured)
        try:
            if is_remote(place):
                check_bucket(as_path(place))
                _turn_off_gpu_cache()
            check_scheme(place)
        except InputError as error:
            raise InputError(f"JAX_COMPILATION_CACHE_DIR: {error}") from error
    if user_configured or not values["jax_enable_compilation_cache"]:
        return
    if (folder := _prepared()) is not None:
        for name, (default, value) in OPTIONS.items():
            if values[name] == default:
                jax.config.update(name, value)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _turn_off_gpu_cache() -> None:
    """Turns XLA's cache of tuned GPU kernels off, unless the user configured it.

    JAX puts it into the same place by pathlib, which leaves "gs:/bucket": a local folder.
    """
    name, default = GPU_CACHE
    if jax.config.values[name] == default:
        jax.config.update(name, "none")


def compilation_cache_dir() -> Path:
    """Returns the directory for this kind of processor.

    Another one, with the same home, may lack instructions that programs use.
    """
    return cache_dir() / FOLDER / _processor()


@cache
def _prepared() -> Path | None:
    try:
        folder = compilation_cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_partial_entries(folder)
    # No such folder, no home; no locks on this file system.
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"compiled programs are not cached: {error}; set XDG_CACHE_HOME to a folder that can "
            "be written, or JAX_ENABLE_COMPILATION_CACHE=false",
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


def _remove_partial_entries(folder: Path) -> None:
    """Removes entries that a killed process left unfinished: those without an access time.

    JAX writes that last, and holds the lock while it writes. Where the lock is held for long, this
    is left to another process.
    """
    with contextlib.suppress(Timeout), FileLock(folder / LOCK, timeout=1):
        programs, times = (
            {file.name.removesuffix(end): file for file in folder.glob(f"*{end}")}
            for end in ("-cache", "-atime")
        )
        for name in programs.keys() ^ times.keys():
            (programs.get(name) or times[name]).unlink(missing_ok=True)
