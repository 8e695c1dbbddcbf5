import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute
from clip_jax.activation import ACTIVATIONS
from clip_jax.fused import force_kernel
from clip_jax.layers import stack_layers, unstack_layers
from clip_jax.per_example_rng import per_example_keys
from rudolph_jax import Rudolph
from rudolph_jax.layout import BOS, Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.model import group_layers


@pytest.fixture(scope="module")
def params(tiny_config, tiny_params):
    return tiny_params(tiny_config)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def apply_model(config, params, ids, compute, stacked):
    return Rudolph(config, compute, stacked).apply({"params": params}, ids)


def logits_of(config, params, ids, compute=Compute(), stacked=True):
    return np.asarray(apply_model(config, params, ids, compute, stacked))


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradient_of(config, compute, params, ids):
    return jax.grad(
        lambda p: Rudolph(config, compute).apply({"params": p}, ids).std()
    )(params)


def test_layers_stacked_or_one_by_one_give_the_same(tiny_config, params, tiny_ids):
    expected = logits_of(tiny_config, params, tiny_ids)
    found = logits_of(tiny_config, unstack_layers(params), tiny_ids, stacked=False)
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("compute", [Compute(remat="block"), Compute(remat="dots", unroll=4)])
def test_rematerialising_and_unrolling_change_nothing(tiny_config, params, tiny_ids, compute):
    found = gradient_of(tiny_config, compute, params, tiny_ids)
    expected = gradient_of(tiny_config, Compute(), params, tiny_ids)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


def test_each_position_sees_what_the_masks_allow_and_nothing_else(tiny_config, tiny_params):
    """By gradients: with two layers, what is reached in two steps of the masks."""
    config = dataclasses.replace(tiny_config, layers=2)
    layout, model = Layout(config), Rudolph(config)
    params = tiny_params(config)

    @jax.jit
    def jacobian(x):
        def logits(x):
            y = model.apply({"params": params}, x, None, method="_run_layers")
            return y[0].sum(axis=-1)

        return jax.jacobian(logits)(x)

    assert layer_mask_types(config) == ("row", "column")
    allowed = [mask(config, mask_type) for mask_type in ("row", "column")]
    x = jax.random.normal(jax.random.key(0), (1, layout.sequence_length, config.width))
    reached = np.abs(np.asarray(jacobian(x))[:, 0]).max(axis=-1) > 1e-9
    np.testing.assert_array_equal(reached, (allowed[1].astype(int) @ allowed[0]) > 0)


def test_left_padding_has_an_id_of_its_own_at_each_position(tiny_config, params, tiny_ids):
    layout = Layout(tiny_config)
    spelled = tiny_ids.copy()
    for place in range(layout.left.stop):
        column = spelled[:, place]
        column[column == 0] = layout.text_pad_offset + place
    np.testing.assert_array_equal(
        logits_of(tiny_config, params, tiny_ids), logits_of(tiny_config, params, spelled)
    )


def test_embeddings_learn_at_a_tenth_of_the_rate(tiny_config, params, tiny_ids):
    def gradient(scale):
        config = dataclasses.replace(tiny_config, embedding_gradient_scale=scale)
        return gradient_of(config, Compute(), params, tiny_ids)

    slow, full = gradient(0.1), gradient(1.0)
    for name in ("text_embedding", "image_embedding", "image_row_embedding"):
        np.testing.assert_allclose(slow[name], 0.1 * full[name], rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(slow["head"]["kernel"], full["head"]["kernel"], rtol=1e-3, atol=1e-8)


def test_pb_relax_and_stacked_norms_are_where_the_config_says(tiny_config, tiny_params, tiny_ids):
    plain = dataclasses.replace(tiny_config, sandwich_norm=False)
    params = tiny_params(plain)
    assert not any("out_norm" in name for name in params["layers"])
    relaxed = logits_of(plain, params, tiny_ids)
    unrelaxed = logits_of(dataclasses.replace(plain, pb_relax=False), params, tiny_ids)
    np.testing.assert_allclose(relaxed, unrelaxed, atol=5e-5)  # a matter of rounding alone


def test_pb_relax_keeps_large_float16_scores_finite(tiny_config, tiny_params, tiny_ids):
    params = tiny_params(tiny_config)
    params["layers"]["attention_norm"]["scale"] *= 100
    found = logits_of(tiny_config, params, tiny_ids, Compute(dtype="float16"))
    assert np.isfinite(found).all()


def test_dropout_needs_a_key_and_spares_the_embeddings(tiny_config, params, tiny_ids):
    model = Rudolph(tiny_config)

    keys = per_example_keys(jax.random.key(1), jnp.arange(len(tiny_ids)))

    @jax.jit
    def run(key):
        return model.apply(
            {"params": params}, tiny_ids, per_example_keys(key, jnp.arange(len(tiny_ids)))
        )

    first, again = run(jax.random.key(1)), run(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - run(jax.random.key(2))).max() > 1e-2
    assert np.abs(first - logits_of(tiny_config, params, tiny_ids)).max() > 1e-2
    off = Rudolph(dataclasses.replace(tiny_config, attention_dropout=0.0, output_dropout=0.0))
    np.testing.assert_allclose(  # two programs: one takes keys
        jax.jit(off.apply)({"params": params}, tiny_ids, keys),
        logits_of(off.config, params, tiny_ids),
        atol=5e-5,
    )


def test_each_layer_drops_on_its_own(tiny_config, params, tiny_ids):
    """Checks layers with equal parameters, which one key for all would drop alike."""
    config = dataclasses.replace(tiny_config, attention_dropout=0.0, output_dropout=0.5)
    run = jax.jit(functools.partial(Rudolph(config).apply, method="hidden_states"))
    states = run(
        {"params": params},
        tiny_ids,
        per_example_keys(jax.random.key(0), jnp.arange(len(tiny_ids))),
    )
    assert len({np.asarray(state).tobytes() for state in states}) == config.layers


def test_both_gelus():
    x = jnp.float32([-1.0, 0.5, 2.0])
    tanh = 0.5 * x * (1 + jnp.tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x)))
    np.testing.assert_allclose(ACTIVATIONS["gelu_tanh"](x), tanh, atol=1e-6)
    exact = 0.5 * x * (1 + jax.scipy.special.erf(x / jnp.sqrt(2.0)))
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), exact, atol=1e-6)
    assert np.abs(tanh - exact).max() > 1e-5


def test_bos_prefix_comes_before_the_text_and_costs_the_last_place(tiny_config, tiny_params):
    """ruDALL-E v2: one BOS first, and what would stand beyond the masks is cut."""
    config = dataclasses.replace(tiny_config, right_text_length=0, bos_prefix=True)
    layout, params = Layout(config), tiny_params(config)
    ids = np.full((1, layout.sequence_length), 5, np.int32)
    assert logits_of(config, params, ids[:, :3]).shape[1] == 4
    assert logits_of(config, params, ids).shape[1] == layout.sequence_length
    x = jax.jit(functools.partial(Rudolph(config).apply, method="embed"))({"params": params}, ids)
    bos = params["text_embedding"][BOS] + params["left_position_embedding"][0]
    np.testing.assert_allclose(x[0, 0], bos, atol=1e-6)
    first = params["text_embedding"][5] + params["left_position_embedding"][1]
    np.testing.assert_allclose(x[0, 1], first, atol=1e-6)


@pytest.mark.parametrize(
    "layers, order, expected",
    [
        (24, "rudolph", (4, 5)),  # the last of six groups ends in last_conv
        (12, "rudalle", (4, 2)),
        (24, "causal", (1, 24)),
        (3, "rudolph", (1, 0)),
        (9, "rudolph", (4, 2)),
        (10, "rudolph", (4, 2)),
    ],
)
def test_groups_repeat_and_leave_few_layers_over(tiny_config, layers, order, expected):
    config = dataclasses.replace(tiny_config, layers=layers, mask_order=order)
    types = layer_mask_types(config)
    size, groups = group_layers(types)
    assert (size, groups) == expected
    assert types[: size * groups] == types[:size] * groups


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def loss_and_gradient(config, remat, stacked, params, ids, keys):
    def loss(params):
        model = Rudolph(config, Compute(remat=remat), stacked)
        return jnp.sin(model.apply({"params": params}, ids, keys)).sum()

    return jax.value_and_grad(loss)(params)


@pytest.fixture(scope="module")
def single_layers(tiny_config, tiny_params, tiny_ids):
    """Makes a config, parameters, and the loss and gradients of layers one by one."""

    @functools.cache
    def make(layers, order):
        config = dataclasses.replace(
            tiny_config, layers=layers, mask_order=order, attention_dropout=0.2, output_dropout=0.2
        )
        params, keys = tiny_params(config), jax.random.split(jax.random.key(5), len(tiny_ids))
        given = unstack_layers(params)
        loss, grads = loss_and_gradient(config, "none", False, given, tiny_ids, keys)
        return config, params, keys, loss, stack_layers(grads)

    return make


# Two groups of four layers and one layer more; three groups of one.
NINE, THREE = (9, "rudolph"), (3, "causal")


@pytest.mark.parametrize(
    ("layers", "remat", "stacked"),
    [
        (NINE, "none", True),
        (THREE, "block", True),
        (THREE, "dots", True),
        *(
            pytest.param(NINE, remat, stacked, marks=pytest.mark.slow)
            for remat in ("block", "dots")
            for stacked in (True, False)
        ),
    ],
)
def test_groups_of_layers_compute_what_single_layers_do(
    tiny_ids, single_layers, layers, remat, stacked
):
    """Compares outputs and gradients with dropout, whose draws follow from a layer's number."""
    config, params, keys, expected, wanted = single_layers(*layers)
    assert group_layers(layer_mask_types(config))[1] > 1
    given = params if stacked else unstack_layers(params)
    loss, grads = loss_and_gradient(config, remat, stacked, given, tiny_ids, keys)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    grads = grads if stacked else stack_layers(grads)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_hidden_states_of_groups_are_those_of_single_layers(tiny_ids, single_layers):
    config, params, *_ = single_layers(*NINE)

    def states(stacked, params):
        run = jax.jit(functools.partial(Rudolph(config, stacked=stacked).apply,
                                        method="hidden_states"))  # fmt: skip
        return run({"params": params}, tiny_ids)

    np.testing.assert_allclose(
        states(True, params), states(False, unstack_layers(params)), atol=1e-5
    )


@pytest.fixture(scope="module")
def wide(tiny_config, tiny_params):
    """A config that fused kernels fit, with its loss: (config, params, gradient)."""
    config = dataclasses.replace(
        tiny_config, image_tokens_per_side=11, attention_dropout=0.0, output_dropout=0.1,
        width=128, heads=2,
    )  # fmt: skip
    ids = np.random.default_rng(0).integers(
        1, 10, (2, Layout(config).sequence_length), dtype=np.int32
    )
    keys = jax.random.split(jax.random.key(1), 2)

    def gradient(config, compute=Compute()):
        def loss(params):
            # Linear in the logits: a curved loss would magnify the rounding of many layers.
            logits = Rudolph(config, compute).apply({"params": params}, ids, keys)
            return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum()

        return jax.jit(jax.value_and_grad(loss))

    return config, tiny_params(config), gradient


@pytest.fixture(scope="module")
def unfused(wide):
    config, params, gradient = wide
    return gradient(config)(params)


def all_scores(config):
    T = Layout(config).sequence_length
    return f"tensor<2x{config.heads}x{T}x{T}xf32>"


@pytest.mark.parametrize("kernel", ["splash", "single_block"])
def test_attention_is_fused_where_no_weight_is_dropped(wide, unfused, kernel):
    """Dropout of outputs alone leaves the kernel in."""
    config, params, gradient = wide
    with force_kernel(f"{kernel}_interpreted"):
        lowered = gradient(config).lower(params)
    assert all_scores(config) not in lowered.as_text()
    found, found_grads = lowered.compile()(params)
    loss, grads = unfused
    np.testing.assert_allclose(found, loss, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(found_grads), jax.tree.leaves(grads), strict=True):
        # Rounding grows through the layers of sharp weights: of the whole gradient it is small.
        assert np.linalg.norm(a - b) <= 3e-4 * np.linalg.norm(b)


def test_attention_is_not_fused_where_weights_are_dropped_or_nobody_wants_it(wide):
    config, params, gradient = wide
    plain = gradient(config).lower(params).as_text()
    assert all_scores(config) in plain
    with force_kernel("splash_interpreted"):
        dropping = dataclasses.replace(config, attention_dropout=0.1)
        assert all_scores(config) in gradient(dropping).lower(params).as_text()
        assert gradient(config, Compute(fused_attention=False)).lower(params).as_text() == plain
