"""Forms of the models' operations that XLA:CPU runs several times faster than the usual ones.

einsum.py      products that accumulate in float32 and gradients without transpositions
transposed.py  kernels stored [out..., in...], read in memory order by products of few rows
attention.py   attention in chunks of queries whose scores fit in a cache
kv_cache.py    in-place updates of the sampler's cache

`linear.py`, `attention.py` and RUDOLPH's sampler choose them while a program is traced. Their
gains are in docs/performance_notes.md.
"""

from __future__ import annotations

import contextlib

import jax

from clip_jax.platforms import traced_platform

# Part of the key of every jitted function, so that each setting is compiled separately.
_forced = jax.make_user_context(None)


def in_use() -> bool:
    """Returns whether the program that is being traced gets the forms of this package.

    The platform decides: that of the current mesh (`jax.set_mesh`), else JAX's default.
    """
    forced: bool | None = _forced.value
    return traced_platform() == "cpu" if forced is None else forced


def forms(use: bool | None) -> contextlib.AbstractContextManager[None]:
    """Forces these forms on (True) or off (False) within the context; None: by the platform.

    A program that is traced here for other devices than JAX's default, by `jax.export` or ahead of
    time, needs it.
    """
    context: contextlib.AbstractContextManager[None] = _forced(use)
    return context
