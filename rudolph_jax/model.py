"""RUDOLPH: one decoder over [left text | image tokens | right text].

# B sequences, P distinct prompts, n samples of each (B = P n), T queries, M keys, D width,
# H heads, K head size, F mlp width, V vocabulary

Source: `rudolph.model`; the stabilisers are CogView's (Ding et al. 2021, section 2.4).
Parameters keep the dtype they are given; activations and products use `Compute.dtype`, layer
norms, attention weights and logits float32. Dropout is on where keys for it are given.
"""

from __future__ import annotations

import functools
import operator
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.activation import activate
from clip_jax.config import Compute
from clip_jax.fused import fused_self_attention
from clip_jax.jit_apply import param_shapes
from clip_jax.linear import einsum, get_kernel, linear, slice_columns
from clip_jax.model import LayerNorm, remat_policy
from clip_jax.per_example_rng import dropout, fold_in
from clip_jax.sharding import constrain_batch, constrain_embedding
from rudolph_jax.cache import KeyValue, KeyValueMask, LayerCache
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import BOS, PAD, Layout
from rudolph_jax.masks import layer_mask_types, mask

NORMAL = nn.initializers.normal(0.02)
ZEROS = nn.initializers.zeros
MASKED_SCORE = -1e4  # the original's


LONGEST_GROUP = 4  # layers of a scan's iteration: the published mask orders repeat after four


class Attention(nn.Module):
    config: RudolphConfig
    fused: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | np.ndarray | None,
        past: Sequence[KeyValueMask] = (),
        cache: LayerCache | None = None,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        """Computes float[B, T, D] -> float[B, T, D], and keys and values [B, H, T, K] of x.

        mask: bool[T, T], which tokens of x each one attends to. A NumPy array is a constant of the
            program, for which a kernel may be at hand (`clip_jax/fused`).
        past: keys and values of other tokens, which all of them attend to.
        cache: of the tokens before x's single one, instead of `mask`; its next `key_value` is
            returned instead of (k, v).
        keys: key[B] for dropout, or None.
        """
        D, H = self.config.width, self.config.heads
        K = D // H
        qkv = linear(self, "qkv", "BTD,DcHK->BTcHK", x, (D, 3, H, K), NORMAL)
        q, k, v = jnp.einsum("BTcHK->cBHTK", qkv)
        # Nothing but x is attended to, and no kernel has dropout of weights.
        dropped = keys is not None and self.config.attention_dropout > 0
        alone = not past and cache is None and not dropped
        constant = mask if self.fused and alone and isinstance(mask, np.ndarray) else None
        if constant is not None:
            y = fused_self_attention(qkv, constant)
            if y is not None:
                out = linear(self, "out", "BTHK,HKD->BTD", y, (H, K, D), NORMAL)
                return dropout(out, self.config.output_dropout, keys, 1), (k, v)
        attended, key_value = [*past], (k, v)
        if cache is not None:
            current, key_value = cache.update(k, v)
            attended.append(current)
        elif mask is not None:
            attended.append((k, v, jnp.asarray(mask)))
        y = self.attend(q, attended, keys)
        out = linear(self, "out", "BHTK,HKD->BTD", y, (H, K, D), NORMAL)
        return dropout(out, self.config.output_dropout, keys, 1), key_value

    def attend(
        self, q: jax.Array, attended: Sequence[KeyValueMask], keys: jax.Array | None
    ) -> jax.Array:
        """Attends by softmax over all parts: q [B, H, T, K] -> [B, H, T, K]."""
        scores = [self.scores(q, k, mask) for k, _, mask in attended]
        weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
        weights = dropout(weights, self.config.attention_dropout, keys, 0)
        ends = np.cumsum([score.shape[-1] for score in scores])[:-1]
        parts = zip(jnp.split(weights, ends, axis=-1), attended, strict=True)
        return functools.reduce(operator.add, (_weighted_sum(w, v) for w, (_, v, _) in parts))

    def scores(self, q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
        """Computes float32[B, H, T, M] of q [B, H, T, K], k [P, H, M, K] and a mask.

        mask: bool[T, M] or bool[M].
        """
        B, H, T, K = q.shape
        # PB-relax divides before the product, which float16 needs to stay finite. Its other half,
        # subtracting the largest score, changes nothing where scores are float32, as here.
        q = q * K**-0.5 if self.config.pb_relax else q
        grouped = q.reshape(k.shape[0], -1, H, T, K)
        scores = jnp.einsum("PnHTK,PHMK->PnHTM", grouped, k, preferred_element_type=jnp.float32)
        scores = scores if self.config.pb_relax else scores * K**-0.5
        return jnp.where(mask, scores, MASKED_SCORE).reshape(B, H, T, -1)


def _weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Computes weights [B, H, T, M], values [P, H, M, K] -> [B, H, T, K]."""
    grouped = weights.astype(values.dtype).reshape(values.shape[0], -1, *weights.shape[1:])
    y = jnp.einsum("PnHTM,PHMK->PnHTK", grouped, values)
    return y.reshape(*weights.shape[:-1], -1)


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
    """Residual block; the sandwich norms also normalise what each branch adds."""

    config: RudolphConfig
    fused: bool = True

    def setup(self) -> None:
        epsilon = self.config.layer_norm_epsilon
        self.attention_norm, self.mlp_norm = LayerNorm(epsilon), LayerNorm(epsilon)
        self.attention, self.mlp = Attention(self.config, self.fused), Mlp(self.config)
        if self.config.sandwich_norm:
            self.attention_out_norm, self.mlp_out_norm = LayerNorm(epsilon), LayerNorm(epsilon)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | np.ndarray | None,
        past: Sequence[KeyValueMask] = (),
        cache: LayerCache | None = None,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        """Computes float[B, T, D] -> float[B, T, D], and `Attention`'s keys and values."""
        x = constrain_batch(x)
        y, key_value = self.attention(self.attention_norm(x), mask, past, cache, keys)
        x = x + (self.attention_out_norm(y) if self.config.sandwich_norm else y)
        y = self.mlp(self.mlp_norm(x), keys)
        return x + (self.mlp_out_norm(y) if self.config.sandwich_norm else y), key_value

    def init_in_scan(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Makes the parameters of one layer of a stack."""
        return self(x, np.tri(x.shape[1], dtype=bool))[0], None


class UnrolledBlocks(nn.Module):
    """Unrolls all layers over unstacked parameters, as a model folder has them."""

    config: RudolphConfig
    fused: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        masks: Mapping[str, jax.Array | np.ndarray] | None,
        past: Sequence[Sequence[KeyValueMask]] | None = None,
        caches: Sequence[LayerCache] | None = None,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, list[jax.Array], list[KeyValue]]:
        """Runs float[B, T, D] through the layers.

        masks: bool[T, T] by mask type; None where there are caches.
        past, caches: a layer's in each entry, see `Attention`.
        Returns the last layer's output, those of all layers, and `Attention`'s keys and values.
        """
        outputs, key_values = [], []
        for number, mask_type in enumerate(layer_mask_types(self.config)):
            x, key_value = Block(self.config, self.fused, name=str(number))(
                x,
                masks[mask_type] if masks else None,
                past[number] if past else (),
                caches[number] if caches else None,
                None if keys is None else fold_in(keys, number),
            )
            outputs.append(x)
            key_values.append(key_value)
        return x, outputs, key_values


class Rudolph(nn.Module):
    """`Rudolph(config, compute).init(rng, input_ids)` makes parameters with layers stacked.

    stacked: hold the layers' parameters stacked; off, one by one as in a model folder.
    """

    config: RudolphConfig
    compute: Compute = Compute()
    stacked: bool = True

    def setup(self) -> None:
        config, layout = self.config, Layout(self.config)
        D, d = config.width, config.image_tokens_per_side
        epsilon = config.layer_norm_epsilon
        self.text_embedding = self.param("text_embedding", NORMAL, (layout.num_text_ids, D))
        self.image_embedding = self.param("image_embedding", NORMAL, (layout.num_image_ids, D))
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
        fused = self.compute.fused_attention
        self.layers = self._stack() if self.stacked else UnrolledBlocks(config, fused)
        self.final_norm, self.head_norm = LayerNorm(epsilon), LayerNorm(epsilon)
        self.head = Head(layout.vocab_size)

    def __call__(self, input_ids: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Computes logits: int32[B, T], T up to the whole sequence -> float32[B, T, V].

        dropout_keys: key[B], one a sequence, so that its dropout depends on neither the batch nor
            the devices. None turns dropout off.
        With `bos_prefix` the logits have one position more at the front, up to the whole length.
        """
        return self.logits(self._run_layers(self.embed(input_ids), dropout_keys))

    def final_states(
        self, input_ids: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Computes what the head multiplies: int32[B, T] -> float[B, T, D]; see `__call__`."""
        return self.final_norms(self._run_layers(self.embed(input_ids), dropout_keys))

    def logit_columns(self, states: jax.Array, columns: slice) -> jax.Array:
        """Computes some logits of `final_states`: float[..., D] -> float32[..., C]."""
        return self.head(states, columns)

    def hidden_states(
        self, input_ids: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Computes each layer's output: int32[B, T] -> float[layers, B, T, D]."""
        return self._run_layers(self.embed(input_ids), dropout_keys, hidden=True)

    def embed(self, input_ids: jax.Array, start: int = 0) -> jax.Array:
        """Embeds ids, int32[B, T] -> float[B, T, D].

        start: position of the first id in the sequence.
        """
        layout = Layout(self.config)
        B, stop = input_ids.shape[0], start + input_ids.shape[1]
        layout.segment_lengths(stop)  # raises for what is too long
        parts = []
        if layout.num_prefix_tokens and not start:
            ids = jnp.full((B, layout.num_prefix_tokens), BOS, jnp.int32)
            parts.append(
                self.embed_text(ids, self.left_position_embedding[: layout.num_prefix_tokens])
            )
        for segment, embed in (
            (layout.left, self.embed_left),
            (layout.image, self.embed_image),
            (layout.right, self.embed_right),
        ):
            first, last = max(start, segment.start), min(stop, segment.stop)
            if first < last:
                positions = jnp.arange(first - segment.start, last - segment.start)
                parts.append(embed(input_ids[:, first - start : last - start], positions))
        # Nothing is predicted after the last token, for which a prefix leaves no room.
        room = layout.sequence_length - start - layout.num_prefix_tokens * bool(start)
        x = jnp.concatenate(parts, axis=1)[:, :room]
        # The original computes x * scale + stop_gradient(x) * (1 - scale).
        scale = self.config.embedding_gradient_scale
        return x * scale + jax.lax.stop_gradient(x) * (1 - scale)

    def embed_left(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """Embeds ids int32[B, T] at positions int32[T] of the left text, whose padding has ids."""
        layout = Layout(self.config)
        ids = jnp.where(ids == PAD, layout.text_pad_offset + positions, ids)
        return self.embed_text(
            ids, self.left_position_embedding[positions + layout.num_prefix_tokens]
        )

    def embed_right(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        return self.embed_text(ids, self.right_position_embedding[positions])

    def embed_text(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """Embeds ids int32[B, T] and adds position embeddings [T, D]."""
        x = constrain_embedding(self.text_embedding[ids])
        return (x + positions).astype(self.compute.dtype)

    def embed_image(self, codes: jax.Array, positions: jax.Array) -> jax.Array:
        """Embeds codes int32[B, T] at positions int32[T] of the image, row by row."""
        row, column = jnp.divmod(positions, self.config.image_tokens_per_side)
        position = self.image_row_embedding[row] + self.image_column_embedding[column]
        embedding = constrain_embedding(self.image_embedding[codes])
        return (embedding + position).astype(self.compute.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """Computes logits from the last layer's output, float[..., D] -> float32[..., V]."""
        return self.head(self.final_norms(x))

    def final_norms(self, x: jax.Array) -> jax.Array:
        """Applies the transformer's last norm, then the head's."""
        return self.head_norm(self.final_norm(x))

    def _run_layers(self, x: jax.Array, keys: jax.Array | None, hidden: bool = False) -> jax.Array:
        """Runs float[B, T, D] -> float[B, T, D], or with `hidden` -> float[layers, B, T, D]."""
        if self.stacked and self.is_initializing():
            x, _ = self.layers.init_in_scan(x)
            return jnp.stack([x] * self.config.layers) if hidden else x
        T, types = x.shape[1], layer_mask_types(self.config)
        masks = {name: mask(self.config, name)[:T, :T] for name in set(types)}
        if not self.stacked:
            x, outputs, _ = self.layers(x, masks, keys=keys)
            return jnp.stack(outputs) if hidden else x
        return self._run_groups(x, masks, keys, hidden)

    def _run_groups(
        self,
        x: jax.Array,
        masks: Mapping[str, np.ndarray],
        keys: jax.Array | None,
        hidden: bool,
    ) -> jax.Array:
        """Scans groups of layers whose mask types repeat; the layers after them run one by one.

        So each layer's mask is a constant of the program, whatever the number of layers.
        """
        stacked = self.layers.variables["params"]
        types = layer_mask_types(self.config)
        size, groups = group_layers(types)
        scanned = size * groups
        block = Block(self.config, self.compute.fused_attention, parent=None)

        def run(x: jax.Array, params: Any, layer: jax.Array | int, mask_type: str) -> jax.Array:
            own = None if keys is None else fold_in(keys, layer)
            out: Any = block.apply({"params": params}, x, masks[mask_type], keys=own)
            return out[0]

        run_in_scan, run_alone = (self._remat(run, in_scan) for in_scan in (True, False))

        def run_group(x: jax.Array, group: tuple[Any, jax.Array]) -> tuple[jax.Array, Any]:
            params, first = group
            outputs = []
            for i in range(size):
                one = jax.tree.map(operator.itemgetter(i), params)
                x = run_in_scan(x, one, first + i, types[i])
                outputs.append(x)
            return x, jnp.stack(outputs) if hidden else None

        outputs = []
        if groups:
            grouped = jax.tree.map(
                lambda leaf: leaf[:scanned].reshape(groups, size, *leaf.shape[1:]), stacked
            )
            unroll = min(max(self.compute.unroll // size, 1), groups)
            starts = size * jnp.arange(groups)
            x, found = jax.lax.scan(run_group, x, (grouped, starts), unroll=unroll)
            outputs += [found.reshape(scanned, *x.shape)] if hidden else []
        for layer in range(scanned, len(types)):
            x = run_alone(x, jax.tree.map(operator.itemgetter(layer), stacked), layer, types[layer])
            outputs += [x[None]] if hidden else []
        return jnp.concatenate(outputs) if hidden else x

    def _remat(self, run: Callable[..., jax.Array], in_scan: bool) -> Callable[..., jax.Array]:
        """Wraps a function of a layer in `jax.checkpoint` as `Compute.remat` says.

        in_scan: a scan keeps the compiler from merging the recomputation with the forward pass.
        """
        if self.compute.remat == "none":
            return run
        return jax.checkpoint(
            run, prevent_cse=not in_scan, policy=remat_policy(self.compute), static_argnums=(3,)
        )

    def _stack(self) -> nn.Module:
        """Returns what makes and holds the layers' parameters, stacked."""
        stack = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.layers,
            methods=["init_in_scan"],
        )
        return stack(self.config)


def group_layers(types: Sequence[str]) -> tuple[int, int]:
    """Returns the size and number of the groups that the layers begin with, whose types repeat.

    Of sizes up to LONGEST_GROUP the smallest that leaves the fewest layers over; one group is none.
    """
    best = (1, 0)
    for size in range(1, LONGEST_GROUP + 1):
        repeated = next(
            (i for i, name in enumerate(types) if name != types[i % size]), len(types)
        )
        groups = repeated // size
        if groups > 1 and size * groups > best[0] * best[1]:
            best = (size, groups)
    return best


class Head(nn.Module):
    """Computes the logits of some or all tokens. num_logits: V."""

    num_logits: int

    @nn.compact
    def __call__(self, x: jax.Array, columns: slice = slice(None)) -> jax.Array:
        """Computes float[..., D] -> float32[..., V], or the columns of V that are named."""
        D, V = x.shape[-1], self.num_logits
        kernel = get_kernel(self, "kernel", NORMAL, (D, V))
        kernel = slice_columns(kernel, columns).astype(x.dtype)
        bias = self.param("bias", ZEROS, (V,))[columns]
        rows = string.ascii_lowercase[: x.ndim - 1]
        return einsum(f"{rows}D,DV->{rows}V", x, kernel, jnp.float32) + bias


def abstract_params(config: RudolphConfig) -> dict:
    """Returns shapes and dtypes of the parameters, layers stacked, without computing anything."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)  # no parameter has the shape of what is read
    return param_shapes(Rudolph, config, ids)
