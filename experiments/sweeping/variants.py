"""Variants of a sweep: a config and its overrides, from a grid or an experiment file."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from clip_jax.errors import InputError
from experiments.config.run import TrainConfig, flatten

LONGEST_NAME = 200  # file systems take 255 bytes


@dataclasses.dataclass(frozen=True)
class Variant:
    """name: by which tables call it. overrides: key -> value. config: with these, of any seed."""

    name: str
    overrides: Mapping[str, Any]
    config: TrainConfig

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.=,+-]", "_", self.name)


def parse_grid(texts: Sequence[str], base: TrainConfig) -> dict[str, dict[str, Any]]:
    """The product of "KEY=VALUE,VALUE" as name -> overrides, the last key changing fastest.

    Values are parsed by the key's type: tuples are written as Python does, `("a", "b"),()`.
    """
    flat, choices = flatten(base.to_dict()), {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals:
            raise InputError(f"--grid is {text!r}; expected KEY=VALUE,VALUE")
        if key in choices:
            raise InputError(f"--grid names {key} twice; give all its values in one")
        choices[key] = _parse_values(values, _usual(flat, key))
        if not choices[key]:
            raise InputError(f"--grid {key} has no values; expected {key}=VALUE,VALUE")
    found = {}
    for values in itertools.product(*choices.values()):
        overrides = dict(zip(choices, values, strict=True))
        name = describe(overrides)
        if name in found:
            raise InputError(f"--grid holds {name} twice")
        found[name] = overrides
    return found


def make_variants(base: TrainConfig, named: Mapping[str, Mapping[str, Any]]) -> list[Variant]:
    """named: name -> {key: value}. Keys and values that no run could use raise InputError."""
    flat, variants, folders = flatten(base.to_dict()), [], {}
    for name, overrides in named.items():
        for key, value in overrides.items():
            _expect_type(key, value, _usual(flat, key))
        try:
            variant = Variant(name, dict(overrides), _replaced(base, overrides))
        except InputError as error:
            raise InputError(f"variant {name}: {error}") from error
        folder = variant.folder
        if folder in folders:
            raise InputError(f"variants {folders[folder]!r} and {name!r} both need folder {folder}")
        if not 0 < len(folder.encode()) <= LONGEST_NAME or not folder.strip("."):
            raise InputError(
                f"variant {name!r}: cannot name a folder; expected 1 to {LONGEST_NAME} bytes, "
                "which an experiment file's get_sweep() can give"
            )
        folders[folder] = name
        variants.append(variant)
    if not variants:
        raise InputError("the sweep has no variants; expected at least one")
    return variants


def describe(overrides: Mapping[str, Any]) -> str:
    """{"a.b": 1, "c": "x"} -> "a.b=1,c=x" """
    return ",".join(f"{key}={value}" for key, value in overrides.items())


def _usual(flat: Mapping[str, Any], key: str) -> Any:
    """The base config's value of a key that a sweep may change."""
    if key == "seed":
        raise InputError("config.seed is not for a sweep to override; --seeds says how many")
    if key not in flat:
        near = difflib.get_close_matches(key, flat, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"unknown key {key} in the sweep{hint}")
    return flat[key]


def _parse_values(text: str, usual: Any) -> list[Any]:
    if not text.strip():
        return []
    words = [word.strip() for word in text.split(",")]
    if isinstance(usual, str):
        return words
    if isinstance(usual, bool):
        known = {"true": True, "false": False}
        return [known.get(word.lower(), word) for word in words]
    try:
        return ast.literal_eval(f"[{text}]")
    except (SyntaxError, ValueError):
        return words  # which are of the wrong type, and the error will show them


def _expect_type(key: str, value: Any, usual: Any) -> None:
    fits = isinstance(value, type(usual)) and isinstance(value, bool) == isinstance(usual, bool)
    fits |= isinstance(usual, float) and type(value) is int
    fits |= isinstance(usual, tuple) and isinstance(value, list)
    if not fits:
        raise InputError(
            f"the sweep sets {key} to {value!r} ({type(value).__name__}); expected "
            f"{type(usual).__name__}, such as {usual!r}"
        )


def _replaced(base: TrainConfig, overrides: Mapping[str, Any]) -> TrainConfig:
    data = base.to_dict()
    for key, value in overrides.items():
        *parents, last = key.split(".")
        part = data
        for parent in parents:
            part = part[parent]
        part[last] = value
    return TrainConfig.from_dict(data, base.extensions)
