import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import PRESETS, InputError
from clip_jax.model import abstract_params
from experiments.config.optimizer import OPTIMIZERS, LoraConfig, OptimConfig, check_optim
from experiments.training.optimizer import BASE_OPTIMIZERS, decay_mask, make_optimizer


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


def test_decay_alone_shrinks_kernels_and_spares_biases():
    config = OptimConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    optimizer = make_optimizer(config, 100)
    params = {"in_kernel": jnp.ones((2, 2)), "in_bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["in_kernel"], -0.05, rtol=1e-6)  # in float32
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


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        # First steps: Adam's and Lion's are signs; a factored second moment of a rank-one square
        # is exact, so Adafactor's is the sign too.
        ("adamw", [[1, -1], [1, -1]]),
        ("lion", [[1, -1], [1, -1]]),
        ("adafactor", [[1, -1], [1, -1]]),
    ],
)
def test_first_steps(optimizer, expected):
    config = OptimConfig(
        optimizer=optimizer, schedule="constant", learning_rate=0.1, warmup_steps=0,
        weight_decay=0.0, epsilon=1e-12,
    )  # fmt: skip
    made = make_optimizer(config, 100)
    params = {"kernel": jnp.zeros((256, 256))}
    size = jnp.array([[1.0, -2.0], [3.0, -6.0]])
    grads = {"kernel": jnp.tile(size, (128, 128))}
    update = made.update(grads, made.init(params), params)[0]["kernel"]
    np.testing.assert_allclose(update[:2, :2], -0.1 * np.array(expected), rtol=1e-3)


def test_moments_in_bfloat16_and_factored_ones_are_small():
    params = {"kernel": jnp.zeros((256, 512))}
    sizes = {}
    for name, changes in {
        "adamw": {}, "half": {"moment_dtype": "bfloat16"}, "adafactor": {"optimizer": "adafactor"},
    }.items():  # fmt: skip
        state = jax.eval_shape(make_optimizer(OptimConfig(**changes), 10).init, params)
        sizes[name] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    kernel = 256 * 512 * 4
    assert sizes["adamw"] == pytest.approx(2 * kernel, rel=1e-3)
    assert sizes["half"] == pytest.approx(1.5 * kernel, rel=1e-3)
    assert sizes["adafactor"] < 0.02 * kernel


def test_adafactor_s_updates_are_at_most_one_in_the_root_mean_square():
    """Shazeer and Stern 2018, section 6: a gradient far above those before it is cut to 1."""
    config = OptimConfig(
        optimizer="adafactor", schedule="constant", learning_rate=0.1, warmup_steps=0,
        weight_decay=0.0,
    )  # fmt: skip
    made, params = make_optimizer(config, 100), {"kernel": jnp.zeros((130, 130))}
    state, noise = made.init(params), jax.random.normal(jax.random.key(0), (130, 130))
    for size in [1e-3] * 9 + [1.0]:
        updates, state = jax.jit(made.update)({"kernel": size * noise}, state, params)
        root = float(jnp.sqrt(jnp.square(updates["kernel"]).mean()))
        assert root <= 0.1 * 1.001
    assert root == pytest.approx(0.1, rel=1e-3)


def test_layer_decay_and_frozen_layers():
    params = {
        "visual": {
            "class_embedding": jnp.ones(2),
            "layers": {"mlp": {"in_kernel": jnp.ones((3, 2, 2))}},
            "projection": jnp.ones((2, 2)),
        },
        "logit_scale": jnp.ones(()),
    }
    config = OptimConfig(
        schedule="constant", learning_rate=1.0, warmup_steps=0, weight_decay=0.0,
        layer_decay=0.5, freeze=("visual/layers/0/.*",),
    )  # fmt: skip
    optimizer = make_optimizer(config, 10)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    visual = updates["visual"]
    np.testing.assert_allclose(visual["class_embedding"], -(0.5**4), rtol=1e-4)
    np.testing.assert_allclose(
        visual["layers"]["mlp"]["in_kernel"][:, 0, 0], [0, -0.25, -0.5], rtol=1e-4
    )
    np.testing.assert_allclose(visual["projection"], -1, rtol=1e-4)
    np.testing.assert_allclose(updates["logit_scale"], -1, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [-1, -1, -1]),
        ({"layer_decay": 0.5}, [-0.125, -0.25, -0.5]),
        ({"freeze": ("visual/layers/1/.*",)}, [-1, 0, -1]),
    ],
)
def test_layer_decay_and_frozen_layers_each_alone(changes, expected):
    config = OptimConfig(
        schedule="constant", learning_rate=1.0, warmup_steps=0, weight_decay=0.0, **changes
    )
    params = {"visual": {"layers": {"mlp": {"in_kernel": jnp.ones((3, 2, 2))}}}}
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    kernel = updates["visual"]["layers"]["mlp"]["in_kernel"]
    np.testing.assert_allclose(kernel[:, 0, 0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"clip_norm": 0.0}, 3),
        ({"clip_norm": 1.0}, 4),
        ({"clip_norm": 0.0, "layer_decay": 0.9}, 4),
        ({"clip_norm": 1.0, "freeze": ("visual/.*",)}, 5),
    ],
)
def test_the_state_has_a_part_for_each_thing_asked_for(changes, parts):
    """Checkpoints hold the parts by number: one more would make the earlier ones unreadable."""
    state = make_optimizer(OptimConfig(**changes), 10).init({"kernel": jnp.zeros((2, 2))})
    assert len(state) == parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "config.optim.optimizer is 'sgd'; expected one of adamw"),
        ({"freeze": ("(",)}, r"config.optim.freeze has '\(', which is no pattern"),
        ({"freeze": ("a",), "lora": LoraConfig(rank=2)}, "are both set"),
        ({"ema": 1.0}, "config.optim.ema is 1.0"),
    ],
)
def test_values_that_no_run_could_use(changes, message):
    with pytest.raises(InputError, match=message):
        check_optim(OptimConfig(**changes))


def test_every_optimizer_that_a_config_may_name_has_a_function_of_its_own():
    assert tuple(BASE_OPTIMIZERS) == OPTIMIZERS
    assert len(set(BASE_OPTIMIZERS.values())) == len(OPTIMIZERS)
    with pytest.raises(KeyError, match="typo"):
        make_optimizer(OptimConfig(optimizer="typo"), 10)
