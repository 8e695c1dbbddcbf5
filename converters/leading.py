"""A foreign config against the headers of its checkpoint, before a model of its sizes is traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from clip_jax.errors import InputError
from clip_jax.leading_shapes import Leading
from converters.moves import make_move
from converters.rules import Rule, match_rule
from converters.weights import Weights


def check_leading(
    weights: Weights,
    rules: Sequence[Rule],
    leading: Leading,
    asked_by: str,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raises InputError unless the tensors of some parameters have the shapes of the config.

    asked_by: what errors name as the authority on shapes. fields: of our config -> of the foreign.
    """
    for path, sizes in leading.items():
        rule, layer = match_rule(rules, path)
        shape = tuple(sizes.values())
        names = (rule.source,) if isinstance(rule.source, str) else rule.source
        sources = tuple(name.replace("{i}", layer) for name in names)
        # An axis that leading shapes leave out is one that another parameter has.
        move = make_move(sources, rule.pattern, path, shape) if len(shape) > 1 else None
        for name in sources:
            _check(weights, name, move.source_shape if move else shape, sizes, asked_by, fields)


def with_field(error: InputError, fields: Mapping[str, str]) -> str:
    """The error's message and, where it begins with a field of our config, the foreign name."""
    theirs = fields.get(str(error).partition(" ")[0])
    return f"{error} (from {theirs})" if theirs else str(error)


def _check(
    weights: Weights,
    name: str,
    expected: tuple[int, ...],
    sizes: Mapping[str, int],
    asked_by: str,
    fields: Mapping[str, str],
) -> None:
    ours = [part for name in sizes for part in name.split(" + ")]
    theirs = ", ".join(dict.fromkeys(fields.get(part, part) for part in ours))
    if name not in weights.tensors:
        raise InputError(
            f"{weights.path}: tensor {name!r} is missing; {asked_by} asks for it with "
            f"shape {list(expected)} ({theirs})"
        )
    found = tuple(weights.tensors[name].shape)
    if found[: len(expected)] != expected:
        wanted = list(expected) + list(found[len(expected) :])
        raise InputError(
            f"{weights.file_of(name)}: tensor {name!r} has shape {list(found)}; {asked_by} asks "
            f"for {wanted} ({theirs})"
        )
