"""What the image tokenizer is trained from: blocks that begin as the identity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rudolph_jax import Vqgan, VqganConfig
from rudolph_jax.vqgan import init_params
from rudolph_jax.vqgan_init import initial_params

CONFIG = VqganConfig(
    channels=8,
    channel_multipliers=(1, 2),
    residual_blocks=1,
    attention_levels=(0,),
    latent_channels=8,
    codebook_size=10,
    norm_groups=4,
)


@pytest.fixture(scope="module")
def both():
    made = jax.jit(initial_params, static_argnums=(0, 1))
    return {name: made(CONFIG, name, jax.random.key(3)) for name in ("pytorch", "zero_residual")}


def test_pytorch_is_what_it_was(both):
    expected = jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, both["pytorch"], expected)


def test_branches_end_in_zeros_and_other_kernels_have_three_times_the_variance(both):
    plain, changed = both["pytorch"], both["zero_residual"]
    zeros = 0
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(changed), strict=True
    ):
        name = "/".join(str(key.key) for key in path)
        if name.startswith("code_head/kernel"):
            np.testing.assert_array_equal(after, np.asarray(changed["codebook"]).T)
        elif name.endswith(("conv_2/kernel", "out_kernel")):
            zeros += 1
            assert not np.any(after), name
        elif name.endswith("kernel"):
            np.testing.assert_allclose(after, np.sqrt(3) * before, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(after, before, err_msg=name)
    # Residual blocks: 2 + 2 of the encoder, 2 + 4 of the decoder; attention: 1 + 1 and 2 + 1.
    assert zeros == 15


def test_logits_begin_as_products_with_the_codebook(both):
    params, images = both["zero_residual"], np.random.default_rng(0).random((2, 8, 8, 3))
    vqgan = Vqgan(CONFIG)
    apply = partial(vqgan.apply, {"params": params}, jnp.asarray(images, jnp.float32))
    expected = np.asarray(apply(method="latents")) @ np.asarray(params["codebook"]).T
    np.testing.assert_allclose(apply(method="code_logits"), expected, rtol=1e-4, atol=1e-4)
