"""The activation of a TorchScript CLIP: the class of `mlp.gelu`, and for GELU its source."""

from __future__ import annotations

import re

from clip_jax.errors import InputError
from converters.torch_file import TorchFile
from converters.torch_unpickler import Global, Module, safe_repr

QUICK_GELU, GELU = "QuickGELU", "GELU"  # OpenAI's and open_clip's class, PyTorch's


def read(file: TorchFile, where: str) -> str | None:
    """Return our name of the activation; None where the archive has no such modules (a frozen one).

    where: the archive in errors. InputError for other classes, and for several.
    """
    kinds: set[Global] = set()
    todo = [file.script] if file.script else []
    while todo:  # `torch_file` has found its end already
        for name, child in todo.pop().attributes.items():
            if type(child) is Module:
                todo.append(child)
                if name == "gelu":
                    kinds.add(child.kind)
    found = sorted({_activation(kind, file, where) for kind in kinds})
    if len(found) > 1:
        raise InputError(f"{where}: its blocks have activations {', '.join(found)}; expected one")
    return found[0] if found else None


def _activation(kind: Global, file: TorchFile, where: str) -> str:
    if kind.name == QUICK_GELU:
        return "quick_gelu"
    if kind.name != GELU:
        raise InputError(
            f"{where}: the activation of its blocks is of class {safe_repr(kind.name)}; expected "
            f"{QUICK_GELU} or {GELU}"
        )
    source = file.code(f"code/{kind.module.replace('.', '/')}.py").partition(f"class {GELU}(")[2]
    return "gelu_tanh" if re.search(r"torch\.gelu\([^()]*\"tanh\"\)", source) else "gelu"
