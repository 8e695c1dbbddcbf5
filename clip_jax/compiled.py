"""A module's methods, compiled once for all models of the same config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np


def compiled(
    module: type[nn.Module], *settings: Any, method: str = "__call__"
) -> Callable[[Mapping[str, Any], np.ndarray | jax.Array], Any]:
    """(parameters, input) -> what a method of `module(*settings)` makes of the input.

    settings: hashable. A model that is made anew of the same ones, as each evaluation of a run
    does, finds the programs of the one before.
    """
    return partial(_apply, module, settings, method)


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
    settings: tuple[Any, ...],
    method: str,
    params: Mapping[str, Any],
    x: jax.Array,
) -> Any:
    return module(*settings).apply({"params": params}, x, method=method)
