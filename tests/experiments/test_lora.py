"""Low-rank updates: what trains, what it costs, and that the merged model is the trained one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import InputError
from experiments.config.optimizer import LoraConfig
from experiments.config.run import OptimConfig
from experiments.objectives import make_objective
from experiments.training.lora import merge_lora, with_lora
from experiments.training.optimizer import make_optimizer
from experiments.training.partitioning import make_mesh
from experiments.training.runners import RUNNERS
from experiments.training.state import initial_state

LORA = LoraConfig(rank=2, alpha=8.0, kernels=(r"visual/.*attention/.*_kernel", "text/projection"),
                  train=("logit_scale",))  # fmt: skip


@pytest.fixture
def made(train_config):
    optim = OptimConfig(learning_rate=0.05, warmup_steps=0, weight_decay=0.0, lora=LORA)
    config = dataclasses.replace(train_config, optim=optim)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    return config, with_lora(make_objective(config, mesh), LORA), mesh


def test_a_step_trains_the_pairs_and_what_is_named(made, rng):
    config, objective, mesh = made
    optimizer = make_optimizer(config.optim, 10)
    state, shardings = initial_state(config, objective, optimizer, mesh)
    runner = RUNNERS["jit"](config, objective, optimizer, mesh, shardings)
    before = jax.device_get(state["params"])
    ids = rng.integers(4, 60, (16, 12), dtype=np.int32)
    ids[:, 7] = config.model.eos_id
    batch = {"image": rng.integers(0, 256, (16, 24, 24, 3), dtype=np.uint8), "input_ids": ids}
    for _ in range(2):
        state, _ = runner.step(state, runner.shard_batch(batch))
    after = jax.device_get(state["params"])
    moved = {
        "/".join(key.key for key in path)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if (a != b).any()
    }
    kernels = ("visual/layers/attention/qkv_kernel", "visual/layers/attention/out_kernel",
               "text/projection")  # fmt: skip
    assert moved == {"base/logit_scale"} | {f"lora/{k}/{p}" for k in kernels for p in "ab"}
    # Adam holds two moments of what trains, and nothing of the rest.
    trainable_mask = sum(x.size for x in jax.tree.leaves(after["lora"])) + 1
    held = sum(x.size for x in jax.tree.leaves(state["opt_state"]))
    assert 2 * trainable_mask <= held <= 2 * trainable_mask + 4


def test_begins_as_the_model_was_and_merges_by_hand(made, rng):
    _, objective, _ = made
    params = jax.jit(objective.init)(jax.random.key(0))
    merged = merge_lora(params, LORA)
    for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(params["base"]), strict=True):
        np.testing.assert_array_equal(a, b)
    pair = params["lora"]["visual"]["layers"]["attention"]["out_kernel"]
    pair["b"] = jnp.asarray(rng.normal(size=pair["b"].shape), jnp.float32)
    merged = merge_lora(params, LORA)["visual"]["layers"]["attention"]["out_kernel"]
    base = params["base"]["visual"]["layers"]["attention"]["out_kernel"]
    for layer in range(base.shape[0]):
        product = 4.0 * np.asarray(pair["a"][layer]) @ np.asarray(pair["b"][layer])
        expected = np.asarray(base[layer]) + product.reshape(base.shape[1:])
        np.testing.assert_allclose(merged[layer], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (("nothing/.*",), "lora.kernels has 'nothing/.*', which names no parameter"),
        (("text/token_embedding",), "names text/token_embedding; expected kernels of"),
    ],
)
def test_kernels_that_cannot_be(made, train_config, kernels, message):
    objective = make_objective(train_config, made[2])
    with pytest.raises(InputError, match=message):
        with_lora(objective, dataclasses.replace(LORA, kernels=kernels))
