"""Check a foreign config against checkpoint headers, before a model of its sizes is traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from clip_jax.errors import InputError
from clip_jax.leading_shapes import Leading
from converters.rules import Rule, match_rule
from converters.tensor_mapping import make_mapping
from converters.weights import Weights


def check_header_shapes(
    weights: Weights,
    rules: Sequence[Rule],
    leading: Leading,
    config_source: str,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raise InputError unless the tensors of some parameters have the shapes of the config.

    config_source: where the shapes come from, for error messages.
    fields: of our config -> of the foreign config.
    """
    for path, sizes in leading.items():
        rule, layer = match_rule(rules, path)
        shape = tuple(sizes.values())
        names = (rule.source,) if isinstance(rule.source, str) else rule.source
        sources = tuple(name.replace("{i}", layer) for name in names)
        # An axis that leading shapes leave out is one that another parameter has.
        mapping = make_mapping(sources, rule.pattern, path, shape) if len(shape) > 1 else None
        for name in sources:
            _check(
                weights,
                name,
                mapping.source_shape if mapping else shape,
                sizes,
                config_source,
                fields,
            )


def with_foreign_field(error: InputError, fields: Mapping[str, str]) -> str:
    """Return the error's message and, if it begins with a field of our config, the foreign name."""
    theirs = fields.get(str(error).partition(" ")[0])
    return f"{error} (from {theirs})" if theirs else str(error)


def _check(
    weights: Weights,
    name: str,
    expected: tuple[int, ...],
    sizes: Mapping[str, int],
    config_source: str,
    fields: Mapping[str, str],
) -> None:
    ours = [part for name in sizes for part in name.split(" + ")]
    theirs = ", ".join(dict.fromkeys(fields.get(part, part) for part in ours))
    if name not in weights.tensors:
        raise InputError(
            f"{weights.path}: tensor {name!r} is missing; {config_source} asks for it with "
            f"shape {list(expected)} ({theirs})"
        )
    found = tuple(weights.tensors[name].shape)
    if found[: len(expected)] != expected:
        wanted = list(expected) + list(found[len(expected) :])
        raise InputError(
            f"{weights.file_of(name)}: tensor {name!r} has shape {list(found)}; {config_source} "
            "asks "
            f"for {wanted} ({theirs})"
        )
