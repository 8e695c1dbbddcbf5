"""Means and standard deviations of image channels, as foreign configs give them."""

from __future__ import annotations

import math
from typing import Any

from clip_jax.errors import InputError
from converters.torch_unpickler import shown


def three_numbers(
    value: Any, name: str, where: str, *, divides: bool = False
) -> tuple[float, float, float]:
    """One finite number a channel. divides: zero and below are refused, for pixels are divided.

    name, where: what errors call the field and its file.
    """
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    if not numbers or len(value) != 3 or not all(map(math.isfinite, value)):
        raise InputError(f"{where}: {name} is {brief(value)}; expected three numbers")
    if divides and min(value) <= 0:
        raise InputError(f"{where}: {name} is {brief(value)}; expected three positive numbers")
    return tuple(value)


def brief(value: Any) -> str:
    """A value of a JSON file as errors print it: `shown`, and floats and constants in full."""
    if isinstance(value, list):
        return f"[{', '.join(map(brief, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    return repr(value) if isinstance(value, float) or value is None else shown(value)
