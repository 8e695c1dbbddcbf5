"""Names of parameters, with a number for each layer of those that lie stacked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from clip_jax.errors import InputError

STACK = "layers"


def path_str(path: Sequence[Any]) -> str:
    """A path of a tree of dicts, joined by "/"."""
    return "/".join(str(key.key) for key in path)


def layer_names(path: Sequence[Any], leaf: Any) -> list[str]:
    """["visual/layers/0/mlp/in_bias", ...] of a stacked leaf, one name of any other."""
    keys = [str(key.key) for key in path]
    if STACK not in keys:
        return ["/".join(keys)]
    place = keys.index(STACK) + 1
    return ["/".join([*keys[:place], str(i), *keys[place:]]) for i in range(leaf.shape[0])]


def match_patterns(params: Any, patterns: Sequence[str], key: str) -> Any:
    """bool[layers] (of leaves that are not stacked, [1]) for each leaf: which names match whole.

    key: of the config, for the InputError that a pattern raises which names nothing.
    """
    used: set[str] = set()

    def match(path: Sequence[Any], leaf: Any) -> np.ndarray:
        found = []
        for name in layer_names(path, leaf):
            hits = {pattern for pattern in patterns if re.fullmatch(pattern, name)}
            used.update(hits)
            found.append(bool(hits))
        return np.array(found)

    matched = jax.tree_util.tree_map_with_path(match, params)
    for pattern in patterns:
        if pattern not in used:
            some = [layer_names(p, x)[0] for p, x in jax.tree_util.tree_leaves_with_path(params)]
            raise InputError(
                f"config.{key} has {pattern!r}, which names no parameter; names are such as "
                f"{', '.join(some[:3])}"
            )
    return matched
