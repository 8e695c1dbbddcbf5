"""RUDOLPH: one decoder over [left text | image tokens | right text].

# B sequences, P distinct prompts, n samples of each (B = P n), T tokens that ask, M tokens that
# answer, D width, H heads, K head size, F mlp width, V vocabulary

Source: `rudolph.model`; the stabilisers are CogView's (Ding et al. 2021, section 2.4).
Parameters keep the dtype they are given; activations and products use `Compute.dtype`, layer
norms, attention weights and logits float32. Dropout is on where keys for it are given.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.activation import activate
from clip_jax.compiled import param_shapes
from clip_jax.config import Compute
from clip_jax.linear import einsum, get_kernel, linear
from clip_jax.model import LayerNorm, rematted
from clip_jax.random_rows import dropout, fold_in
from clip_jax.sharding import looked_up, split_rows
from rudolph_jax.cache import KeyValue, LayerCache, Segment
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import BOS, PAD, Layout
from rudolph_jax.masks import KINDS, layer_kinds, masks


class Layer(NamedTuple):
    """number: counted from 0. kind: place of its mask in `KINDS`. int32[], or [layers] of all."""

    number: jax.Array
    kind: jax.Array


NORMAL = nn.initializers.normal(0.02)
ZEROS = nn.initializers.zeros


def attention_weights(
    config: RudolphConfig, q: jax.Array, segments: Sequence[Segment]
) -> list[jax.Array]:
    """One softmax over all segments: float32[P, n, H, T, M] for each. q: float[B, H, T, K]."""
    scale = q.shape[-1] ** -0.5
    # PB-relax divides before the product, which float16 needs to stay finite. Its other half, the
    # subtraction of the largest score, changes nothing where scores are float32, as here.
    q = q * scale if config.pb_relax else q
    scores = []
    for k, _, allowed in segments:
        grouped = q.reshape(k.shape[0], -1, *q.shape[1:])
        score = jnp.einsum("PnHTK,PHMK->PnHTM", grouped, k, preferred_element_type=jnp.float32)
        score = score if config.pb_relax else score * scale
        scores.append(jnp.where(allowed, score, -1e4))
    B, H, T, _ = q.shape
    flat = [score.reshape(B, H, T, -1) for score in scores]
    weights = jax.nn.softmax(jnp.concatenate(flat, axis=-1), axis=-1)
    ends = np.cumsum([score.shape[-1] for score in flat])[:-1]
    parts = jnp.split(weights, ends, axis=-1)
    return [part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)]


class Attention(nn.Module):
    config: RudolphConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        allowed: jax.Array,
        past: Sequence[Segment] = (),
        keys: jax.Array | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        """x float[B, T, D], allowed bool[T, T] among them -> y float[B, T, D], (k, v) of x.

        cache: of the tokens before x's single one; its next `key_value` is returned for (k, v).
        """
        D, H = self.config.width, self.config.heads
        K = D // H
        qkv = linear(self, "qkv", "BTD,DcHK->BTcHK", x, (D, 3, H, K), NORMAL)
        q, k, v = jnp.einsum("BTcHK->cBHTK", qkv)
        here, key_value = ((k, v, allowed), (k, v)) if cache is None else cache.update(k, v)
        segments = [*past, here]
        y = jnp.zeros_like(q)
        for weights, (_, values, _) in zip(
            attention_weights(self.config, q, segments), segments, strict=True
        ):
            weights = dropout(weights, self.config.attention_dropout, keys, 0).astype(x.dtype)
            y += jnp.einsum("PnHTM,PHMK->PnHTK", weights, values).reshape(q.shape)
        out = linear(self, "out", "BHTK,HKD->BTD", y, (H, K, D), NORMAL)
        return dropout(out, self.config.output_dropout, keys, 1), key_value


class Mlp(nn.Module):
    config: RudolphConfig

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        D, F = self.config.width, self.config.mlp_width
        y = linear(self, "in", "BTD,DF->BTF", x, (D, F), NORMAL)
        y = activate(self.config.activation, y)
        y = linear(self, "out", "BTF,FD->BTD", y, (F, D), NORMAL)
        return dropout(y, self.config.output_dropout, keys, 2)


class Block(nn.Module):
    """Residual block; the sandwich norms also act on what enters the residual stream."""

    config: RudolphConfig

    def setup(self) -> None:
        epsilon = self.config.layer_norm_epsilon
        self.attention_norm, self.mlp_norm = LayerNorm(epsilon), LayerNorm(epsilon)
        self.attention, self.mlp = Attention(self.config), Mlp(self.config)
        if self.config.sandwich_norm:
            self.attention_out_norm, self.mlp_out_norm = LayerNorm(epsilon), LayerNorm(epsilon)

    def __call__(
        self,
        x: jax.Array,
        allowed: jax.Array,
        past: Sequence[Segment] = (),
        keys: jax.Array | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        """x float[B, T, D], allowed bool[T, T] -> the next x, (attention's keys, values) of this.

        keys: this layer's random keys, one a sequence, for dropout.
        past, cache: see `Attention`.
        """
        x = split_rows(x)
        y, key_value = self.attention(self.attention_norm(x), allowed, past, keys, cache)
        x = x + (self.attention_out_norm(y) if self.config.sandwich_norm else y)
        y = self.mlp(self.mlp_norm(x), keys)
        return x + (self.mlp_out_norm(y) if self.config.sandwich_norm else y), key_value

    def scanned(
        self, x: jax.Array, layer: Layer, allowed: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """One turn of a scan over the layers. allowed: bool[len(KINDS), T, T]."""
        keys = None if keys is None else fold_in(keys, layer.number)
        return self(x, allowed[layer.kind], keys=keys)[0], None

    def scanned_states(
        self, x: jax.Array, layer: Layer, allowed: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The same, and x for the scan to collect."""
        x, _ = self.scanned(x, layer, allowed, keys)
        return x, x


class _OneByOne(nn.Module):
    """The layers as a model folder has them, for running without stacking them."""

    config: RudolphConfig

    @nn.compact
    def scanned_states(
        self, x: jax.Array, layers: Layer, allowed: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        states = []
        for number, kind in zip(*layers, strict=True):
            block = Block(self.config, name=str(number))
            x, _ = block.scanned(x, Layer(number, kind), allowed, keys)
            states.append(x)
        return x, jnp.stack(states)

    def scanned(
        self, x: jax.Array, layers: Layer, allowed: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, None]:
        return self.scanned_states(x, layers, allowed, keys)[0], None


class Rudolph(nn.Module):
    """`Rudolph(config, compute).init(rng, input_ids)` makes parameters with layers stacked.

    stacked: whether the layers' parameters are stacked, or one by one as in a model folder.
    """

    config: RudolphConfig
    compute: Compute = Compute()
    stacked: bool = True

    def setup(self) -> None:
        config, layout = self.config, Layout(self.config)
        D, d = config.width, config.image_tokens_per_side
        epsilon = config.layer_norm_epsilon
        self.text_embedding = self.param("text_embedding", NORMAL, (layout.text_ids, D))
        self.image_embedding = self.param("image_embedding", NORMAL, (layout.image_ids, D))
        # One row more than the text is long, as in the original; ruDALL-E v2's prefix needs it.
        self.left_position_embedding = self.param(
            "left_position_embedding", NORMAL, (config.left_text_length + 1, D)
        )
        if config.right_text_length:
            self.right_position_embedding = self.param(
                "right_position_embedding", NORMAL, (config.right_text_length + 1, D)
            )
        self.image_row_embedding = self.param("image_row_embedding", NORMAL, (d, D))
        self.image_column_embedding = self.param("image_column_embedding", NORMAL, (d, D))
        self.layers = self._scanned_blocks() if self.stacked else _OneByOne(config)
        self.final_norm, self.head_norm = LayerNorm(epsilon), LayerNorm(epsilon)
        self.head = Head(config)

    def __call__(self, input_ids: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """int32[B, T], T up to the whole sequence -> float32[B, T, V].

        dropout_keys: key[B]; what a sequence drops follows from its own key alone, whatever batch
        or device it is part of. None turns dropout off.
        With `bos_prefix` the logits have one position more at the front, up to the whole length.
        """
        x = self.embed(input_ids)
        x, _ = self.layers.scanned(x, self._layers, self._allowed(x), dropout_keys)
        return self.logits(x)

    def hidden_states(
        self, input_ids: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """int32[B, T] -> float[layers, B, T, D]: what each layer puts out."""
        x = self.embed(input_ids)
        return self.layers.scanned_states(x, self._layers, self._allowed(x), dropout_keys)[1]

    def embed(self, input_ids: jax.Array, start: int = 0) -> jax.Array:
        """int32[B, T] -> float[B, T, D]; what enters the first layer.

        start: place of the first id in the sequence.
        """
        layout = Layout(self.config)
        B, stop = input_ids.shape[0], start + input_ids.shape[1]
        layout.split(stop)  # refuses what is too long
        parts = []
        if layout.prefix and not start:
            ids = jnp.full((B, layout.prefix), BOS, jnp.int32)
            parts.append(self.embed_text(ids, self.left_position_embedding[: layout.prefix]))
        for segment, embed in (
            (layout.left, self.embed_left),
            (layout.image, self.embed_image),
            (layout.right, self.embed_right),
        ):
            first, last = max(start, segment.start), min(stop, segment.stop)
            if first < last:
                places = jnp.arange(first - segment.start, last - segment.start)
                parts.append(embed(input_ids[:, first - start : last - start], places))
        # Nothing is predicted after the last token, for which a prefix leaves no place.
        room = layout.length - start - layout.prefix * bool(start)
        x = jnp.concatenate(parts, axis=1)[:, :room]
        # The original computes x * scale + stop_gradient(x) * (1 - scale).
        scale = self.config.embedding_gradient_scale
        return x * scale + jax.lax.stop_gradient(x) * (1 - scale)

    def embed_left(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """ids int32[B, T] at positions int32[T] of the left text, where padding has its own ids."""
        layout = Layout(self.config)
        ids = jnp.where(ids == PAD, layout.special_stop + positions, ids)
        return self.embed_text(ids, self.left_position_embedding[positions + layout.prefix])

    def embed_right(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        return self.embed_text(ids, self.right_position_embedding[positions])

    def embed_text(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """ids int32[B, T], position embeddings [T, D]"""
        x = looked_up(self.text_embedding[ids])
        return (x + positions).astype(self.compute.dtype)

    def embed_image(self, codes: jax.Array, positions: jax.Array) -> jax.Array:
        """codes int32[B, T] at positions int32[T] of the picture, row by row."""
        row, column = jnp.divmod(positions, self.config.image_tokens_per_side)
        place = self.image_row_embedding[row] + self.image_column_embedding[column]
        return (looked_up(self.image_embedding[codes]) + place).astype(self.compute.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """What the last layer puts out, float[..., D] -> float32[..., V]."""
        return self.head(self.normed(x))

    def normed(self, x: jax.Array) -> jax.Array:
        """What the head sees: two norms in a row, the transformer's own, then the head's."""
        return self.head_norm(self.final_norm(x))

    @property
    def _layers(self) -> Layer:
        kinds = [KINDS.index(kind) for kind in layer_kinds(self.config)]
        numbers: Any = np.arange(len(kinds), dtype=np.int32), np.array(kinds, np.int32)
        return Layer(*numbers)

    def _allowed(self, x: jax.Array) -> jax.Array:
        T = x.shape[1]
        return jnp.asarray(masks(self.config)[:, :T, :T])

    def _scanned_blocks(self) -> nn.Module:
        methods = ["scanned", "scanned_states"]
        stack = nn.scan(
            rematted(Block, self.compute, methods),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.config.layers,
            unroll=min(self.compute.unroll, self.config.layers),
            methods=methods,
        )
        return stack(self.config)


class Head(nn.Module):
    config: RudolphConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        D, V = self.config.width, Layout(self.config).vocabulary
        kernel = get_kernel(self, "kernel", NORMAL, (D, V)).astype(x.dtype)
        bias = self.param("bias", ZEROS, (V,))
        rows = string.ascii_lowercase[: x.ndim - 1]
        return einsum(f"{rows}D,DV->{rows}V", x, kernel, jnp.float32) + bias


def abstract_params(config: RudolphConfig) -> dict:
    """Shapes and dtypes of the parameters, layers stacked, without computing anything."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)  # no parameter has the shape of what is read
    return param_shapes(Rudolph, config, ids)
