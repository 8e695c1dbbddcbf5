"""Training of the image tokenizer: reconstruction through straight-through Gumbel samples.

# B batch, h x w tokens, V codes, L latent channels
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from clip_jax.per_example_rng import gumbel
from rudolph_jax.vqgan import Vqgan
from rudolph_jax.wavelet import downsample


def vqgan_loss(
    vqgan: Vqgan,
    params: Any,
    images: jax.Array,
    keys: jax.Array,
    *,
    temperature: jax.Array | float,
    kl_weight: float,
    entropy_weight: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the loss and metrics of images float[B, H, W, 3] from 0 to 1, the decoder's target.

    Codes are drawn from softmax(logits) by adding Gumbel noise, an image's from its own key[B];
    the decoder gets the drawn code, the gradient goes through softmax((logits + noise) /
    temperature) (Jang et al. 2016).
    A wavelet decoder's images are twice as large as those encoded: the encoder gets half the size.

    reconstruction_loss: mean absolute plus mean squared difference of pixels.
    kl_loss: of softmax(logits) from the uniform distribution, in nats a token.
    entropy_loss: `entropy_loss` of softmax(logits), computed where entropy_weight is above 0.
    code_shares: float32[V], frequency of each code as the likeliest.
    """
    apply = partial(vqgan.apply, {"params": params})
    inputs = downsample(images) if vqgan.config.wavelet else images
    logits = apply(inputs, method="code_logits")
    V = logits.shape[-1]
    noisy = logits + gumbel(keys, logits.shape[1:])
    soft = jax.nn.softmax(noisy / temperature, axis=-1)
    drawn = jax.nn.one_hot(noisy.argmax(axis=-1), V)
    weights = soft + jax.lax.stop_gradient(drawn - soft)
    z = jnp.einsum("BhwV,VL->BhwL", weights, params["codebook"])
    difference = apply(z, method="decode_latents") - images
    reconstruction = jnp.abs(difference).mean() + jnp.square(difference).mean()
    log_shares = jax.nn.log_softmax(logits, axis=-1)
    kl = (jnp.exp(log_shares) * (log_shares + jnp.log(V))).sum(axis=-1).mean()
    shares = jax.nn.one_hot(logits.argmax(axis=-1), V).mean((0, 1, 2))
    metrics = {"reconstruction_loss": reconstruction, "kl_loss": kl, "code_shares": shares}
    value = reconstruction + kl_weight * kl
    if entropy_weight:
        metrics["entropy_loss"] = entropy_loss(log_shares)
        value += entropy_weight * metrics["entropy_loss"]
    return value, metrics


def entropy_loss(log_probabilities: jax.Array) -> jax.Array:
    """Computes a token's mean entropy minus the entropy of the mean distribution, in nats.

    log_probabilities: float32[B, h, w, V], normalized. Minus the mutual information of token and
    code: least, -ln V, where each token is sure of its code and all codes are equally frequent.
    Source: Yu et al. 2023 (MAGVIT-v2), section 3.1.
    """
    probabilities = jnp.exp(log_probabilities)
    a_token = -(probabilities * log_probabilities).sum(axis=-1).mean()
    return a_token - jax.scipy.special.entr(probabilities.mean((0, 1, 2))).sum()


def codebook_metrics(shares: jax.Array) -> dict[str, jax.Array]:
    """Computes metrics from float32[V], the frequency of each code in a batch.

    codebook_usage: share of the codes that occur. code_perplexity: exp of their entropy, at most V.
    """
    entropy = jax.scipy.special.entr(shares).sum()
    return {"codebook_usage": (shares > 0).mean(), "code_perplexity": jnp.exp(entropy)}
