"""Jitted `apply` of module methods, compiled once for all models of the same config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np


def jit_apply(
    module: type[nn.Module], *module_args: Any, method: str = "__call__"
) -> Callable[[Mapping[str, Any], np.ndarray | jax.Array], Any]:
    """Returns a jitted function (params, x) -> method of `module(*module_args)` on x.

    module_args: hashable; part of the compilation key, so that another model of equal arguments,
        such as the next evaluation's of a run, reuses the programs.
    """
    return partial(_apply, module, module_args, method)


def param_shapes(module: Any, config: Any, *inputs: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """Returns shapes and dtypes of the parameters of `module(config)`, traced once a process.

    Each trace would stay in JAX's caches: loading many folders would fill them.
    """
    return jax.tree.map(lambda leaf: leaf, _param_shapes(module, config, *inputs))


@lru_cache(maxsize=32)
def _param_shapes(module: Any, config: Any, *inputs: jax.ShapeDtypeStruct) -> dict[str, Any]:
    shapes: Any = jax.eval_shape(module(config).init, jax.random.key(0), *inputs)
    return dict(shapes["params"])


@partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(
    module: type[nn.Module],
    module_args: tuple[Any, ...],
    method: str,
    params: Mapping[str, Any],
    x: jax.Array,
) -> Any:
    return module(*module_args).apply({"params": params}, x, method=method)
