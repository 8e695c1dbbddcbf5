"""Measure the roofline of this machine: FLOPs and bytes a second.

S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52 (2009): work that needs `flops`
operations on `bytes` from memory takes at least the longer of the two times.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

MATMUL_SIZE, ROUNDS = 2048, 7
KERNELS = 16  # of 16 MiB each: no cache holds them


@dataclasses.dataclass(frozen=True)
class Machine:
    """Hold the limits of a machine.

    device: name of its kind.
    flops: FLOPs a second by dtype.
    read, copy: bytes a second.
    """

    device: str
    flops: dict[str, float]
    read: float
    copy: float

    def seconds(self, dtype: str, flops: float, read: float) -> float:
        """Return the least time for so many FLOPs on so many bytes read."""
        return max(flops / self.flops[dtype], read / self.read)


def measure(dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> Machine:
    """Measure each limit in the fastest of several rounds, on JAX's default device."""
    device = jax.devices()[0]
    return Machine(device.device_kind, {dtype: _flops(dtype) for dtype in dtypes}, _read(), _copy())


def _flops(dtype: str) -> float:
    """Time a large square matmul that accumulates in float32."""
    square = jnp.ones((MATMUL_SIZE, MATMUL_SIZE), dtype)
    matmul = jax.jit(lambda x: jnp.einsum("AB,BC->AC", x, x, preferred_element_type=jnp.float32))
    return 2 * MATMUL_SIZE**3 / _fastest(lambda: matmul(square))


def _read() -> float:
    """Time matmuls of one row with large kernels, as in generating one image."""
    kernels = [jnp.full((1024, 4096), i, jnp.float32) for i in range(KERNELS)]
    gemv = jax.jit(lambda x, kernels: sum((x @ k for k in kernels), jnp.zeros((1, 4096))))
    row = jnp.ones((1, 1024))
    return sum(k.nbytes for k in kernels) / _fastest(lambda: gemv(row, kernels))


def _copy() -> float:
    """Time a copy in host memory: bytes read and written."""
    source = np.ones(2**26, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: np.copyto(target, source))


def _fastest(work: Callable[[], object]) -> float:
    jax.block_until_ready(work())
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - begun)
    return min(times)
