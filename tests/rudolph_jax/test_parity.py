"""Converted checkpoints compute what the PyTorch original recorded (tests/goldens)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute
from clip_jax.layers import stack_layers, unstack_layers
from converters.rudolph_tables import RUDOLPH, rules
from converters.rules import resolve_rules
from rudolph_jax import Rudolph
from rudolph_jax.incremental import forward_with_cache, make_logits_fn
from rudolph_jax.layout import Layout
from rudolph_jax.loss import rudolph_loss
from rudolph_jax.masks import PUBLISHED_MASK_TYPES, mask

NAMES = ("rudolph_v2", "rudolph_v1", "rudolph_plain")
WEIGHTS = {
    "default": {},
    "text_heavy": {"left_weight": 3, "image_weight": 2, "right_weight": 5},
    "image_only": {"left_weight": 0, "image_weight": 1, "right_weight": 0},
}
every_model = pytest.mark.parametrize("name", NAMES)


def assert_close(found, expected, tolerance=1e-5):
    """Largest difference over largest magnitude of the array."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@every_model
def test_logits_and_hidden_states(golden, name):
    model, outputs = golden(name)
    ids = outputs["input_ids"]
    assert_close(model.logits(ids), outputs["logits"])
    assert_close(model.hidden_states(ids), outputs["hidden_states"])


@every_model
def test_logits_of_shorter_inputs(golden, name):
    model, outputs = golden(name)
    ids, left = outputs["input_ids"], model.config.left_text_length
    half = left + model.layout.image_length // 2
    assert_close(model.logits(ids[:, : left - 2]), outputs["logits_left_text_only"])
    assert_close(model.logits(ids[:, :half]), outputs["logits_left_text_and_half_image"])


@every_model
def test_masks(golden, name):
    model, outputs = golden(name)
    recorded = ("row_mask", "col_mask", "conv_mask", "last_conv_mask")
    for kind, key in zip(PUBLISHED_MASK_TYPES, recorded, strict=True):
        np.testing.assert_array_equal(mask(model.config, kind), outputs[key])


@every_model
def test_losses(golden, name):
    model, outputs = golden(name)
    recorded = {"left_text_loss": "l_text_loss", "image_loss": "image_loss"}
    recorded["right_text_loss"] = "r_text_loss"
    for tag, weights in WEIGHTS.items():
        loss, parts = model.loss(outputs["input_ids"], **weights)
        assert_close(loss, outputs[f"loss_{tag}"])
        for ours, theirs in recorded.items():
            assert_close(parts[ours], outputs[f"{theirs}_{tag}"])
    loss, parts = model.loss(outputs["input_ids"][:, : model.layout.image.stop])
    assert_close(loss, outputs["loss_no_right_text"])
    assert set(parts) == {"left_text_loss", "image_loss"}


@pytest.mark.parametrize(
    ("name", "stacked"),
    [
        ("rudolph_v2", True),
        ("rudolph_v2", False),
        ("rudolph_v1", True),
        ("rudolph_plain", True),
        pytest.param("rudolph_v1", False, marks=pytest.mark.slow),
        pytest.param("rudolph_plain", False, marks=pytest.mark.slow),
    ],
)
def test_gradients(golden, name, stacked):
    """Compares the gradients of all parameters, for stacked and unstacked layers."""
    model, outputs = golden(name)
    ids = jnp.asarray(outputs["input_ids"])
    module = Rudolph(model.config, Compute(remat="block"), stacked=stacked)

    @jax.jit
    def gradient(params):
        def loss(params):
            logits = module.apply({"params": params}, ids)
            return rudolph_loss(logits, ids, model.config, legacy_boundary_label=True)[0]

        return jax.grad(loss)(params)

    params = jax.tree.map(np.asarray, dict(model.params))
    with jax.default_matmul_precision("highest"):
        found = gradient(stack_layers(params) if stacked else params)
    found = jax.tree.map(np.asarray, dict(found))
    found = unstack_layers(found) if stacked else found
    leaves = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    }
    mappings = resolve_rules(
        rules(RUDOLPH, model.config), {name: leaf.shape for name, leaf in leaves.items()}
    )
    checked = 0
    for mapping in mappings:
        for source, value in zip(
            mapping.sources, mapping.to_torch(leaves[mapping.target]), strict=True
        ):
            assert_close(np.linalg.norm(value), outputs[f"grad_norm/{source}"], 1e-4)
            if f"grad/{source}" in outputs:
                assert_close(value, outputs[f"grad/{source}"], 1e-4)
                checked += 1
    assert len(mappings) == len([key for key in outputs if key.startswith("grad_norm/")])
    assert checked == len([key for key in outputs if key.startswith("grad/")])


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("rudolph_v2", 1),
        ("rudolph_v1", 1),
        *(pytest.param(name, 4, marks=pytest.mark.slow) for name in NAMES),
    ],
)
def test_cached_steps(golden, name, tokens):
    """Runs one token at a time after the left text, with a key-value cache."""
    model, outputs = golden(name)
    config, compute = model.config, Compute()
    layout, ids = Layout(config), jnp.asarray(outputs["input_ids"])

    @functools.partial(jax.jit, static_argnums=2)
    def step(params, ids, start, past):
        x, key_values = forward_with_cache(config, compute, params, ids, start, past)
        joined = key_values
        if past is not None:
            joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=2), past, key_values)
        return make_logits_fn(config, compute, params, slice(None))(x[:, -1]), joined

    with jax.default_matmul_precision("highest"):
        logits, past = step(model.params, ids[:, : layout.left.stop], 0, None)
        found = [logits]
        # Each start compiles anew: the image's first tokens and the last two are enough.
        for place in range(layout.left.stop, layout.left.stop + tokens):
            logits, past = step(model.params, ids[:, place : place + 1], place, past)
            found.append(logits)
        for place in (layout.image.stop - 1, layout.sequence_length - 2):
            _, past = step(model.params, ids[:, :place], 0, None)
            found.append(step(model.params, ids[:, place : place + 1], place, past)[0])
    last = layout.sequence_length - 1 - layout.left.stop
    offsets = [*range(tokens + 1), layout.image_length, last]
    assert_close(np.stack(found, axis=1), outputs["cached_step_logits"][:, offsets])
