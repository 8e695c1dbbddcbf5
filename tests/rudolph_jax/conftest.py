import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax.layers import unstack_layers
from rudolph_jax.image_tokenizer import PretrainedVqgan
from rudolph_jax.layout import Layout
from rudolph_jax.vqgan import Vqgan


@pytest.fixture(scope="session")
def golden_folder(goldens, tmp_path_factory):
    """The model folder of a recorded checkpoint, converted once."""
    made = {}

    def convert(name, kind="rudolph"):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "model"
            converters.convert(kind, goldens / name, made[name])
        return made[name]

    return convert


@pytest.fixture(scope="session")
def golden(goldens, golden_folder):
    """(model, recorded outputs) by name."""
    return lambda name: (
        rudolph_jax.load(golden_folder(name)),
        dict(np.load(goldens / name / "outputs.npz")),
    )


class BlockMeans:
    """The recorded API's stand-in for an image tokenizer: mean grey of a block, and back."""

    def __init__(self, side, codes):
        self.side = side
        self.config = types.SimpleNamespace(codebook_size=codes, patch_size=8)

    def encode(self, images):
        B, d, codes = len(images), self.side, self.config.codebook_size
        block = images.shape[1] // d
        means = images.reshape(B, d, block, d, block, 3).mean((2, 4, 5))
        return np.clip(np.rint(means * (codes - 1)), 0, codes - 1).astype(np.int32).reshape(B, -1)

    def decode(self, ids):
        grey = np.float32(ids).reshape(len(ids), self.side, self.side, 1)
        return np.repeat(grey / self.config.codebook_size, 3, axis=-1)


@pytest.fixture(scope="session")
def tokenizer(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    converters.convert("youtokentome", goldens / "tokenizer" / "bpe.model", folder)
    return clip_jax.load_tokenizer(folder)


@pytest.fixture(scope="session")
def whole_api(golden, tokenizer):
    """Loads what the API's outputs were recorded with: rudolph_v2, a vocabulary, a stand-in."""
    model, _ = golden("rudolph_v2")
    return rudolph_jax.PretrainedRudolph(
        model.config, model.params, tokenizer, BlockMeans(4, model.config.image_vocab_size)
    )


@pytest.fixture(scope="session")
def api(whole_api):
    """Keeps two of its eight layers: the sampler unrolls them, and programs compile faster."""
    params = dict(whole_api.params)
    params["layers"] = {name: params["layers"][name] for name in ("0", "1")}
    config = dataclasses.replace(whole_api.config, layers=2)
    return rudolph_jax.PretrainedRudolph(
        config, params, whole_api.tokenizer, whole_api.vqgan
    )


@pytest.fixture(scope="session")
def tiny_config():
    """Returns a config with row, column and convolution masks, whose sizes all differ."""
    return rudolph_jax.RudolphConfig(
        left_text_length=5, image_tokens_per_side=3, right_text_length=4, text_vocab_size=11,
        image_vocab_size=17, width=12, layers=3, heads=2, text_special_tokens=7,
        image_special_tokens=2, kernel_size=3, last_kernel_size=5,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_params():
    """Parameters for a config, layers stacked, every one of them random."""

    def make(config, seed=0):
        ids = jnp.zeros((1, Layout(config).sequence_length), jnp.int32)

        @jax.jit  # one program, not one for each shape
        def random_params():
            params = rudolph_jax.Rudolph(config).init(jax.random.key(seed), ids)["params"]
            leaves, tree = jax.tree.flatten(params)
            keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
            shaken = [
                x + 0.3 * jax.random.normal(key, x.shape)
                for x, key in zip(leaves, keys, strict=True)
            ]
            return jax.tree.unflatten(tree, shaken)

        return random_params()

    return make


@pytest.fixture(scope="session")
def tiny_ids(tiny_config):
    layout, rng = Layout(tiny_config), np.random.default_rng(0)
    ids = rng.integers(0, tiny_config.text_vocab_size, (3, layout.sequence_length), dtype=np.int32)
    ids[:, layout.image] = rng.integers(0, tiny_config.image_vocab_size, (3, layout.image_length))
    ids[0, 3:5] = 0  # padding in the left text
    ids[1, -2:] = 0  # and in the right one
    return ids


@pytest.fixture(scope="session")
def tiny_vqgan():
    config = rudolph_jax.VqganConfig(
        channels=8, channel_multipliers=(1, 1, 2, 2), residual_blocks=1, attention_levels=(),
        latent_channels=8, codebook_size=17, norm_groups=4,
    )  # fmt: skip
    images = jnp.zeros((1, 16, 16, 3))
    params = jax.jit(Vqgan(config).init)(jax.random.key(0), images)["params"]
    return PretrainedVqgan(config, params)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tiny_config, tiny_params, tiny_vqgan, tokenizer):
    """Model folders of a decoder with a real vocabulary and of its image tokenizer."""
    config = dataclasses.replace(
        tiny_config, text_vocab_size=tokenizer.vocab_size, text_special_tokens=8,
        left_text_length=8, right_text_length=6, layers=2,
    )  # fmt: skip
    params = unstack_layers(jax.tree.map(np.asarray, tiny_params(config)))
    home = tmp_path_factory.mktemp("folders")
    rudolph_jax.PretrainedRudolph(config, params, tokenizer).save(home / "rudolph")
    tiny_vqgan.save(home / "vqgan")
    rudalle = dataclasses.replace(config, right_text_length=0)
    kept = {name: value for name, value in params.items() if name != "right_position_embedding"}
    rudolph_jax.PretrainedRudolph(rudalle, kept, tokenizer).save(home / "rudalle")
    Image.new("RGB", (30, 30), "red").save(home / "red.png")
    return home
