"""The platform that a program is traced for."""

from __future__ import annotations

import jax


def traced_platform() -> str:
    """Returns "cpu", "gpu" or "tpu": where a program that is traced now will run.

    That of the current mesh (`jax.set_mesh`), else JAX's default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
