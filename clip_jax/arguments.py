"""Checks arguments at public edges, so that wrong ones are named as the caller wrote them.

Each raises InputError with what was found, what was expected and, where it helps, what to do.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from clip_jax.config import Compute
from clip_jax.config_fields import short_repr
from clip_jax.errors import InputError
from clip_jax.paths import as_path, check_scheme
from clip_jax.text import check_encodable

MAX_SEED = 2**32 - 1  # a key is made of 32 bits


def check_integer(
    name: str, value: Any, least: int = 1, most: int | None = None, wanted: str | None = None
) -> int:
    """Returns an integer as int; numpy's are integers, bools and floats are not.

    wanted: what was expected, in words; None: the range.
    """
    try:
        found = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least or (most is not None and found > most):
        noun = "an integer, " if found is None else ""
        shown = describe(value) if found is None else short_repr(found)
        raise InputError(f"{name} is {shown}; expected {wanted or noun + _range(least, most)}")
    return found


def check_seed(seed: Any) -> int:
    """Returns a seed as int; seeds that differ give keys that differ."""
    return check_integer("seed", seed, 0, MAX_SEED)


def check_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    wanted: str | None = None,
) -> float:
    """Returns a finite number as float.

    wanted: what was expected, in words; None: the range.
    """
    if isinstance(value, jax.core.Tracer):
        return value  # type: ignore[return-value]  # a compiled function has no values yet
    is_scalar = isinstance(value, np.ndarray | jax.Array) and value.ndim == 0
    plain = value.item() if is_scalar else value
    is_number = isinstance(plain, numbers.Real) and not isinstance(plain, bool | np.bool_)
    if not is_number or not math.isfinite(plain) or not least <= plain <= most:
        noun = "a number" if is_number else "a number (int or float)"
        bounds = "" if math.isinf(least) and math.isinf(most) else f", {_range(least, most)}"
        raise InputError(f"{name} is {describe(plain)}; expected {wanted or noun + bounds}")
    return float(plain)


def check_text(name: str, value: Any) -> str:
    """Returns a text; InputError unless it is a str without surrogates."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {describe(value)}; expected a text (str)")
    check_encodable(value)
    return value


def check_text_list(name: str, values: Any, noun: str = "texts", least: int = 0) -> list[str]:
    """Returns a list of texts.

    noun: what the texts are, for errors.
    least: the smallest number of them.
    """
    if isinstance(values, str):
        raise InputError(f"{name} are {short_repr(values)}, one text; expected a list of {noun}")
    if not _is_list(values):
        raise InputError(f"{name} are {describe(values)}; expected a list of {noun}")
    found = list(values)
    for i, value in enumerate(found):
        check_text(f"{name}[{i}]", value)
    if len(found) < least:
        wanted = f"a list of {noun}" + (f", at least {least}" if least > 1 else "")
        raise InputError(f"{name} are {short_repr(found)}; expected {wanted}")
    return found


def check_image_list(name: str, images: Any) -> Sequence[Any]:
    """Returns several images, uint8[B, H, W, C] or a sequence, which is not copied."""
    one = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
    one = one or getattr(images, "ndim", None) in (2, 3) or hasattr(images, "read")
    if one:
        raise InputError(
            f"{name} are one image ({type(images).__name__}); expected a list of images: [image]"
        )
    if not _is_list(images):
        raise InputError(f"{name} are {describe(images)}; expected a list of images")
    has_rows = hasattr(images, "__len__") and hasattr(images, "__getitem__")
    return images if has_rows else list(images)


def check_array(name: str, value: Any) -> Any:
    """Returns an array of NumPy or JAX as it is, anything else as one of NumPy."""
    if isinstance(value, np.ndarray | jax.Array):
        return value
    try:
        return np.asarray(value)
    except Exception as error:  # rows of several lengths; whatever another library raises
        raise InputError(
            f"{name} cannot be made an array ({type(value).__name__}); expected rows of one length"
        ) from error


def check_floating(name: str, array: Any, wanted: str) -> None:
    """Raises InputError unless an array's dtype is floating. wanted: what was expected."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{name} are {array.dtype}{list(array.shape)}; expected {wanted}")


def check_path(name: str, value: Any) -> str | Path:
    """Returns the path of a file or folder; InputError unless it is a str or a Path."""
    if isinstance(value, str):
        check_scheme(value)
        return value
    if isinstance(value, os.PathLike):
        return as_path(value)
    raise InputError(f"{name} is {describe(value)}; expected a path (str or Path)")


def check_type(name: str, value: Any, kind: type, remedy: str) -> None:
    """Raises InputError unless a value is of a type. remedy: how one comes by such a value."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is {describe(value)}; expected a {kind.__name__}: {remedy}")


def check_flag(name: str, value: Any, *, optional: bool = False) -> None:
    """Raises InputError unless a value is True or False, or None where that is allowed."""
    if not (isinstance(value, bool | np.bool_) or (optional and value is None)):
        wanted = "True, False or None" if optional else "True or False"
        raise InputError(f"{name} is {describe(value)}; expected {wanted}")


def check_compute(compute: Any) -> Compute:
    """Returns how a model is run; InputError for anything but a Compute."""
    check_type("compute", compute, Compute, 'Compute(dtype="bfloat16"), or dtype="bfloat16"')
    return compute


def resolve_compute(compute: Compute | None, dtype: str | None) -> Compute:
    """Returns how a model is run. dtype: shorthand for Compute(dtype=dtype)."""
    short = None if dtype is None else Compute(dtype=dtype)
    if compute is None:
        return short or Compute()
    check_compute(compute)
    if short is not None and short.dtype != compute.dtype:
        raise InputError(
            f"dtype is {short.dtype!r}, but compute.dtype is {compute.dtype!r}; give one of them"
        )
    return compute


def describe(value: Any) -> str:
    """Describes a value of a wrong type in a few words: its repr if short, else its type."""
    if isinstance(value, str | bool | int | float) or value is None:
        return short_repr(value)
    if isinstance(value, np.generic):
        return f"{value} ({type(value).__name__})"
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    return f"of type {type(value).__name__}"


def _is_list(values: Any) -> bool:
    """Returns whether values have an order and a number; a mapping or set has none."""
    if isinstance(values, bytes | bytearray | memoryview | Mapping | Set):
        return False
    return isinstance(values, Iterable) or hasattr(values, "__getitem__")


def _range(least: float, most: float | None) -> str:
    if most is None or math.isinf(most):
        return f"at least {least:.15g}"
    return f"at most {most:.15g}" if math.isinf(least) else f"{least:.15g} to {most:.15g}"
