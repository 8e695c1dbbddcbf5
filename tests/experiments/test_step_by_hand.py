"""A step of a linear regression against its gradient by hand, for each option of a step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clip_jax.per_example_rng import per_example_keys
from experiments.config.optimizer import OptimConfig
from experiments.objectives.objective import Objective
from experiments.training.state import fresh_state
from experiments.training.step import SIGNAL, make_train_step

ROWS, RATE, DEVICES = 16, 0.1, 4
START = {"kernel": np.float32([1.0, -2.0, 0.5]), "bias": np.float32(0.25)}


def loss(params, batch, now):
    assert set(batch) == {"x", "y"}  # signals are no input
    error = batch["x"] @ params["kernel"] + params["bias"] - batch["y"]
    noise = jax.vmap(jax.random.uniform)(now.keys).mean()
    return jnp.square(error).mean(), {"absolute": jnp.abs(error).mean(), "noise": noise}


OBJECTIVE = Objective(
    abstract_params=jax.eval_shape(lambda: START),
    init=lambda rng: jax.tree.map(jnp.asarray, START),
    loss=loss,
    sharding_rules=(),
    examples=None,
    pretrained=None,
)


@pytest.fixture
def batch(rng):
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return {"x": x, "y": rng.normal(size=ROWS).astype(np.float32)}


@pytest.fixture
def configured(train_config):
    def make(grad_accum_steps=1, **optim):
        assert train_config.data.batch_size == ROWS
        optim = OptimConfig(**optim)
        return dataclasses.replace(train_config, optim=optim, grad_accum_steps=grad_accum_steps)

    return make


def start_of(config):
    return fresh_state(config, OBJECTIVE, optax.sgd(RATE), jax.random.key(0))


def run(config, batch, state=None, objective=OBJECTIVE, over_devices=False):
    """Takes a step: (state, metrics). over_devices: by pmap, of which the first's are returned."""
    state = start_of(config) if state is None else state
    axis = "data" if over_devices else None
    step = make_train_step(config, objective, optax.sgd(RATE), axis)
    if not over_devices:
        return jax.jit(step)(state, batch)
    parts = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), batch)
    mapped = jax.pmap(step, axis, in_axes=(None, 0), devices=jax.devices()[:DEVICES])
    return jax.tree.map(lambda x: x[0], mapped(state, parts))


def by_hand(batch, params=START):
    """(loss, mean absolute error, gradients) in float64."""
    x, y = (np.asarray(batch[name], np.float64) for name in ("x", "y"))
    error = x @ params["kernel"] + params["bias"] - y
    gradients = {"kernel": 2 * error @ x / ROWS, "bias": 2 * error.mean()}
    return np.square(error).mean(), np.abs(error).mean(), gradients


WAYS = [(1, False), (2, False), (4, False), (1, True), (2, True)]


@pytest.mark.parametrize(("parts", "over_devices"), WAYS)
def test_a_step_of_gradient_descent(batch, configured, parts, over_devices):
    state, metrics = run(configured(parts), batch, over_devices=over_devices)
    value, absolute, gradients = by_hand(batch)
    for name, gradient in gradients.items():
        expected = START[name] - RATE * gradient
        np.testing.assert_allclose(state["params"][name], expected, rtol=1e-5)
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients.values()))
    expected = {"loss": value, "absolute": absolute, "grad_norm": norm, "skipped": 0}
    assert {name: float(metrics[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert set(metrics) == {*expected, "noise"}
    assert state["step"] == 1 and set(state) == {"params", "opt_state", "step", "rng", "skipped"}
    # Each row draws its own number, the same in any part and on any device.
    rng = jax.random.fold_in(start_of(configured())["rng"], 0)
    numbers = jax.vmap(jax.random.uniform)(per_example_keys(rng, jnp.arange(ROWS)))
    np.testing.assert_allclose(metrics["noise"], numbers.mean(), rtol=1e-6)


def test_each_step_draws_other_numbers(batch, configured):
    state, first = run(configured(), batch)
    _, second = run(configured(), batch, state)
    _, again = run(configured(), batch, {**state, "step": jnp.int32(0)})
    assert first["noise"] != second["noise"] and again["noise"] == first["noise"]


def test_averages_follow_slowly(batch, configured):
    config = configured(ema=0.9)
    state, _ = run(config, batch)
    for name, start in START.items():
        expected = 0.9 * start + 0.1 * state["params"][name]
        np.testing.assert_allclose(state["ema"][name], expected, rtol=1e-6)
    assert "ema" not in run(configured(), batch)[0]


@pytest.mark.parametrize("over_devices", [False, True])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_step_without_a_finite_loss_is_left_out_if_asked(batch, configured, ema, over_devices):
    broken = {**batch, "y": batch["y"].copy()}
    broken["y"][5] = np.inf
    config = configured(skip_nonfinite=3, ema=ema)
    before = start_of(config)
    state, metrics = run(config, broken, before, over_devices=over_devices)
    for name in {"params", "ema"} & set(before):
        jax.tree.map(np.testing.assert_array_equal, state[name], before[name])
    assert state["step"] == 1 and state["skipped"] == metrics["skipped"] == 1
    state, metrics = run(config, batch, state, over_devices=over_devices)
    assert state["skipped"] == metrics["skipped"] == 1
    assert (state["params"]["kernel"] != START["kernel"]).all()
    found, _ = run(configured(skip_nonfinite=0, ema=ema), broken, over_devices=over_devices)
    assert not np.isfinite(found["params"]["kernel"]).any() and found["skipped"] == 0


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is(batch, configured):
    def steep(params, batch, now):
        value, metrics = loss(params, batch, now)
        return value + jnp.sqrt(jnp.abs(params["bias"] - START["bias"])), metrics

    objective = dataclasses.replace(OBJECTIVE, loss=steep)
    state, metrics = run(configured(skip_nonfinite=3), batch, objective=objective)
    assert np.isfinite(metrics["loss"]) and not np.isfinite(metrics["grad_norm"])
    assert state["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, state["params"], START)


@pytest.mark.parametrize("over_devices", [False, True])
def test_the_largest_signal_of_all_rows_is_passed_on(batch, configured, over_devices):
    signals = np.arange(ROWS, dtype=np.int32) % 11
    found = run(configured(), {**batch, SIGNAL: signals}, over_devices=over_devices)[1]
    assert found[SIGNAL] == 10


def test_frozen_parameters_stay(batch, configured):
    state, metrics = run(configured(freeze=("kernel",)), batch)
    *_, gradients = by_hand(batch)
    np.testing.assert_array_equal(state["params"]["kernel"], START["kernel"])
    np.testing.assert_allclose(
        state["params"]["bias"], START["bias"] - RATE * gradients["bias"], rtol=1e-5
    )
    assert float(metrics["grad_norm"]) == pytest.approx(abs(gradients["bias"]), rel=1e-5)
