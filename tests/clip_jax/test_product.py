import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.product import product

EQUATIONS = {
    "BTD,DcHK->BTcHK": ((2, 3, 8), (8, 3, 2, 4)),
    "BTHK,HKD->BTD": ((2, 3, 2, 4), (2, 4, 8)),
    "BnPmQC,PQCD->BnmD": ((2, 2, 4, 2, 4, 3), (4, 4, 3, 8)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_wide_changes_neither_values_nor_gradients(equation, dtype):
    keys = jax.random.split(jax.random.key(0))
    x, kernel = (
        jax.random.normal(key, shape, jnp.float32).astype(dtype)
        for key, shape in zip(keys, EQUATIONS[equation], strict=True)
    )

    def run(wide):
        y, gradients = jax.vjp(lambda x, kernel: product(equation, x, kernel, wide), x, kernel)
        return y, *gradients(jnp.cos(y))

    for narrow, wide in zip(run(False), run(True), strict=True):
        assert wide.dtype == dtype and wide.shape == narrow.shape
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(
            wide.astype(jnp.float32), narrow.astype(jnp.float32), rtol=tolerance, atol=tolerance * 4
        )


def test_bfloat16_is_multiplied_as_it_lies_both_ways():
    """Every product takes bfloat16 and sums in float32; none turns a side into float32 first."""
    equation = "BTHK,HKD->BTD"
    x, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in EQUATIONS[equation])

    def loss(x, kernel):
        return product(equation, x, kernel, wide=True).astype(jnp.float32).sum()

    program = str(jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel).jaxpr)
    assert program.count("preferred_element_type=float32") == 3 == program.count("dot_general")
