"""Tables that say which foreign tensor becomes which parameter, read in both directions.

A rule names a source, a target and, where the shape changes, an einops pattern. The sizes of the
pattern's letters come from the target's shape, so the table alone gives the shape that each source
must have. Nothing may be left over on either side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import einops
import numpy as np

from clip_jax.errors import InputError
from converters.torch_unpickler import shown
from converters.weights import Weights

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """source -> target; `{i}` in both stands for a layer's number.

    pattern: einops, source on the left; "" where nothing moves. Several sources are stacked to a
    new first axis before it: ('q', 'k', 'v') with 'c (h k) d -> d c h k'.
    """

    source: str | tuple[str, ...]
    target: str
    pattern: str = ""


@dataclass(frozen=True)
class Derived:
    """A foreign tensor that follows from the config, so that we keep none.

    value: config -> array. A conversion checks the tensor against it, an export writes it.
    """

    source: str
    reason: str
    value: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Move:
    """A rule for one parameter, with every shape known."""

    sources: tuple[str, ...]
    target: str
    source_shape: Shape  # of each source
    target_shape: Shape
    pattern: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Source arrays -> parameter; a view unless there are several sources."""
        source = arrays[0] if len(arrays) == 1 else list(arrays)
        return einops.rearrange(source, self.pattern, **self.sizes) if self.pattern else arrays[0]

    def backward(self, array: np.ndarray) -> tuple[np.ndarray, ...]:
        """Parameter -> source arrays; the inverse of `forward`."""
        if not self.pattern:
            return (array,)
        left, right = self.pattern.split(" -> ")
        array = einops.rearrange(array, f"{right} -> {left}", **self.sizes)
        return (array,) if len(self.sources) == 1 else tuple(array)


@dataclass(frozen=True)
class Lazy:
    """An array that is made when it is written."""

    shape: Shape
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.make())


def plan(rules: Sequence[Rule], shapes: Mapping[str, Shape]) -> list[Move]:
    """The moves that fill every parameter. shapes: path -> shape, layers one by one.

    A parameter without exactly one rule, or a rule without a parameter, is a mistake in the table:
    ValueError.
    """
    used: set[str] = set()
    moves = []
    for target, shape in shapes.items():
        fitting = [(rule, m) for rule in rules if (m := _match(rule.target, target))]
        if len(fitting) != 1:
            raise ValueError(f"{target} has {len(fitting)} rules; expected one")
        rule, match = fitting[0]
        used.add(rule.target)
        moves.append(_move(rule, match.groupdict().get("i"), target, tuple(shape)))
    idle = [rule.target for rule in rules if rule.target not in used]
    if idle:
        raise ValueError(f"no parameter is filled by the rules for {idle}")
    return moves


def convert(
    moves: Sequence[Move],
    derived: Sequence[Derived],
    config: Any,
    weights: Weights,
    dtype: str,
    asked_by: str,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters as a nested dict, and one report entry a source tensor.

    dtype: of the parameters. asked_by: what errors name as the authority on shapes.
    Arrays whose dtype stays are views of the file. A missing or surplus tensor, a shape that
    contradicts the config or a derived tensor with another value raises InputError.
    """
    expected = {name: move.source_shape for move in moves for name in move.sources}
    skipped = _check(expected, derived, config, weights, asked_by)
    params: dict[str, Any] = {}
    entries = {name: {"skipped": reason} for name, reason in skipped}
    for move in moves:
        arrays = [weights.tensors[name] for name in move.sources]
        leaf = _cast(move.forward(arrays), np.dtype(dtype), move, weights)
        *parents, last = move.target.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
        for name in move.sources:
            entries[name] = {
                "target": move.target,
                "target_shape": list(leaf.shape),
                "target_dtype": str(leaf.dtype),
            }
    # In the file's order, which an export keeps.
    return params, [_source_entry(name, weights) | entries[name] for name in weights.tensors]


def export(
    moves: Sequence[Move],
    derived: Sequence[Derived],
    config: Any,
    params: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str] | None,
) -> dict[str, Lazy]:
    """Source name -> tensor to be written. params: path -> array, of the shapes in `moves`.

    dtypes: source name -> dtype, for each tensor that the original file had, derived ones too;
    None for a model that had none: float32, and no derived tensors.
    """
    tensors = {}
    for move in moves:
        for part, name in enumerate(move.sources):
            dtype = np.dtype("float32" if dtypes is None else dtypes[name])
            tensors[name] = Lazy(move.source_shape, dtype, _part(move, params, part, dtype))
    for name in dtypes or ():
        if name not in tensors:
            value = _derived(name, derived).value(config).astype(dtypes[name])
            tensors[name] = Lazy(value.shape, value.dtype, lambda value=value: value)
    return tensors if dtypes is None else {name: tensors[name] for name in dtypes}


def is_derived(name: str, derived: Sequence[Derived]) -> bool:
    return _derived(name, derived) is not None


def _part(move: Move, params: Mapping[str, np.ndarray], part: int, dtype: np.dtype) -> Any:
    return lambda: move.backward(params[move.target])[part].astype(dtype, copy=False)


def _check(
    expected: Mapping[str, Shape],
    derived: Sequence[Derived],
    config: Any,
    weights: Weights,
    asked_by: str,
) -> list[tuple[str, str]]:
    """Both sides are used up. Returns the derived tensors that are there, with the reason."""
    for name, shape in expected.items():
        if name not in weights.tensors:
            raise InputError(
                f"{weights.path}: tensor {name!r} is missing; {asked_by} asks for it with shape "
                f"{list(shape)}"
            )
        tensor, file = weights.tensors[name], weights.file_of(name)
        if tensor.shape != shape:
            raise InputError(
                f"{file}: tensor {name!r} has shape {list(tensor.shape)}; {asked_by} asks for "
                f"{list(shape)}"
            )
        if tensor.dtype.name not in ("float32", "float64", "float16", "bfloat16"):
            raise InputError(f"{file}: tensor {name!r} is {tensor.dtype}; expected floating point")
    skipped = []
    for name in weights.tensors:
        if name in expected:
            continue
        rule = _derived(name, derived)
        file = weights.file_of(name)
        if rule is None:
            raise InputError(
                f"{file}: tensor {shown(name)} is surplus; {asked_by} leaves no place for it"
            )
        found, value = weights.tensors[name], rule.value(config)
        if found.shape != value.shape or not np.array_equal(found, value.astype(found.dtype)):
            raise InputError(
                f"{file}: tensor {name!r} is {_brief(found)}; {asked_by} asks for {_brief(value)}"
            )
        skipped.append((name, rule.reason))
    return skipped


def _derived(name: str, derived: Sequence[Derived]) -> Derived | None:
    return next((rule for rule in derived if _match(rule.source, name)), None)


def _brief(array: np.ndarray) -> str:
    return str(array.item()) if array.ndim == 0 else f"{array.dtype}{list(array.shape)}"


def _cast(array: np.ndarray, dtype: np.dtype, move: Move, weights: Weights) -> np.ndarray:
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype == np.float16 and not np.array_equal(np.isfinite(cast), np.isfinite(array)):
        name = move.sources[0]
        raise InputError(
            f"{weights.file_of(name)}: tensor {name!r} holds {np.abs(array).max()}, beyond "
            "float16's 65504; choose --dtype bfloat16 or float32"
        )
    return cast


def _source_entry(name: str, weights: Weights) -> dict[str, Any]:
    tensor = weights.tensors[name]
    return {
        "source": name,
        "file": weights.file_of(name).name,
        "source_shape": list(tensor.shape),
        "source_dtype": str(tensor.dtype),
    }


def _match(pattern: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(pattern).replace(r"\{i\}", r"(?P<i>0|[1-9][0-9]*)"), name)


def _move(rule: Rule, layer: str | None, target: str, target_shape: Shape) -> Move:
    names = (rule.source,) if isinstance(rule.source, str) else rule.source
    sources = tuple(name.replace("{i}", layer or "") for name in names)
    if not rule.pattern:
        return Move(sources, target, target_shape, target_shape)
    left, right = (_axes(side) for side in rule.pattern.split(" -> "))
    letters = [letter for axis in right for letter in axis]
    if len(letters) != len(target_shape) or any(len(axis) != 1 for axis in right):
        raise ValueError(f"{target}: {rule.pattern!r} does not name each axis of {target_shape}")
    sizes = dict(zip(letters, target_shape, strict=True))
    source_shape = tuple(math.prod(sizes[letter] for letter in axis) for axis in left)
    if len(sources) > 1:
        if source_shape[0] != len(sources):
            raise ValueError(f"{target}: {len(sources)} sources, but {rule.pattern!r}")
        source_shape = source_shape[1:]
    return Move(sources, target, source_shape, target_shape, rule.pattern, sizes)


def _axes(side: str) -> list[list[str]]:
    """'(h k) d' -> [['h', 'k'], ['d']]"""
    return [token.strip("()").split() for token in re.findall(r"\([^)]*\)|\S+", side)]
