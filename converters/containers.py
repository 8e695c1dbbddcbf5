"""Find state dicts in the files of training programs: `{"model": ..., "optimizer": ..., ...}`.

One state dict is taken from the entries of CONTAINERS, at any depth. NON_WEIGHT_ENTRIES are never
searched. Where two entries hold weights (a model and its moving average), none is chosen silently:
`--entry` names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_jax.errors import InputError
from converters.torch_unpickler import Tensor, safe_repr

# Entries that hold a model's weights, and who writes them.
CONTAINERS = {
    "state_dict": "Lightning, open_clip, timm",
    "model": "many training programs",
    "model_state_dict": "PyTorch's tutorials",
    "model_state": "several training programs",
    "module": "DeepSpeed",
    "net": "several training programs",
    "weights": "several training programs",
    "params": "BasicSR",
    # Moving averages of the weights.
    **dict.fromkeys(("ema", "model_ema", "ema_model", "ema_state_dict"), "a moving average"),
    **dict.fromkeys(("state_dict_ema", "model_ema_state_dict", "params_ema"), "a moving average"),
}
# Entries that hold none: states of optimisers, schedules and generators, settings.
NON_WEIGHT_ENTRIES = frozenset(
    {
        *("optimizer", "optimizers", "optimizer_state_dict", "optimizer_state", "optimizer_states"),
        *("optim", "lr_scheduler", "lr_schedulers", "scheduler", "scheduler_state_dict"),
        *("scaler", "grad_scaler", "amp", "callbacks", "loops", "rng_state", "rng_states"),
        *("hyper_parameters", "hparams", "args", "config", "cfg", "settings", "metadata"),
    }
)
MAX_DEPTH = 6
MAX_ENTRIES = 20_000


@dataclass(frozen=True)
class FoundStateDict:
    """Hold a state dict of a file.

    entry: its keys in the file, joined by dots; "" for the whole file.
    left_out: the other entries.
    """

    entry: str
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...] = ()


def find_state_dict(content: Any, where: str, entry: str | None = None) -> FoundStateDict:
    """Return the state dict in an unpickled object.

    where: the file in errors.
    entry: name of one of several. InputError where there is none, or more than one.
    """
    if type(content) is not dict:
        raise InputError(f"{where}: holds a {type(content).__name__}; expected a state dict")
    if entry is None and all(type(value) is Tensor for value in content.values()):
        return FoundStateDict("", _check_tensors(content, "", where))
    found: dict[tuple[str, ...], dict[Any, Any]] = {}
    passed: list[tuple[str, ...]] = []
    _search(content, (), found, passed, where)
    if entry is None and not found:
        return FoundStateDict(
            "", _check_tensors(content, "", where)
        )  # which names what is no tensor
    paths = sorted(found, key=lambda path: (len(path), path))
    chosen = paths if entry is None else [path for path in paths if ".".join(path) == entry]
    if entry is not None and not chosen:  # the entry around a state dict names it too
        chosen = [path for path in paths if ".".join(path).startswith(f"{entry}.")]
    if len(chosen) != 1:
        held = ", ".join(safe_repr(".".join(path)) for path in paths[:8] if path) or "none"
        hint = (
            f"add --entry={safe_repr('.'.join(paths[-1]))[1:-1]}" if any(paths) else "leave it out"
        )
        raise InputError(
            f"{where}: has no state dict {safe_repr(entry)}; it holds {held}; {hint}"
            if entry is not None and not chosen
            else f"{where}: holds {len(chosen)} state dicts, {held}, and one is to be taken; {hint}"
        )
    (path,) = chosen
    name = ".".join(path)
    if entry is None and path and path[-1] not in CONTAINERS:
        raise InputError(
            f"{where}: its only state dict is the entry {safe_repr(name)}, which no known training "
            f"program writes; add --entry={safe_repr(name)[1:-1]} to take it"
        )
    siblings = (other for other in passed if other != path[: len(other)])
    outermost = [other for other in siblings if other[:-1] == path[: len(other) - 1]]
    return FoundStateDict(
        name, _check_tensors(found[path], name, where), tuple(map(".".join, outermost))
    )


def _search(
    node: dict[Any, Any],
    path: tuple[str, ...],
    found: dict[tuple[str, ...], dict[Any, Any]],
    passed: list[tuple[str, ...]],
    where: str,
) -> None:
    """Put every state dict at or below `node` into `found`, the entries above into `passed`."""
    if _is_state_dict(node, path):
        found[path] = node
        return
    for key, value in node.items():
        inner = (*path, str(key))
        passed.append(inner)
        if len(passed) > MAX_ENTRIES:
            raise InputError(
                f"{where}: its entries nest without end, at {safe_repr('.'.join(inner))}"
            )
        if type(value) is dict and str(key) not in NON_WEIGHT_ENTRIES and len(path) < MAX_DEPTH:
            _search(value, inner, found, passed, where)


def _is_state_dict(node: dict[Any, Any], path: tuple[str, ...]) -> bool:
    """Return whether it holds tensors as a module's: under CONTAINERS, or with dotted names.

    One that also holds other values counts, so that a damaged one is not skipped.
    """
    names = [name for name, value in node.items() if type(value) is Tensor]
    if path and path[-1] in CONTAINERS and not any(type(v) is dict for v in node.values()):
        return bool(names)
    return any(type(name) is str and "." in name for name in names)


def _check_tensors(node: dict[Any, Any], entry: str, where: str) -> dict[str, Tensor]:
    place = f" of {safe_repr(entry)}" if entry else ""
    for name, value in node.items():
        if type(name) is not str or type(value) is not Tensor:
            raise InputError(
                f"{where}: entry {safe_repr(name)}{place} is a {type(value).__name__}, not a "
                "tensor; "
                "expected a state dict or {'state_dict': ...}"
            )
    return node
