import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import InputError
from rudolph_jax import Rudolph
from rudolph_jax.layout import Layout
from rudolph_jax.loss import (
    count_right_tokens,
    image_loss_sums,
    right_text_loss_sums,
    rudolph_loss,
    segment_loss,
)


@pytest.fixture(scope="module")
def logits(tiny_config, tiny_ids):
    shape = (*tiny_ids.shape, Layout(tiny_config).vocab_size)
    return jax.random.normal(jax.random.key(0), shape)


def loss_of(logits, ids, config, **settings):
    """Returns the loss and its parts, from one program."""
    return jax.jit(lambda logits, ids: rudolph_loss(logits, ids, config, **settings))(logits, ids)


def by_hand(logits, config, row, place, label, kind):
    """-log p(label) at a place, by the softmax over the logits of its kind."""
    layout = Layout(config)
    columns = layout.text_logits if kind == "text" else layout.image_logits
    values = np.asarray(logits)[row, place, columns].astype(np.float64)
    return np.log(np.exp(values).sum()) - values[label]


def test_every_position_by_hand(logits, tiny_config, tiny_ids):
    layout, rows = Layout(tiny_config), range(len(tiny_ids))
    L, image, T = layout.left.stop, layout.image, layout.sequence_length
    padded = tiny_ids.copy()
    padded[:, :L] = np.where(
        padded[:, :L] == 0, layout.text_pad_offset + np.arange(L), padded[:, :L]
    )
    left = [by_hand(logits, tiny_config, r, t - 1, padded[r, t], "text") for r in rows
            for t in range(1, L)]  # fmt: skip
    codes = [by_hand(logits, tiny_config, r, t - 1, tiny_ids[r, t], "image") for r in rows
             for t in range(image.start, image.stop)]  # fmt: skip
    right = [by_hand(logits, tiny_config, r, t - 1, tiny_ids[r, t], "text") for r in rows
             for t in range(image.stop + 1, T) if tiny_ids[r, t]]  # fmt: skip
    loss, parts = loss_of(
        logits, tiny_ids, tiny_config, left_weight=2, image_weight=3, right_weight=5
    )
    np.testing.assert_allclose(parts["left_text_loss"], np.mean(left), rtol=1e-5)
    np.testing.assert_allclose(parts["image_loss"], np.mean(codes), rtol=1e-5)
    np.testing.assert_allclose(parts["right_text_loss"], np.mean(right), rtol=1e-5)
    mixed = (2 * np.mean(left) + 3 * np.mean(codes) + 5 * np.mean(right)) / 10
    np.testing.assert_allclose(loss, mixed, rtol=1e-5)


def test_the_first_code_is_learned_from_image_logits_unless_legacy(tiny_config, tiny_ids, logits):
    """The original labels that position with a text id, so its image logits get no gradient."""
    layout = Layout(tiny_config)
    place = layout.left.stop - 1

    def gradient(legacy):
        def loss(logits):
            return rudolph_loss(
                logits, jnp.asarray(tiny_ids), tiny_config, legacy_boundary_label=legacy
            )[0]

        return np.asarray(jax.jit(jax.grad(loss))(logits))[:, place]

    mended, legacy = gradient(False), gradient(True)
    assert np.abs(mended[:, layout.image_logits]).min() > 0
    assert not mended[:, layout.text_logits].any()
    assert not legacy[:, layout.image_logits].any()
    assert np.abs(legacy[:, layout.text_logits]).min() > 0


@pytest.mark.parametrize(
    ("length", "parts"),
    [
        (1, set()),
        (4, {"left_text_loss"}),
        (5, {"left_text_loss"}),
        (6, {"left_text_loss", "image_loss"}),
        (14, {"left_text_loss", "image_loss"}),
        (15, {"left_text_loss", "image_loss"}),
        (16, {"left_text_loss", "image_loss", "right_text_loss"}),
    ],
)
def test_segments_that_are_present(tiny_config, tiny_ids, logits, length, parts):
    loss, found = loss_of(np.asarray(logits)[:, :length], tiny_ids[:, :length], tiny_config)
    assert set(found) == parts
    assert np.isfinite(loss)


def test_right_text_of_padding_alone_does_not_count(tiny_config, tiny_ids, logits):
    ids = tiny_ids.copy()
    ids[:, Layout(tiny_config).right] = 0
    loss, parts = loss_of(logits, ids, tiny_config, image_weight=1)
    assert parts["right_text_loss"] == 0
    np.testing.assert_allclose(loss, (parts["left_text_loss"] + parts["image_loss"]) / 2, rtol=1e-6)


def test_weights_of_nothing_give_nothing(tiny_config, tiny_ids, logits):
    loss, _ = loss_of(
        logits, tiny_ids, tiny_config, left_weight=0, image_weight=0, right_weight=0
    )
    assert loss == 0


def test_with_a_prefix_every_input_token_is_predicted(tiny_config, tiny_params):
    config = dataclasses.replace(tiny_config, right_text_length=0, bos_prefix=True, layers=1)
    layout, params = Layout(config), tiny_params(config)
    ids = np.random.default_rng(1).integers(1, 10, (2, layout.sequence_length), dtype=np.int32)
    found = jax.jit(Rudolph(config).apply)({"params": params}, ids)
    _, parts = loss_of(found, ids, config, legacy_boundary_label=True)
    left = [by_hand(found, config, r, t, ids[r, t], "text") for r in range(2) for t in range(5)]
    codes = [by_hand(found, config, r, t, ids[r, t], "image") for r in range(2)
             for t in range(5, 14)]  # fmt: skip
    np.testing.assert_allclose(parts["left_text_loss"], np.mean(left), rtol=1e-5)
    np.testing.assert_allclose(parts["image_loss"], np.mean(codes), rtol=1e-5)


def test_too_long_an_input_is_refused(tiny_config, tiny_ids, logits):
    ids = np.concatenate([tiny_ids, tiny_ids], axis=1)
    with pytest.raises(InputError, match="36 long; expected 1 to 18"):
        rudolph_loss(logits, jnp.asarray(ids), tiny_config)


@pytest.mark.parametrize(
    "changes, length, legacy",
    [({}, 18, False), ({}, 18, True), ({}, 14, False), ({}, 4, True), ({}, 12, True),
     ({"right_text_length": 0, "bos_prefix": True}, 14, False)],
)  # fmt: skip
def test_logits_by_segment_give_the_loss_and_gradients_of_all(
    tiny_config, tiny_params, changes, length, legacy
):
    config = dataclasses.replace(tiny_config, layers=1, **changes)
    model, params = Rudolph(config), tiny_params(config)
    ids = np.random.default_rng(2).integers(0, 10, (3, length), dtype=np.int32)
    weights = {"left_weight": 2.0, "image_weight": 3.0, "right_weight": 5.0}

    def whole(params):
        logits = model.apply({"params": params}, ids)
        return rudolph_loss(logits, ids, config, legacy_boundary_label=legacy, **weights)

    def by_segment(params):
        variables = {"params": params}
        states = model.apply(variables, ids, method="final_states")

        def logits(positions, columns):
            rows = states[:, positions]
            return model.apply(variables, rows, columns, method="logit_columns")

        return segment_loss(logits, ids, config, legacy_boundary_label=legacy, **weights)

    (a, parts), grads = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    (b, found), own = jax.jit(jax.value_and_grad(by_segment, has_aux=True))(params)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert parts.keys() == found.keys()
    for name in parts:
        np.testing.assert_allclose(parts[name], found[name], rtol=1e-6)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


@pytest.mark.parametrize("length", [17, 18])
def test_sums_of_sequences_give_the_losses_of_the_batch(tiny_config, tiny_ids, logits, length):
    config, ids, values = tiny_config, tiny_ids[:, :length], logits[:, :length]

    @jax.jit
    def sums(values, ids):
        def logits_fn(positions, columns):
            return values[:, positions, columns]

        image = image_loss_sums(logits_fn, ids, config)
        return image, *right_text_loss_sums(logits_fn, ids, config), count_right_tokens(ids, config)

    image, right, labelled, mean_count = sums(values, ids)
    _, parts = loss_of(values, ids, config)
    assert image.shape == right.shape == labelled.shape == (len(ids),)
    np.testing.assert_allclose(image.mean() / Layout(config).image_length, parts["image_loss"])
    np.testing.assert_allclose(right.sum() / labelled.sum(), parts["right_text_loss"], rtol=1e-6)
    start = Layout(config).right.start + 1
    np.testing.assert_array_equal(labelled, (ids[:, start:] != 0).sum(axis=1))
    assert mean_count == np.mean(labelled) and len(set(labelled.tolist())) > 1


def test_equal_parts_of_a_batch_have_its_loss_in_the_mean(tiny_config, tiny_ids, logits):
    """With the batch's labels in `right_tokens`: parts have more or fewer of their own, or none."""
    right = Layout(tiny_config).right
    ids, values = np.concatenate([tiny_ids] * 2), jnp.concatenate([logits, -logits])
    ids[: len(ids) // 2, right.start + 1 :] = 0
    whole, _ = loss_of(values, ids, tiny_config)
    tokens = count_right_tokens(jnp.asarray(ids), tiny_config)
    halves = [
        loss_of(value, part, tiny_config, right_tokens=tokens)[0]
        for value, part in zip(jnp.split(values, 2), np.split(ids, 2), strict=True)
    ]
    np.testing.assert_allclose(np.mean(halves), whole, rtol=1e-6)


def test_default_weights_are_the_originals(tiny_config, tiny_ids, logits):
    loss, _ = loss_of(logits, tiny_ids, tiny_config)
    weights = {"left_weight": 1, "image_weight": 7, "right_weight": 1}
    np.testing.assert_allclose(loss, loss_of(logits, tiny_ids, tiny_config, **weights)[0])
