"""Names of tensors as training programs save them, and the canonical names of their kind.

PyTorch's wrappers and the attributes of a training module put components before a model's own
names. Each is removed by a rule of the two tables below, and only where all tensors share it: a
checkpoint that holds names with and without it holds two things, or is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clip_jax.errors import InputError
from converters.signatures import FULL_VQGAN_SIGNATURE, SIGNATURES
from converters.torch_unpickler import safe_repr

# Components that no model has itself, wherever they stand in a name: a submodule may be wrapped.
WRAPPERS = {
    "module": "DataParallel, DistributedDataParallel or DeepSpeed",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
# First components that a model may have itself; removed only where a signature of its kind follows.
ATTRIBUTES = {
    "model": "the model's attribute in a LightningModule",
    "net": "the model's attribute in a training module",
    "clip": "the model's attribute in a training module",
}
MAX_COMPONENTS = 64  # deeper than any model's names; a hostile file may have more


@dataclass(frozen=True)
class AppliedRule:
    """Record a rule that changed names.

    rule: the removed prefix.
    tensors: how many names had it.
    """

    rule: str
    origin: str
    tensors: int

    def to_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "origin": self.origin, "tensors": self.tensors}


@dataclass(frozen=True)
class CanonicalNames:
    """Hold canonical names.

    names: name in the file -> canonical name, in the file's order.
    left_out: the other names.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[AppliedRule, ...] = ()
    left_out: tuple[str, ...] = ()


def canonicalize(names: Iterable[str], where: str, prefix: str | None = None) -> CanonicalNames:
    """Apply the rules to all names of a checkpoint.

    where: the file in errors.
    prefix: only names below it are taken, and it is removed; matched against the names in the file
        or, where none begins with it, without WRAPPERS.
    InputError for a prefix that only some names have, and for an unknown one.
    """
    current = {name: name for name in names}
    taken, rules = dict(current), list[AppliedRule]()
    if prefix is not None:
        prefix = prefix if prefix.endswith(".") else prefix + "."
        if not any(name.startswith(prefix) for name in current):
            taken, rules = _unwrap(current, where)
        below = {raw: name for raw, name in taken.items() if name.startswith(prefix)}
        if not below:
            raise InputError(
                f"{where}: no tensor name begins with {safe_repr(prefix)}; they begin with "
                f"{_first_components(taken.values())}"
            )
        taken = {raw: name.removeprefix(prefix) for raw, name in below.items()}
        rules = [*rules, AppliedRule(prefix, "--prefix", len(taken))]
    taken, unwrapped = _unwrap(taken, where)
    taken, detached = _detach(taken, where)
    left_out = tuple(raw for raw in current if raw not in taken)
    return CanonicalNames(taken, (*rules, *unwrapped, *detached), left_out)


def _unwrap(names: Mapping[str, str], where: str) -> tuple[dict[str, str], list[AppliedRule]]:
    """Remove every component in WRAPPERS that all names of a module share."""
    parts = {raw: name.split(".") for raw, name in names.items()}
    removed: dict[str, set[int]] = {raw: set() for raw in names}
    todo = [(list(names), 0)]  # names that have so many first components in common
    while todo:
        together, depth = todo.pop()
        groups: dict[str | None, list[str]] = {}
        for raw in together:
            inner = depth < len(parts[raw]) - 1  # the last component is a parameter's own name
            groups.setdefault(parts[raw][depth] if inner else None, []).append(raw)
        wrapper = next((key for key in groups if key in WRAPPERS), None)
        if wrapper is not None:
            if len(groups) > 1:
                example = next(raw for raw in together if raw not in groups[wrapper])
                at = parts[example][:depth]
                bare = len(removed[example]) == depth
                _raise_mixed_names(where, at, wrapper, groups[wrapper], together, example, bare)
            for raw in together:
                removed[raw].add(depth)
        if depth < MAX_COMPONENTS:
            todo.extend((group, depth + 1) for key, group in groups.items() if key is not None)
    counts = dict.fromkeys(WRAPPERS, 0)
    for raw, places in removed.items():
        for component in {parts[raw][place] for place in places}:
            counts[component] += 1
    applied = [AppliedRule(f"{c}.", WRAPPERS[c], count) for c, count in counts.items() if count]
    bared = {
        raw: ".".join(part for place, part in enumerate(parts[raw]) if place not in removed[raw])
        for raw in names
    }
    return bared, applied


def _raise_mixed_names(
    where: str,
    parents: list[str],
    wrapper: str,
    having: list[str],
    together: list[str],
    example: str,
    bare: bool,
) -> None:
    prefix = ".".join([*parents, wrapper, ""])
    advice = (
        f"add --prefix={prefix} to take only the former"
        if bare
        else "save the state_dict() of the module without its wrapper"
    )
    below = f" below {safe_repr('.'.join(parents))}" if parents else ""
    raise InputError(
        f"{where}: {len(having)} of {len(together)} tensor names{below} begin with "
        f"{safe_repr(prefix)} ({WRAPPERS[wrapper]}), and {safe_repr(example)} does not; {advice}"
    )


def _detach(names: dict[str, str], where: str) -> tuple[dict[str, str], list[AppliedRule]]:
    """Remove what precedes the signature of a kind, by the rules of ATTRIBUTES."""
    held = set(names.values())
    found = [signature for signature in SIGNATURES if signature in held]
    whole = FULL_VQGAN_SIGNATURE.partition(".")[0] + "."
    if found == [FULL_VQGAN_SIGNATURE]:
        if all(name.startswith(whole) for name in held):
            reason = "the names of a whole VQGanGumbelVAE; not removed, for export"
            return names, [AppliedRule(whole, reason, 0)]
        prefixes = [whole]
    elif found:
        return names, []
    else:
        prefixes = _prefixes_before_signatures(held)
    if not prefixes:
        return names, []  # no kind that is known; `require_kind` says so
    prefix = prefixes[0]
    having = [name for name in names.values() if name.startswith(prefix)]
    components = prefix.removesuffix(".").split(".")
    shared = len(prefixes) == 1 and len(having) == len(names)
    if shared and all(component in ATTRIBUTES for component in components):
        rules = [AppliedRule(f"{c}.", ATTRIBUTES[c], len(names)) for c in components]
        return {raw: name.removeprefix(prefix) for raw, name in names.items()}, rules
    other = next((name for name in names.values() if not name.startswith(prefix)), None)
    but = f", and {safe_repr(other)} does not" if other is not None else ""
    either = " or ".join(f"--prefix={safe_repr(p)[1:-1]}" for p in prefixes[:4])
    raise InputError(
        f"{where}: {len(having)} of {len(names)} tensor names begin with {safe_repr(prefix)}{but}; "
        f"add {either} to take only those below it"
    )


def _prefixes_before_signatures(names: set[str]) -> list[str]:
    """Return the prefixes before a signature. The longest counts, since one ends in another."""
    signatures = sorted(SIGNATURES, key=len, reverse=True)
    found = {
        name.removesuffix(signature)
        for name in names
        for signature in [
            next((signature for signature in signatures if name.endswith(f".{signature}")), None)
        ]
        if signature is not None
    }
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _first_components(names: Iterable[str]) -> str:
    firsts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return safe_repr(firsts) if firsts else "nothing"
