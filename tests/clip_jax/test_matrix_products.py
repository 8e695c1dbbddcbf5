"""Linear maps with several axes: as products of matrices off the CPU, with the same values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import cpu
from clip_jax.linear import linear

EQUATIONS = {
    "BTD,DcHK->BTcHK": ((2, 5, 6), (6, 3, 2, 4)),
    "BTHK,HKD->BTD": ((2, 5, 2, 4), (2, 4, 6)),
    "BHTK,HKD->BTD": ((2, 2, 5, 4), (2, 4, 6)),  # not the last axes: no product of matrices
    "BT,TF->BF": ((1, 6), (6, 4)),
}
ONE_ROW = {  # by the axes that are rows: all of them 1, or the first alone
    "BTD,DF->BTF": ((1, 1, 6), (6, 4)),
    "BTHK,HKD->BTD": ((1, 1, 2, 4), (2, 4, 6)),
    "BHTK,HKD->BTD": ((1, 2, 1, 4), (2, 4, 6)),
}


class Map(nn.Module):
    equation: str
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        return linear(self, "in", self.equation, x, self.shape, nn.initializers.normal(1.0))


@pytest.mark.parametrize(
    ("equation", "shapes"), [*EQUATIONS.items(), *ONE_ROW.items()]
)
def test_each_form_has_the_same_values_and_gradients(equation, shapes):
    x_shape, shape = shapes
    x = jax.random.normal(jax.random.key(0), x_shape)
    model = Map(equation, shape)
    params = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        model.init(jax.random.key(0), x),
    )

    def loss(params, x):
        return jnp.sin(model.apply(params, x)).sum()

    found = {}
    for forms in (True, False):
        with cpu.forms(forms):
            found[forms] = model.apply(params, x), *jax.grad(loss, (0, 1))(params, x)
    expected = jnp.einsum(equation, x, params["params"]["in_kernel"]) + params["params"]["in_bias"]
    np.testing.assert_allclose(found[False][0], expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(found[True]), jax.tree.leaves(found[False]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_tpus_program_multiplies_matrices():
    """Heads and their size as axes of a product would be padded to whole tiles."""
    x_shape, shape = EQUATIONS["BTD,DcHK->BTcHK"]
    model = Map("BTD,DcHK->BTcHK", shape)
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
    with cpu.forms(False):
        params = jax.eval_shape(model.init, jax.random.key(0), x)
        traced = jax.jit(model.apply).trace(params, x)
    (product,) = (
        line
        for line in traced.lower(lowering_platforms=("tpu",)).as_text().splitlines()
        if "dot_general" in line
    )
    assert "tensor<6x24xf32>" in product and "tensor<2x5x24xf32>" in product


@pytest.mark.parametrize(("rows", "multiplied"), [((1, 1), 8), ((1, 5), 5), ((2, 1), 2)])
def test_a_single_row_is_multiplied_with_rows_of_zeros(rows, multiplied):
    """A product of one row would be compiled as a sum, element by element."""
    model = Map("BTD,DF->BTF", (6, 4))
    x = jax.ShapeDtypeStruct((*rows, 6), jnp.float32)
    with cpu.forms(False):
        params = jax.eval_shape(model.init, jax.random.key(0), x)
        traced = jax.jit(model.apply).trace(params, x)
    (product,) = (
        line for line in traced.jaxpr.jaxpr.pretty_print().split("\n") if "dot_general" in line
    )
    sizes = [int(size) for size in product.split("f32[")[1].split("]")[0].split(",")]
    assert np.prod(sizes) == multiplied * 4
