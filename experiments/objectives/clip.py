"""Contrastive learning of image and caption.

Batches hold "image" uint8[B, H, W, 3] and "input_ids" int32[B, S], each row with an EOS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from clip_jax import PretrainedClip, sharding
from clip_jax.config import ImageConfig
from clip_jax.contrastive import contrastive_loss, sigmoid_loss
from clip_jax.model import MAX_LOGIT_SCALE, Clip, abstract_params, normalize
from clip_jax.tile_loop import AxisName
from clip_jax.tokenizer import Tokenizer
from experiments.config.run import TrainConfig
from experiments.data.examples import ImageTextExamples
from experiments.data.source import Split
from experiments.data.vocabulary import Vocabulary
from experiments.objectives.objective import Batch, Metrics, Objective, Params, StepContext
from experiments.training.partitioning import BATCH_AXES, PMAP_AXIS, split_microbatches

# (image, text, scale, bias, groups) -> loss, metrics
FeaturesLoss = Callable[..., tuple[jax.Array, Metrics]]


def clip_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    model, settings = config.model, config.settings
    clip = Clip(model, config.compute)
    features_loss = (
        _local_loss(config, PMAP_AXIS) if config.parallel == "pmap" else _mesh_loss(config, mesh)
    )

    def init(rng: jax.Array) -> Params:
        size = model.vision.image_size
        ids = jnp.zeros((1, model.text.context_length), jnp.int32)
        return clip.init(rng, ids, jnp.zeros((1, size, size, 3)))["params"]

    def encode(
        params: Params, image: jax.Array, ids: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        pixels = normalize_on_device(image, model.image)
        features = clip.apply(
            {"params": params}, pixels, keys, settings.patch_dropout, method="encode_image"
        )
        text = clip.apply({"params": params}, ids, method="encode_text")
        return normalize(features), normalize(text)

    def loss(params: Params, batch: Batch, now: StepContext) -> tuple[jax.Array, Metrics]:
        rows = batch["image"], batch["input_ids"], now.keys
        image, text = _encode_in_parts(partial(encode, params), rows, config.grad_accum_steps)
        scale, bias = jnp.exp(params["logit_scale"]), params.get("logit_bias", jnp.float32(0))
        groups = caption_groups(batch["input_ids"])
        value, metrics = features_loss(image, text, scale, bias, groups)
        metrics["logit_scale"] = scale
        if model.logit_bias:
            metrics["logit_bias"] = bias
        return value, metrics

    def project(params: Params) -> Params:
        clipped = jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)
        return {**params, "logit_scale": clipped}

    def examples(split: Split, tokenizer: Tokenizer | None) -> ImageTextExamples:
        return ImageTextExamples(split, config.data, model, tokenizer)

    def pretrained(params: Params, tokenizer: Tokenizer | None) -> PretrainedClip:
        return PretrainedClip(model, params, tokenizer, config.compute)

    return Objective(
        abstract_params=abstract_params(model),
        init=init,
        loss=loss,
        accumulates=True,
        sharding_rules=sharding.AXES,
        examples=examples,
        pretrained=pretrained,
        vocabulary=Vocabulary(model.text.vocab_size, model.bos_id, model.eos_id, model.pad_id),
        post_update=project,
    )


def batch_shapes(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a global batch as the loss takes it."""
    B, size = config.data.batch_size, config.model.vision.image_size
    return {
        "image": jax.ShapeDtypeStruct((B, size, size, 3), jnp.uint8),
        "input_ids": jax.ShapeDtypeStruct((B, config.model.text.context_length), jnp.int32),
    }


def _encode_in_parts(
    encode: Callable[..., tuple[jax.Array, jax.Array]], rows: tuple[jax.Array, ...], parts: int
) -> tuple[jax.Array, jax.Array]:
    """Features of all rows, whose gradients are those of one pass over them.

    Only the features of the other parts are held; the backward pass runs each part's
    towers again (GradCache, Gao et al. 2021), so memory is a part's and every row meets all others.
    """
    if parts == 1:
        return encode(*rows)
    encoded = lax.map(jax.checkpoint(lambda part: encode(*part)), split_microbatches(rows, parts))
    # Back in the order of the rows: part m holds rows m, m + parts, ...
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), encoded)


def _local_loss(config: TrainConfig, axis_name: AxisName) -> FeaturesLoss:
    """(image, text, scale, bias, groups) -> this shard's loss and metrics."""
    settings = config.settings
    options = {
        "form": settings.form,
        "duplicates": settings.duplicates,
        "tile": settings.tile,
        "axis_name": axis_name,
    }

    def local(
        image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, groups: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        if config.model.logit_bias:
            return sigmoid_loss(image, text, scale, bias, groups=groups, **options)
        return contrastive_loss(image, text, scale, groups=groups, **options)

    return local


def _mesh_loss(config: TrainConfig, mesh: Mesh) -> FeaturesLoss:
    """The same for the whole batch's arrays on a mesh."""
    rows, everywhere = PartitionSpec(BATCH_AXES), PartitionSpec()
    local = _local_loss(config, BATCH_AXES)

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(rows, rows, everywhere, everywhere, rows),
        out_specs=everywhere,
    )
    def sharded(*features: jax.Array) -> tuple[jax.Array, Metrics]:
        return lax.pmean(local(*features), BATCH_AXES)

    return sharded


def normalize_on_device(image: jax.Array, config: ImageConfig) -> jax.Array:
    """uint8[..., 3] -> float32[..., 3]; bytes travel to the device, a quarter of floats."""
    return (image.astype(jnp.float32) / 255 - jnp.array(config.mean)) / jnp.array(config.std)


def caption_groups(input_ids: jax.Array) -> jax.Array:
    """int32[B, S] -> uint32[B]: equal rows give equal numbers (a polynomial hash, mod 2**32)."""
    S = input_ids.shape[1]
    powers = jnp.cumprod(jnp.full((S,), 0x01000193, jnp.uint32))  # the FNV prime
    return ((input_ids.astype(jnp.uint32) + 1) * powers).sum(axis=1, dtype=jnp.uint32)
