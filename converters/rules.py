"""Tables that map foreign tensors to parameters, used in both directions.

A rule names a source, a target and, where the shape changes, an einops pattern. The sizes of the
pattern's letters come from the target's shape, so the table alone gives the shape that each source
must have. Nothing may be left over on either side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.contiguous import copy_contiguous
from clip_jax.errors import InputError
from converters.tensor_mapping import LazyArray, Shape, TensorMapping, make_mapping
from converters.torch_unpickler import safe_repr
from converters.weights import Weights


@dataclass(frozen=True)
class Rule:
    """Map source to target; `{i}` in both stands for a layer's index.

    pattern: einops, source on the left; "" where the layout stays. Several sources are stacked to a
        new first axis before it: ('q', 'k', 'v') with 'c (h k) d -> d c h k'.
    """

    source: str | tuple[str, ...]
    target: str
    pattern: str = ""


@dataclass(frozen=True)
class Derived:
    """Describe a foreign tensor that follows from the config, so that no parameter holds it.

    value: config -> array. A conversion checks the tensor against it, an export writes it.
    export_dtype: its dtype in the export of a model that was never converted; None: left out.
    """

    source: str
    reason: str
    value: Callable[[Any], np.ndarray]
    export_dtype: str | None = None


@dataclass(frozen=True)
class Ignored:
    """Describe foreign tensors that the model does not use; no export writes them.

    source: a name, in which `*` stands for anything.
    """

    source: str
    reason: str


def resolve_rules(rules: Sequence[Rule], shapes: Mapping[str, Shape]) -> list[TensorMapping]:
    """Return the mappings that fill every parameter. shapes: path -> shape, with layers separate.

    A parameter without exactly one rule, or a rule without a parameter, is a mistake in the table:
    ValueError.
    """
    used: set[str] = set()
    mappings = []
    for target, shape in shapes.items():
        fitting = [(rule, m) for rule in rules if (m := _match(rule.target, target))]
        if len(fitting) != 1:
            raise ValueError(f"{target} has {len(fitting)} rules; expected one")
        rule, match = fitting[0]
        used.add(rule.target)
        layer = match.groupdict().get("i") or ""
        names = (rule.source,) if isinstance(rule.source, str) else rule.source
        sources = tuple(name.replace("{i}", layer) for name in names)
        mappings.append(make_mapping(sources, rule.pattern, target, tuple(shape)))
    idle = [rule.target for rule in rules if rule.target not in used]
    if idle:
        raise ValueError(f"no parameter is filled by the rules for {idle}")
    return mappings


def match_rule(rules: Sequence[Rule], target: str) -> tuple[Rule, str]:
    """Return the rule that fills a parameter, and its layer's index or "". ValueError if none."""
    for rule in rules:
        if match := _match(rule.target, target):
            return rule, match.groupdict().get("i") or ""
    raise ValueError(f"{target} has no rule")


def shapes_of(tree: Mapping[str, Any]) -> dict[str, Shape]:
    """Map path to shape for every leaf of a parameter tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): tuple(leaf.shape) for path, leaf in leaves}


def convert(
    mappings: Sequence[TensorMapping],
    derived: Sequence[Derived | Ignored],
    config: Any,
    weights: Weights,
    dtype: str,
    config_source: str,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return parameters as a nested dict of `LazyArray`, and one report entry a source tensor.

    dtype: of the parameters.
    config_source: where the shapes come from, for error messages.
    A missing or surplus tensor, a shape that contradicts the config or a derived tensor with
    another value raises InputError; a number beyond `dtype` does so when its parameter is computed.
    """
    expected = {name: mapping.source_shape for mapping in mappings for name in mapping.sources}
    skipped = _check(expected, derived, config, weights, config_source)
    params: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    for name, rule in skipped:
        entries[name] = {"skipped": rule.reason}
        if isinstance(rule, Ignored):
            entries[name]["lost"] = True  # an export cannot write it
    for mapping in mappings:
        *parents, last = mapping.target.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = LazyArray(
            mapping.target_shape, np.dtype(dtype), partial(_read, mapping, weights, np.dtype(dtype))
        )
        for name in mapping.sources:
            entries[name] = {
                "target": mapping.target,
                "target_shape": list(mapping.target_shape),
                "target_dtype": dtype,
            }
    # In the file's order, which an export keeps.
    return params, [_source_entry(name, weights) | entries[name] for name in weights.tensors]


def export(
    mappings: Sequence[TensorMapping],
    derived: Sequence[Derived | Ignored],
    config: Any,
    params: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str] | None,
) -> dict[str, LazyArray]:
    """Map source name to the tensor to write. params: path -> array, with the shapes of `mappings`.

    dtypes: source name -> dtype, for each tensor that the original file had, derived ones too;
        None for a model that had none: float32, and the derived tensors with an `export_dtype`.
    """
    if dtypes is None:
        dtypes = {name: "float32" for mapping in mappings for name in mapping.sources}
        own = [rule for rule in derived if isinstance(rule, Derived)]
        dtypes |= {rule.source: rule.export_dtype for rule in own if rule.export_dtype}
    tensors = {}
    for mapping in mappings:
        for part, name in enumerate(mapping.sources):
            dtype = np.dtype(dtypes[name])
            tensors[name] = LazyArray(
                mapping.source_shape, dtype, _part(mapping, params, part, dtype)
            )
    for name in dtypes:
        if name not in tensors:
            rule = _derived(name, derived)
            if not isinstance(rule, Derived):
                raise ValueError(f"{name} is in no table")
            value = rule.value(config).astype(dtypes[name])
            tensors[name] = LazyArray(value.shape, value.dtype, partial(np.asarray, value))
    return {name: tensors[name] for name in dtypes}


def is_derived(name: str, derived: Sequence[Derived | Ignored]) -> bool:
    return isinstance(_derived(name, derived), Derived)


def _part(
    mapping: TensorMapping, params: Mapping[str, np.ndarray], part: int, dtype: np.dtype
) -> Any:
    return lambda: mapping.to_torch(params[mapping.target])[part].astype(dtype, copy=False)


def _check(
    expected: Mapping[str, Shape],
    derived: Sequence[Derived | Ignored],
    config: Any,
    weights: Weights,
    config_source: str,
) -> list[tuple[str, Derived | Ignored]]:
    """Check that both sides are used up. Return the tensors without parameter and their rules."""
    for name, shape in expected.items():
        if name not in weights.tensors:
            raise InputError(
                f"{weights.path}: tensor {name!r} is missing; {config_source} asks for it with "
                "shape "
                f"{list(shape)}"
            )
        tensor, file = weights.tensors[name], weights.file_of(name)
        if tensor.shape != shape:
            raise InputError(
                f"{file}: tensor {name!r} has shape {list(tensor.shape)}; {config_source} asks for "
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
                f"{file}: tensor {safe_repr(name)} is surplus; {config_source} leaves no place "
                "for it"
            )
        skipped.append((name, rule))
        if isinstance(rule, Ignored):
            continue
        found, value = weights.tensors[name], rule.value(config)
        if not np.array_equal(found, value.astype(found.dtype)):
            raise InputError(f"{file}: tensor {name!r} {_contrast(found, value, config_source)}")
        weights.release(name)
    return skipped


def _derived(name: str, derived: Sequence[Derived | Ignored]) -> Derived | Ignored | None:
    return next((rule for rule in derived if _match(rule.source, name)), None)


def _contrast(found: np.ndarray, value: np.ndarray, config_source: str) -> str:
    both = f"is {_short_repr(found)}; {config_source} asks for {_short_repr(value)}"
    if not found.ndim or found.shape != value.shape:
        return both
    places = np.count_nonzero(found != value.astype(found.dtype))
    return f"{both}, and they differ in {places} of {value.size} places"


def _short_repr(array: np.ndarray) -> str:
    return str(array.item()) if array.ndim == 0 else f"{array.dtype}{list(array.shape)}"


def _read(mapping: TensorMapping, weights: Weights, dtype: np.dtype) -> np.ndarray:
    array = mapping.to_jax([weights.tensors[name] for name in mapping.sources])
    with np.errstate(over="ignore"):
        made = copy_contiguous(array, dtype)
    greatest = jnp.finfo(dtype).max
    narrower = greatest < jnp.finfo(array.dtype).max
    if narrower and not np.array_equal(np.isfinite(made), np.isfinite(array)):
        name = mapping.sources[0]
        advice = "; choose --dtype bfloat16 or float32" if dtype == np.float16 else ""
        raise InputError(
            f"{weights.file_of(name)}: tensor {name!r} holds {np.abs(array).max()}, beyond "
            f"{dtype}'s {float(greatest):.6g}{advice}"
        )
    for name in mapping.sources:
        weights.release(name)
    return made


def _source_entry(name: str, weights: Weights) -> dict[str, Any]:
    tensor = weights.tensors[name]
    return {
        "source": name,
        **({"in_file": weights.names_in_file[name]} if name in weights.names_in_file else {}),
        "file": weights.file_of(name).name,
        "source_shape": list(tensor.shape),
        "source_dtype": str(tensor.dtype),
    }


def _match(pattern: str, name: str) -> re.Match[str] | None:
    pattern = re.escape(pattern).replace(r"\{i\}", r"(?P<i>0|[1-9][0-9]*)").replace(r"\*", ".+")
    return re.fullmatch(pattern, name)
