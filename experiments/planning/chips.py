"""Published peak numbers of TPU chips.

Source: docs.cloud.google.com/tpu/docs, pages v5e and v6e, table "System architecture". Those of v4
and v5p are as other pages quote Google's; compare them with its own before money hangs on them.
"""

from __future__ import annotations

import dataclasses

from clip_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """flops: bfloat16 operations a second. hbm_bytes. hbm_bandwidth: bytes a second. ici_bandwidth:
    bytes that a chip sends a second over all its links together.
    """

    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float


# ICI is published as 2,400, 1,600, 4,800 and 3,200 Gbit/s a chip, or as twice that for both ways.
CHIPS: dict[str, Chip] = {
    "v4": Chip(275e12, 32 * GIB, 1228e9, 300e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * GIB, 1638e9, 400e9),
}


def chip_named(name: str) -> Chip:
    """The numbers of a generation; an unknown one raises InputError."""
    if name not in CHIPS:
        raise InputError(f"--chip is {name!r}; expected one of {', '.join(CHIPS)}")
    return CHIPS[name]
