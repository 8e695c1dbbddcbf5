"""Checks the values of config dataclasses against the types and ranges that their fields state.

    layers: Annotated[int, Meta(ge=1, le=1000)]

msgspec compares value and type: true is no integer, an integer is a float. Numbers are finite, and
every integer fits into 64 bits, also where a type states no range.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clip_jax.errors import InputError

INT64 = 2**63
Size = Annotated[int, Meta(ge=1, le=1 << 16)]  # widths, heads, channels
WideSize = Annotated[int, Meta(ge=1, le=1 << 20)]  # between the two products of an MLP
Layers = Annotated[int, Meta(ge=1, le=1000)]
Rows = Annotated[int, Meta(ge=1, le=1 << 22)]  # of a vocabulary or codebook
Id = Annotated[int, Meta(ge=0, lt=1 << 22)]
Pixels = Annotated[int, Meta(ge=1, le=1 << 14)]  # a side
Tokens = Annotated[int, Meta(ge=1, le=1 << 13)]  # a text's; masks have the square of it
Epsilon = Annotated[float, Meta(gt=0, lt=1)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Mean = Annotated[tuple[float, float, float], Meta(description="three numbers")]
_Deviation = Annotated[float, Meta(gt=0)]
Deviations = Annotated[
    tuple[_Deviation, _Deviation, _Deviation], Meta(description="three positive numbers")
]
_Channel = Annotated[int, Meta(ge=0, le=255)]
Background = Annotated[  # RGB
    tuple[_Channel, _Channel, _Channel] | None,
    Meta(description="null or three integers from 0 to 255"),
]


# Metadata of a field that holds functions, `dataclasses.field(metadata=FUNCTIONS)`: it is neither
# checked nor saved.
FUNCTIONS = {"functions": True}


def plain_dict(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as nested dicts of plain data, without fields of functions."""
    cls: Any = type(config)
    values = {name: getattr(config, name) for name in _field_types(cls)}
    return {
        name: plain_dict(value) if dataclasses.is_dataclass(value) else value
        for name, value in values.items()
    }


def check_fields(config: Any, prefix: str = "") -> None:
    """Raises InputError, which names the field, unless each value of a dataclass has its type.

    prefix: put before names, such as "vision.".
    """
    cls: Any = type(config)
    for name, kind in _field_types(cls).items():
        value = getattr(config, name)
        if _is_dataclass_type(kind):
            if not isinstance(value, kind):
                raise InputError(f"{prefix}{name} is {short_repr(value)}; expected an object")
            check_fields(value, f"{prefix}{name}.")
        else:
            check_value(f"{prefix}{name}", value, kind)


def check_value(name: str, value: Any, kind: Any) -> None:
    """Raises InputError unless a value has the type. name: the value's, in the error."""
    if not _fits(value, kind):
        verb = "are" if _is_tuple(kind) and name.endswith("s") else "is"
        raise InputError(f"{name} {verb} {short_repr(value)}; expected {describe_type(kind)}")


def check_mapping(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Checks each value that has a type, for foreign configs. where: put before names."""
    for name, kind in kinds.items():
        if name in values:
            check_value(f"{where}{name}", values[name], kind)


def describe_type(kind: Any) -> str:
    """Describes a type in words, for errors: "a positive integer up to 1000"."""
    metas = _metas(kind)
    given = next((meta.description for meta in metas if meta.description), None)
    if given:
        return given
    base = _base(kind)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        options = [describe_type(part) for part in typing.get_args(base) if part is not type(None)]
        null = ["null"] * (type(None) in typing.get_args(base))
        return " or ".join([*null, *options])
    if typing.get_origin(base) is tuple:
        return f"a list, each {describe_type(typing.get_args(base)[0])}"
    if base is int:
        return _describe_integer(metas)
    if base is float:
        return _describe_number(metas)
    return {bool: "true or false", str: "a text"}.get(base, "an object")


def short_repr(value: Any) -> str:
    """Formats a value on one line of at most some 80 characters, however long or nested it is."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}..."
    if isinstance(value, bool | float) or value is None:
        return repr(value)
    if isinstance(value, int):
        digits = value.bit_length() * 3 // 10
        return repr(value) if digits <= 40 else f"an integer of some {digits} digits"
    if isinstance(value, list | tuple):
        start, end = "[]" if isinstance(value, list) else "()"
        nested = any(isinstance(item, list | tuple) for item in value[:4])
        items = ["..."] if nested else [short_repr(item) for item in value[:4]]
        items += ["..."] * (len(value) > 4)
        comma = "," if end == ")" and len(items) == 1 else ""
        return f"{start}{', '.join(items)}{comma}{end}"
    return f"of type {type(value).__name__}"


@functools.cache
def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = (f for f in dataclasses.fields(cls) if not f.metadata.get("functions"))
    return {field.name: hints[field.name] for field in fields}


def _is_dataclass_type(kind: Any) -> bool:
    """Returns whether a type is a dataclass or a union of dataclasses."""
    parts = typing.get_args(kind) or (kind,)
    return all(dataclasses.is_dataclass(part) for part in parts)


def _fits(value: Any, kind: Any) -> bool:
    # A list would make the frozen config unhashable; `config_from_dict` makes tuples of JSON's.
    if not _is_plain(value) or (_is_tuple(kind) and isinstance(value, list)):
        return False
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -INT64 <= value < INT64
    return value is None or isinstance(value, str)


def _is_tuple(kind: Any) -> bool:
    base = _base(kind)
    return any(typing.get_origin(part) is tuple for part in (base, *typing.get_args(base)))


def _base(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _metas(kind: Any) -> list[Meta]:
    extras = getattr(kind, "__metadata__", ())
    return [extra for extra in extras if isinstance(extra, Meta)]


def _describe_integer(metas: list[Meta]) -> str:
    least = next((m.ge for m in metas if m.ge is not None), None)
    most = next((m.le for m in metas if m.le is not None), None)
    most = next((int(m.lt) - 1 for m in metas if m.lt is not None), most)
    upto = "" if most is None else f" up to {most}"
    if least in (0, 1):
        return f"{'0 or ' if least == 0 else ''}a positive integer{upto}"
    return "an integer" if least is None else f"an integer from {least}{upto}"


def _describe_number(metas: list[Meta]) -> str:
    words = []
    for meta in metas:
        above = [f"from {meta.ge:g}"] if meta.ge is not None else []
        above += [f"above {meta.gt:g}"] if meta.gt is not None else []
        below = [f"up to {meta.le:g}"] if meta.le is not None else []
        below += [f"below {meta.lt:g}"] if meta.lt is not None else []
        words += above + below
    return " ".join(["a number", *words[:1], *(f"and {word}" for word in words[1:])])
