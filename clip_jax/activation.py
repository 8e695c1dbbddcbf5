"""Activation functions of the models' MLPs, by their names in configs.

Source: Hendrycks and Gimpel 2016; quick_gelu as in OpenAI's CLIP.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def quick_gelu(x: jax.Array) -> jax.Array:
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def activate(name: str, x: jax.Array) -> jax.Array:
    """Applies a named activation function to float[...] in float32; the result has x's dtype.

    In bfloat16 each of its operations would round, which takes a CPU longer than the function
    itself. Only x is saved for the backward pass, which recomputes the rest.
    """

    def rounded_once(x: jax.Array) -> jax.Array:
        return ACTIVATIONS[name](x.astype(jnp.float32)).astype(x.dtype)

    return jax.checkpoint(rounded_once, prevent_cse=False)(x)
