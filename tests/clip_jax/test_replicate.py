"""A model replicated on several devices encodes as on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import PretrainedClip
from clip_jax.model import abstract_params


@pytest.fixture(scope="module")
def clip(small_config):
    leaves, tree = jax.tree.flatten(abstract_params(small_config))
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=leaf.shape, scale=0.3), "float32") for leaf in leaves]
    return PretrainedClip(small_config, jax.tree.unflatten(tree, params))


def pixels(rng, rows):
    return rng.normal(size=(rows, 24, 24, 3)).astype(np.float32)


def test_projected_features_are_embeddings(clip, rng):
    images = pixels(rng, 3)
    features = clip.encode_image_features(images)
    assert features.shape == (3, 32)
    projected = np.asarray(features) @ np.asarray(clip.params["visual"]["projection"])
    np.testing.assert_allclose(projected, clip.encode_image(images), atol=1e-5)


def test_features_do_not_depend_on_the_number_of_devices(clip, rng):
    images = pixels(rng, 21)
    replicated = clip.replicate(jax.devices())
    features = replicated.encode_image(images)  # three rows a device, the last repeated
    alone = [clip.encode_image(images[i : i + 3]) for i in range(0, 21, 3)]
    # Two programs, one of them partitioned: the compiler may order their sums differently.
    np.testing.assert_allclose(features, np.concatenate(alone), atol=1e-5)
    ids = rng.integers(3, 60, (5, 12))
    ids[:, -1] = clip.config.eos_id
    np.testing.assert_allclose(replicated.encode_text(ids), clip.encode_text(ids), atol=1e-5)
    assert replicated.encode_image(images[:0]).shape == (0, 20)


def test_batch_is_sharded_evenly(clip, rng):
    replicated = clip.replicate(jax.devices()[:4])
    assert replicated.encode_image(pixels(rng, 8)).sharding.shard_shape((8, 20)) == (2, 20)
    larger = replicated.with_image_size(32)
    assert larger.encode_image_features(rng.normal(size=(3, 32, 32, 3))).shape == (3, 32)
