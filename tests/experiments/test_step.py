"""One step is the same however it is run: devices, meshes, `pmap`, micro-batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clip_jax import InputError
from experiments.config.objective import ClipSettings
from experiments.config.run import MeshConfig, OptimConfig
from experiments.objectives import make_objective
from experiments.train import check_mesh
from experiments.training import partitioning
from experiments.training.runners import RUNNERS
from experiments.training.state import initial_state, model_params, state_shardings

SLOW = pytest.mark.slow
WAYS = {
    "micro-batches": {"devices": 1, "grad_accum_steps": 4},
    "pmap": {"parallel": "pmap"},
    "8x1x1": {"mesh": MeshConfig(8, 1, 1)},
    "2x4x1": {"mesh": MeshConfig(2, 4, 1)},
    "2x2x2 in micro-batches": {"mesh": MeshConfig(2, 2, 2), "grad_accum_steps": 2},
}


def one_step(config, batch, start=None, *, devices=8, **changes):
    """(fresh or given state, parameters after a step of gradient descent, metrics)."""
    config = dataclasses.replace(config, **changes)
    mesh = partitioning.make_mesh(config.mesh, jax.devices()[:devices])
    check_mesh(config, mesh)
    objective = make_objective(config, mesh)
    optimizer = optax.sgd(1.0)
    with partitioning.mesh_context(mesh, config.parallel):
        if start is None:
            start, shardings = initial_state(config, objective, optimizer, mesh)
            start["rng"] = jax.random.key_data(start["rng"])
            start = jax.device_get(start)
        else:
            shardings = state_shardings(config, objective, optimizer, mesh)
        rng = jax.random.wrap_key_data(start["rng"])
        state = jax.device_put({**start, "rng": rng}, shardings)
        runner = RUNNERS[config.parallel](config, objective, optimizer, mesh, shardings)
        after, metrics = runner.step(state, runner.shard_batch(batch))
        return start, jax.device_get(after["params"]), jax.device_get(metrics)


def batch_of(config, rng):
    B = config.data.batch_size
    side = {"clip": 24}.get(config.objective, 8)
    batch = {"image": rng.integers(0, 256, (B, side, side, 3), dtype=np.uint8)}
    if config.objective == "clip":
        ids = rng.integers(4, 60, (B, 12), dtype=np.int32)
        ids[:, 7] = config.model.eos_id
        ids[3] = ids[5]
        batch["input_ids"] = ids
    if config.objective == "rudolph":
        ids = rng.integers(4, 24, (B, 26), dtype=np.int32)
        # Right texts of different lengths: the parts of a batch have not the same share of it.
        ids[np.arange(B)[:, None] % 5 * 2 + 15 < np.arange(26)] = 0
        batch["input_ids"] = ids
    return batch


def agree(found, expected, way):
    (_, params, metrics), (_, wanted_params, wanted) = found, expected
    assert {key: float(v) for key, v in metrics.items()} == pytest.approx(
        {key: float(v) for key, v in wanted.items()}, rel=1e-5, abs=1e-6
    )
    assert float(wanted["grad_norm"]) > 0.1
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(params),
        jax.tree.leaves(wanted_params),
        strict=True,
    ):
        atol = 3e-5 * max(float(np.abs(b).max()), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=f"{way}: {path}")


FEW = ("micro-batches", "pmap", "2x2x2 in micro-batches")
OTHERS = ("8x1x1", "2x4x1")  # 2x2x2 has both kinds of sharding, 8x1x1 is also in test_train.py


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("train_config", FEW),
        ("rudolph_train_config", FEW),
        pytest.param("train_config", OTHERS, marks=SLOW),
        pytest.param("rudolph_train_config", OTHERS, marks=SLOW),
        pytest.param("vqgan_train_config", (*FEW, *OTHERS), marks=SLOW),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:1]),
)
def test_a_step_is_the_same_however_it_is_run(name, ways, request, rng):
    """Dropout and Gumbel noise are on: each row draws the same numbers wherever it lies."""
    config = request.getfixturevalue(name)
    batch = batch_of(config, rng)
    expected = one_step(config, batch, devices=1)
    for way in ways:
        if way == "2x4x1" and config.objective == "vqgan":
            continue  # its six latent channels are not four devices' to share
        if way == "micro-batches" and config.objective == "rudolph":
            continue  # the last way has them, too
        agree(one_step(config, batch, expected[0], **WAYS[way]), expected, way)


def test_sigmoid_ring_and_patch_dropout_too(train_config, rng):
    config = dataclasses.replace(
        train_config,
        model=dataclasses.replace(train_config.model, logit_bias=True),
        settings=ClipSettings(tile=3, duplicates="masked", patch_dropout=0.5),
    )
    batch = batch_of(config, rng)
    expected = one_step(config, batch, devices=1)
    ring = dataclasses.replace(config.settings, form="ring")
    mesh = {"settings": ring, "mesh": MeshConfig(2, 2, 2), "grad_accum_steps": 2}
    agree(one_step(config, batch, expected[0], **mesh), expected, "mesh")
    tiled = {"settings": dataclasses.replace(ring, form="tiled"), "parallel": "pmap"}
    agree(one_step(config, batch, expected[0], **tiled), expected, "pmap")
    # Half of the patches are another image to the tower, and other halves at another seed.
    whole = dataclasses.replace(config.settings, patch_dropout=0.0)
    seen = one_step(config, batch, expected[0], devices=1, settings=whole)
    assert abs(float(seen[2]["loss"]) - float(expected[2]["loss"])) > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad_accum_steps": 3}, "batch_size is 16; expected a multiple of 24: 8 shards"),
        ({"parallel": "pmap", "mesh": MeshConfig(4, 2, 1)}, "'pmap' has all devices on data"),
    ],
)
def test_what_does_not_fit_the_devices(train_config, changes, message):
    config = dataclasses.replace(train_config, **changes)
    with pytest.raises(InputError, match=message):
        check_mesh(config, partitioning.make_mesh(config.mesh))


def test_a_step_without_a_finite_gradient_is_left_out(train_config, rng):
    batch = batch_of(train_config, rng)
    optim = OptimConfig(learning_rate=0.1, warmup_steps=0, skip_nonfinite=1, ema=0.5)
    config = dataclasses.replace(train_config, optim=optim)
    mesh = partitioning.make_mesh(config.mesh, jax.devices()[:1])
    objective = make_objective(config, mesh)
    broken = dataclasses.replace(
        objective,
        loss=lambda params, rows, now: (
            objective.loss(params, rows, now)[0] * jnp.where(now.step == 1, jnp.nan, 1.0),
            {},
        ),
    )
    optimizer = optax.sgd(0.1)
    with jax.set_mesh(mesh):
        state, shardings = initial_state(config, broken, optimizer, mesh)
        begun = jax.device_get(state["params"])
        runner = RUNNERS["jit"](config, broken, optimizer, mesh, shardings)
        seen = []
        for _ in range(3):
            state, metrics = runner.step(state, runner.shard_batch(batch))
            seen.append((jax.device_get(state), float(metrics["skipped"])))
    assert [skipped for _, skipped in seen] == [0, 1, 1]
    assert [int(state["step"]) for state, _ in seen] == [1, 2, 3]
    first, second, third = (state for state, _ in seen)
    halves = jax.tree.map(lambda a, b: (a + b) / 2, begun, first["params"])
    for a, b in zip(
        jax.tree.leaves(model_params(first)), jax.tree.leaves(halves), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for part in ("params", "ema"):
        for a, b in zip(
            jax.tree.leaves(first[part]), jax.tree.leaves(second[part]), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any()
        for a, b in zip(
            jax.tree.leaves(second["params"]), jax.tree.leaves(third["params"]), strict=True
        )
    )
