from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from clip_jax.contrastive import contrastive_loss
from clip_jax.model import normalize


@pytest.fixture
def features(rng):
    image, text = rng.normal(size=(2, 16, 12)).astype(np.float32)
    return normalize(image), normalize(text), jnp.float32(7.0)


def test_equals_two_cross_entropies(features):
    image, text, scale = features
    logits = np.asarray(scale * image @ text.T, np.float64)
    labels = np.arange(16)
    expected = np.mean(
        [
            optax.softmax_cross_entropy_with_integer_labels(jnp.array(x), labels).mean()
            for x in (logits, logits.T)
        ]
    )
    loss, metrics = contrastive_loss(image, text, scale)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["image_accuracy"], (logits.argmax(1) == labels).mean())
    np.testing.assert_allclose(metrics["text_accuracy"], (logits.argmax(0) == labels).mean())


def differentiate(loss):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("runner", ["shard_map", "pmap"])
def test_sharded_over_eight_devices_equals_whole(features, runner, grouped):
    image, text, scale = features
    groups = jnp.arange(16) // 3 % 4 if grouped else None

    def whole(image, text, scale):
        return contrastive_loss(image, text, scale, groups=groups)

    expected, expected_grads = differentiate(whole)(*features)

    def shard(image, text, scale, rows):
        return jax.lax.pmean(
            contrastive_loss(
                image, text, scale, groups=rows if grouped else None, axis_name="data"
            ),
            "data",
        )

    rows = jnp.arange(16) // 3 % 4
    if runner == "shard_map":
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        split, all_ = PartitionSpec("data"), PartitionSpec()
        run = jax.shard_map(
            shard, mesh=mesh, in_specs=(split, split, all_, split), out_specs=all_
        )
        found, grads = differentiate(run)(image, text, scale, rows)
    else:
        cut = partial(jnp.reshape, shape=(8, 2, 12))
        mapped = jax.pmap(shard, axis_name="data", in_axes=(0, 0, None, 0))

        def run(image, text, scale):
            loss, metrics = mapped(cut(image), cut(text), scale, rows.reshape(8, 2))
            return loss[0], jax.tree.map(lambda x: x[0], metrics)

        found, grads = differentiate(run)(image, text, scale)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    found, expected = (found[1], grads), (expected[1], expected_grads)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_duplicates_as_positives_share_the_target(features):
    image, text, scale = features
    text = jnp.concatenate([text[:1], text[:1], text[2:]])
    groups = jnp.array([0, 0, *range(2, 16)])
    loss, metrics = contrastive_loss(image, text, scale, groups=groups)
    log_p = jax.nn.log_softmax(scale * image @ text.T)
    target = np.eye(16)
    target[:2, :2] = 0.5
    log_q = jax.nn.log_softmax(scale * text @ image.T)
    expected = -((target * log_p).sum(1).mean() + (target * log_q).sum(1).mean()) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    # Each of the two equal captions is a right answer for either picture.
    chosen = np.asarray(log_p.argmax(1))
    right = [i == c or {int(i), int(c)} == {0, 1} for i, c in enumerate(chosen)]
    np.testing.assert_allclose(metrics["image_accuracy"], np.mean(right))
