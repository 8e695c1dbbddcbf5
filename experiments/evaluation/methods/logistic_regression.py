"""Fits multinomial logistic regression by L-BFGS: the classifier of a linear probe.

Minimises C * sum of cross-entropies + 1/2 |W|^2, with the bias free, as scikit-learn's
LogisticRegression does, whose optimum the tests compare with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from optax import tree_utils

ITERATIONS = 1000  # Radford et al. 2021, A.3
# Of the greatest component of the gradient of the objective an image, over C.
TOLERANCE = 1e-7
# In float32 the gradient of some data stays above it: so many steps without a lower value end.
PATIENCE = 20
MEMORY = 10
SPREAD = 1 << 22  # numbers; fewer are quicker on one device than with sums between several


@dataclasses.dataclass(frozen=True)
class Classifier:
    """kernel: float32[D, classes]. bias: float32[classes]. steps: that L-BFGS took."""

    kernel: np.ndarray
    bias: np.ndarray
    steps: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """float32[N, classes]: logits of float32[N, D]."""
        return features @ self.kernel + self.bias


class LogisticRegressionFit:
    """Examples to fit, on the devices once for any number of penalties.

    features: float32[N, D], taken as they are. labels: int[N], 0 to classes - 1. devices: that
    the examples are split over, if they are many; None: the first.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        classes: int,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        devices = list(devices or jax.local_devices()[:1])
        devices = devices if features.size >= SPREAD else devices[:1]
        fill = -len(features) % len(devices)
        weights = np.pad(np.ones(len(features), np.float32), (0, fill))
        mesh = Mesh(np.asarray(devices), ("rows",), axis_types=(AxisType.Auto,))
        rows = NamedSharding(mesh, PartitionSpec("rows"))
        self._examples = jax.device_put(
            (
                np.pad(features.astype(np.float32), ((0, fill), (0, 0))),
                np.pad(labels.astype(np.int32), (0, fill)),
                weights,
            ),
            rows,
        )
        start = np.zeros((features.shape[1], classes), np.float32), np.zeros(classes, np.float32)
        self._start = jax.device_put(start, NamedSharding(mesh, PartitionSpec()))

    def fit(self, C: float, start: Classifier | None = None) -> Classifier:
        """The optimum for one C. start: of another C, from where it is near."""
        begin = self._start if start is None else (start.kernel, start.bias)
        begin = jax.device_put(begin, self._start[0].sharding)
        with jax.default_matmul_precision("highest"):
            (kernel, bias), steps = _minimise(begin, *self._examples, jnp.float32(C))
        return Classifier(np.asarray(kernel), np.asarray(bias), int(steps))


@jax.jit
def _minimise(
    begin: tuple[jax.Array, jax.Array],
    features: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    C: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    count = weights.sum()

    def objective(params: tuple[jax.Array, jax.Array]) -> jax.Array:
        kernel, bias = params
        logits = features @ kernel + bias
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return (losses * weights).sum() / count + jnp.square(kernel).sum() / (2 * C * count)

    solver = optax.lbfgs(memory_size=MEMORY)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def unfinished(carry: tuple) -> jax.Array:
        _, state, step, _, stalled = carry
        steepest = tree_utils.tree_norm(tree_utils.tree_get(state, "grad"), ord="inf")
        going = (steepest > TOLERANCE) & (stalled < PATIENCE) & (step < ITERATIONS)
        return (step == 0) | going

    def advance(carry: tuple) -> tuple:
        params, state, step, lowest, stalled = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        params = optax.apply_updates(params, updates)
        reached = tree_utils.tree_get(state, "value")
        stalled = jnp.where(reached < lowest, 0, stalled + 1)
        return params, state, step + 1, jnp.minimum(reached, lowest), stalled

    carry = begin, solver.init(begin), jnp.int32(0), jnp.float32(jnp.inf), jnp.int32(0)
    params, _, steps, _, _ = lax.while_loop(unfinished, advance, carry)
    return params, steps
