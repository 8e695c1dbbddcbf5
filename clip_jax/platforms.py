"""The platform that a program is traced for."""

from __future__ import annotations

import jax


def traced_platform() -> str:
    """Returns "cpu", "gpu" or "tpu": where a program that is traced now will run.

    That of the current mesh (`jax.set_mesh`), else JAX's default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def traced_device_kind() -> str:
    """Returns what JAX calls the device that a program traced now will run on, "TPU v5 lite"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    kind: str = jax.devices()[0].device_kind if device is None else device.device_kind
    return kind
