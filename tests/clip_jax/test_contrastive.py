"""Every form of the two losses against their dense definitions in float64 numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from clip_jax import InputError
from clip_jax.contrastive import DUPLICATES, contrastive_loss, sigmoid_loss
from clip_jax.model import normalize
from clip_jax.pair_masks import Embeddings, pair_masks

# No tile below divides a side: eight shards of five rows, tiles of at most three.
ROWS, SHARDS, WIDTH = 40, 8, 12
LOSSES = ("contrastive", "sigmoid")
ALL = tuple((name, option) for name in LOSSES for option in DUPLICATES)
GROUPS = np.arange(ROWS) // 3 % 5 * 1_000_000_007 % 2**32


@pytest.fixture
def inputs(rng):
    image, text = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    return np.asarray(normalize(image)), np.asarray(normalize(text)), np.float32(7), np.float32(-3)


def dense(name, duplicates, image, text, scale, bias):
    """Computes ((loss, (image accuracy, text accuracy)), gradients) in float64."""
    x, y, scale, bias = (np.asarray(a, np.float64) for a in (image, text, scale, bias))
    diagonal, same_group = np.eye(len(x), dtype=bool), GROUPS[:, None] == GROUPS[None, :]
    positive = same_group if duplicates == "positives" else diagonal
    valid = diagonal | ~same_group if duplicates == "masked" else np.ones_like(diagonal)
    similarities = x @ y.T
    logits = np.where(valid, scale * similarities, -np.inf)
    rows = np.arange(len(x))
    accuracies = positive[rows, logits.argmax(1)].mean(), positive[rows, logits.argmax(0)].mean()
    if name == "contrastive":
        loss, dlogits = 0.0, 0.0
        target = positive / positive.sum(1, keepdims=True)
        for axis in (0, 1):
            top = logits.max(axis, keepdims=True)
            logsumexp = top + np.log(np.exp(logits - top).sum(axis, keepdims=True))
            labels = target.T if axis == 0 else target
            loss += (logsumexp.sum() - (labels * scale * similarities).sum()) / (2 * len(x))
            dlogits += (np.exp(logits - logsumexp) - labels) / (2 * len(x))
    else:
        z = scale * similarities + bias
        loss = (valid * np.logaddexp(0, np.where(positive, -z, z))).sum() / len(x)
        dlogits = valid * (1 / (1 + np.exp(-z)) - positive) / len(x)
    dscale, dbias = (dlogits * similarities).sum(), dlogits.sum()
    gradients = scale * dlogits @ y, scale * dlogits.T @ x, dscale, dbias
    if name == "contrastive":
        gradients = (*gradients[:3], 0.0)
    return (loss, accuracies), gradients


def local_loss(name, duplicates, form, axis_name=None, tile=3):
    options = {"form": form, "duplicates": duplicates, "axis_name": axis_name, "tile": tile}

    def loss(image, text, scale, bias, groups):
        if name == "contrastive":
            value, metrics = contrastive_loss(image, text, scale, groups=groups, **options)
        else:
            value, metrics = sigmoid_loss(image, text, scale, bias, groups=groups, **options)
        return value, (metrics["image_accuracy"], metrics["text_accuracy"])

    return loss


differentiate = partial(jax.value_and_grad, argnums=(0, 1, 2, 3), has_aux=True)


def on_one_device(form, cases):
    """Returns a function to {case: ((loss, accuracies), gradients)}, compiled for all cases."""
    losses = {case: differentiate(local_loss(*case, form, tile=7)) for case in cases}
    return jax.jit(lambda *args: {case: loss(*args, GROUPS) for case, loss in losses.items()})


def on_a_mesh(form, cases):
    """Does the same over two mesh axes, differentiated from outside the `shard_map`."""
    axes = ("data", "fsdp")
    mesh = jax.make_mesh((4, 2), axes, axis_types=(AxisType.Auto,) * 2)
    rows, everywhere = PartitionSpec(axes), PartitionSpec()

    def whole(case):
        return jax.shard_map(
            lambda *args: lax.pmean(local_loss(*case, form, axes)(*args), axes),
            mesh=mesh,
            in_specs=(rows, rows, everywhere, everywhere, rows),
            out_specs=everywhere,
        )

    losses = {case: differentiate(whole(case)) for case in cases}
    return jax.jit(lambda *args: {case: loss(*args, GROUPS) for case, loss in losses.items()})


def in_pmap(form, cases):
    """Does the same as data-parallel training does: each shard's gradients, then their mean."""

    def shard(image, text, scale, bias, groups):
        found = {}
        for case in cases:
            loss = differentiate(local_loss(*case, form, "data"))
            value, (*features, scale_, bias_) = loss(image, text, scale, bias, groups)
            # Only a feature's own shard has a gradient: its term of the mean.
            features = [gradient / SHARDS for gradient in features]
            found[case] = (*lax.pmean((value, scale_, bias_), "data"), *features)
        return found

    mapped = jax.pmap(shard, axis_name="data", in_axes=(0, 0, None, None, 0))

    def run(image, text, scale, bias):
        cut = [x.reshape(SHARDS, -1, *x.shape[1:]) for x in (image, text, GROUPS)]
        results = {}
        for case, found in mapped(*cut[:2], scale, bias, cut[2]).items():
            value, scale_, bias_, image_, text_ = found
            value, scale_, bias_ = jax.tree.map(lambda x: x[0], (value, scale_, bias_))
            features = (image_.reshape(image.shape), text_.reshape(text.shape))
            results[case] = value, (*features, scale_, bias_)
        return results

    return run


def assert_equal(found, expected, rtol=1e-5):
    """Asserts that each array is within rtol of the largest magnitude in it."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


# Compilation is nearly all of the time: over devices, each option is met once a form.
THREE = (("contrastive", "negatives"), ("contrastive", "masked"), ("sigmoid", "positives"))
CONTRASTIVE, SIGMOID = (("contrastive", "positives"),), (("sigmoid", "masked"),)


@pytest.mark.parametrize(
    ("runner", "form", "cases"),
    [
        (on_one_device, "gathered", ALL),
        (on_one_device, "tiled", ALL),
        (on_a_mesh, "gathered", SIGMOID),
        (on_a_mesh, "tiled", THREE),
        (on_a_mesh, "ring", THREE),
        (in_pmap, "gathered", CONTRASTIVE),
        (in_pmap, "tiled", SIGMOID),
        (in_pmap, "ring", CONTRASTIVE),
    ],
)
def test_equals_the_dense_definition(inputs, runner, form, cases):
    run = runner(form, cases)
    found = run(*inputs)
    for case in cases:
        assert_equal(found[case], dense(*case, *inputs))
    # At CLIP's largest scale the positives are the least likely: nothing over- or underflows.
    image, _, _, bias = inputs
    extreme = (image, -image, np.float32(100), bias)
    found = run(*extreme)
    for case in cases:
        assert_equal(found[case], dense(*case, *extreme), rtol=1e-4)


@pytest.mark.parametrize("tile", [1, 2 * ROWS])
@pytest.mark.parametrize("name", LOSSES)
def test_tiles_from_one_row_to_more_than_all_give_the_loss(inputs, name, tile):
    found = jax.jit(local_loss(name, "masked", "tiled", tile=tile))(*inputs, GROUPS)
    assert_equal(found, dense(name, "masked", *inputs)[0])


def test_gradients_taken_inside_shard_map_are_counted_once(inputs):
    image, text, scale, bias = inputs
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    loss = differentiate(local_loss("contrastive", "masked", "ring", "data"))

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=jax.make_mesh((SHARDS,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=(rows, rows, everywhere, rows),
        out_specs=everywhere,
    )
    def by_scale(image, text, scale, groups):
        # As a training step does with its parameters; else JAX sums their gradients itself.
        scale = lax.pcast(scale, "data", to="varying")
        _, gradients = loss(image, text, scale, bias, groups)
        return lax.pmean(gradients[2], "data")

    expected = dense("contrastive", "masked", *inputs)[1][2]
    np.testing.assert_allclose(by_scale(image, text, scale, GROUPS), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("duplicates", "valid", "positive"),
    [
        ("negatives", ["1110", "1110", "1110", "0000"], ["1000", "0100", "0010", "0000"]),
        ("positives", ["1110", "1110", "1110", "0000"], ["1010", "0100", "1010", "0000"]),
        ("masked", ["1100", "1110", "0110", "0000"], ["1000", "0100", "0010", "0000"]),
    ],
)
def test_pair_masks_of_groups_a_b_a_and_padding(duplicates, valid, positive):
    index, group = np.array([0, 1, 2, 0]), np.array([5, 6, 5, 5])
    rows = Embeddings(np.zeros((4, 1)), index, group, np.array([True, True, True, False]))
    found = [np.asarray(x, int).astype(str) for x in pair_masks(rows, rows, duplicates)]
    assert [["".join(row) for row in x] for x in found] == [valid, positive]


def test_the_dense_definition_is_two_cross_entropies(inputs):
    image, text, scale, _ = inputs
    logits = scale * image @ text.T
    cross_entropy = jax.jit(optax.softmax_cross_entropy_with_integer_labels)
    expected = np.mean([cross_entropy(x, np.arange(ROWS)).mean() for x in (logits, logits.T)])
    (loss, _), _ = dense("contrastive", "negatives", *inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)  # sums in another order


def test_top1_accuracy_takes_the_first_of_equal_columns():
    """Embeddings that have collapsed to one point classify one of 40 images correctly, not all."""
    rows = PartitionSpec("data")

    @partial(
        jax.shard_map,
        mesh=jax.make_mesh((SHARDS,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=(rows, rows),
        out_specs=PartitionSpec(),
    )
    def accuracies(image, text):
        loss = local_loss("contrastive", "negatives", "ring", "data")
        return lax.pmean(loss(image, text, 1.0, 0.0, None)[1], "data")

    ones = jnp.ones((ROWS, 2))
    np.testing.assert_allclose(jax.jit(accuracies)(ones, ones), 1 / ROWS, rtol=1e-6)


def test_bfloat16_embeddings_are_summed_in_float32(inputs):
    image, text, scale, bias = inputs
    image, text = jnp.asarray(image, jnp.bfloat16), jnp.asarray(text, jnp.bfloat16)
    (case,) = CONTRASTIVE
    (loss, _), gradients = on_one_device("tiled", [case])(image, text, scale, bias)[case]
    expected = dense(*case, image, text, scale, bias)
    np.testing.assert_allclose(loss, expected[0][0], rtol=1e-5)
    assert gradients[0].dtype == gradients[1].dtype == jnp.bfloat16
    assert_equal(gradients[:2], expected[1][:2], rtol=1e-2)
    np.testing.assert_allclose(gradients[2], expected[1][2], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "dense"}, "form is 'dense'; expected one of gathered, tiled, ring"),
        ({"duplicates": "maybe"}, "duplicates is 'maybe'; expected one of negatives, "),
        ({"form": "tiled", "tile": 0}, "tile is 0; expected a positive number"),
    ],
)
def test_unknown_options_are_named(inputs, options, message):
    image, text, scale, bias = inputs
    with pytest.raises(InputError, match=message):
        contrastive_loss(image, text, scale, **options)
    with pytest.raises(InputError, match=message):
        sigmoid_loss(image, text, scale, bias, **options)
