import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import PRESETS
from clip_jax.model import abstract_params
from experiments.config import OptimConfig
from experiments.optim import decay_mask, make_optimizer, make_schedule


def test_what_decays():
    mask = decay_mask(abstract_params(PRESETS["tiny"]))
    decayed = {
        "/".join(key.key for key in path)
        for path, value in jax.tree_util.tree_leaves_with_path(mask)
        if value
    }
    layer = {"attention/qkv_kernel", "attention/out_kernel", "mlp/in_kernel", "mlp/out_kernel"}
    both = {f"{t}/layers/{name}" for t in ("visual", "text") for name in layer} | {
        f"{t}/{name}" for t in ("visual", "text") for name in ("projection", "position_embedding")
    }
    assert decayed == both | {"visual/patch_embedding/kernel", "text/token_embedding"}


def test_schedule():
    schedule = make_schedule(OptimConfig(learning_rate=0.5, warmup_steps=10, final=0.1), 110)
    rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.275, 0.05, 0.05], atol=1e-6)


def test_decay_alone_shrinks_kernels_and_spares_biases():
    config = OptimConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    optimizer = make_optimizer(config, 100)
    params = {"in_kernel": jnp.ones((2, 2)), "in_bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["in_kernel"], -0.05)
    np.testing.assert_allclose(updates["in_bias"], 0)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_clipping_by_global_norm(clip_norm):
    """Two gradients of one direction give Adam the same step, unless clipping sees them first."""
    config = OptimConfig(learning_rate=1.0, warmup_steps=0, epsilon=1.0, clip_norm=clip_norm)
    optimizer = make_optimizer(config, 100)
    params = {"bias": jnp.zeros(2)}
    large, small = ({"bias": jnp.array([3.0, 4.0]) * s} for s in (10.0, 1.0))
    steps = [optimizer.update(g, optimizer.init(params), params)[0]["bias"] for g in (large, small)]
    assert bool(jnp.allclose(*steps)) == bool(clip_norm)
