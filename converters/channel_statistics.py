"""Means and standard deviations of image channels, as foreign configs give them."""

from __future__ import annotations

import math
from typing import Any

from clip_jax.errors import InputError
from converters.torch_unpickler import safe_repr


def channel_values(
    value: Any, name: str, where: str, *, divides: bool = False
) -> tuple[float, float, float]:
    """Return one finite number a channel. divides: require positive ones, since pixels are divided.

    name, where: the field and its file in errors.
    """
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    if not numbers or len(value) != 3 or not all(map(math.isfinite, value)):
        raise InputError(f"{where}: {name} is {json_repr(value)}; expected three numbers")
    if divides and min(value) <= 0:
        raise InputError(f"{where}: {name} is {json_repr(value)}; expected three positive numbers")
    return tuple(value)


def json_repr(value: Any) -> str:
    """Format a JSON value for errors: as `safe_repr`, with floats and constants in full."""
    if isinstance(value, list):
        return f"[{', '.join(map(json_repr, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    return repr(value) if isinstance(value, float) or value is None else safe_repr(value)
