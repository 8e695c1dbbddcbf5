"""Devices of a TPU slice that is only described, for the compiler of an ordinary machine."""

from __future__ import annotations

import os
import re

import jax
from jax.experimental import topologies

from clip_jax.errors import InputError

# The two cores of such a chip work as one device, as JAX has them on the machines themselves.
MEGACORE = ("v4", "v5p")
FORM = "v4:4x4x4, v5p:4x4x4, v5e:8x8, v6e:8x8 (chips along each side) or cpu:8"


def slice_devices(topology: str) -> list[jax.Device]:
    """The devices of "v5e:16x16" and the like, or of "cpu:8", that many pretended ones.

    Raises InputError for a slice that the compiler does not know, and where it is not installed.
    """
    kind, _, shape = topology.partition(":")
    if not re.fullmatch(r"\d+(x\d+)*", shape):
        raise InputError(f"--topology is {topology!r}; expected {FORM}")
    if kind == "cpu":
        return _cpu_devices(topology, shape)
    options = {"chip_config_name": "megacore"} if kind in MEGACORE else {}
    # No metadata server describes this machine, and several may plan on it: no chip is touched.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        if "INVALID_ARGUMENT" not in reason:
            raise InputError(
                f"--topology={topology}: there is no TPU compiler here; install it with "
                f"`pip install 'rudolph-jax[tpu]'`, or plan for cpu:8 ({reason})"
            ) from error
        raise InputError(f"--topology is {topology!r}; expected {FORM} ({reason})") from error
    return list(described.devices)


def _cpu_devices(topology: str, shape: str) -> list[jax.Device]:
    if not shape.isdigit() or not int(shape):
        raise InputError(f"--topology is {topology!r}; expected a number of devices, as in cpu:8")
    devices = jax.devices("cpu")
    if len(devices) < int(shape):
        raise InputError(
            f"--topology is {topology!r}; this process has {len(devices)} CPU devices, as many as "
            "XLA_FLAGS=--xla_force_host_platform_device_count=N asks for"
        )
    return devices[: int(shape)]
