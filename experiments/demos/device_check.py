"""Describes the devices of a notebook, and which dtype suits them."""

from __future__ import annotations

import jax


def device_line() -> str:
    """Returns a line: the devices, their memory, and the dtype that they compute fastest in."""
    devices = jax.devices()
    device = devices[0]
    stats = device.memory_stats() or {}
    memory = stats.get("bytes_limit")
    amount = f", {memory / 2**30:.0f} GiB each" if memory else ""
    return f"{len(devices)} x {device.device_kind}{amount}: {_advice(device)}"


def _advice(device: jax.Device) -> str:
    if device.platform == "tpu":
        return "load models with dtype='bfloat16'"
    if device.platform == "gpu":
        # Tensor cores multiply bfloat16 from Ampere (8.0) on; a T4 is 7.5.
        capability = float(getattr(device, "compute_capability", "0"))
        return f"load models with dtype={'bfloat16' if capability >= 8 else 'float16'!r}"
    return "the quickstart's models take seconds; the published ones minutes a drawing"
