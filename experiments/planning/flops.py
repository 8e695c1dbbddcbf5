"""Floating-point operations of matrix products and convolutions, counted from a traced function.

XLA's own account of a compiled program counts the body of a loop once, however often it runs
(https://github.com/openxla/xla, `hlo_cost_analysis`); here a scan counts its length times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


def matmul_flops(jaxpr: Any) -> float:
    """Returns the FLOPs of one run over all devices; a multiply-add counts two.

    jaxpr: as `jax.jit(f).trace(...).jaxpr` has it. Branches count as the costliest of them. The
    body of a loop whose length is not known before it runs counts once.
    """
    return sum(_equation(equation) for equation in _open(jaxpr).eqns)


def _equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(
            left[axis] for axis in contracted
        )
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / outputs
    if name == "cond":
        return max(matmul_flops(branch) for branch in params["branches"])
    inner = sum(matmul_flops(part) for part in _inner(params))
    if name == "scan":
        return params["length"] * inner
    # Its body is one device's.
    return params["mesh"].size * inner if name == "shard_map" else inner


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(_open(part), "eqns"):
                yield part


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)
