import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute, PretrainedClip
from clip_jax.model import abstract_params
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


@pytest.mark.parametrize("equation", EQUATIONS)
def test_one_row_is_what_it_is_among_others(equation):
    """On a CPU one row of bfloat16 is multiplied as two."""
    sides, out = equation.split("->")
    left = sides.split(",")[0]
    rows = [i for i, letter in enumerate(left) if letter in out]
    shape, kernel_shape = EQUATIONS[equation]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in (shape, kernel_shape))
    one = x[tuple(slice(1) if i in rows else slice(None) for i in range(x.ndim))]
    found = product(equation, one, kernel, wide=True)
    among = product(equation, x, kernel, wide=True)
    first = among[tuple(slice(1) if letter in left else slice(None) for letter in out)]
    assert found.shape == first.shape and found.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(y.astype(jnp.float32) for y in (found, first)), rtol=1e-2)
    program = jax.jit(lambda x: product(equation, x, kernel, wide=True)).lower(one)
    assert "optimization_barrier" in program.as_text()


@pytest.mark.parametrize(("asked", "wide"), [(None, True), (False, False)])
def test_loaded_models_are_wide_unless_told(small_config, monkeypatch, asked, wide):
    seen = set()

    def recorded(equation, x, kernel, wide):
        seen.add(wide)
        return product(equation, x, kernel, wide)

    shapes = abstract_params(small_config)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    monkeypatch.setattr("clip_jax.model.product", recorded)
    # Nobody else runs so many layers at once: the program is traced here.
    clip = PretrainedClip(small_config, params, compute=Compute(unroll=77, wide=asked))
    clip.encode_text(np.full((1, 3), small_config.eos_id, np.int32))
    assert seen == {wide}
