"""Contrastive learning of picture and caption.

Batches hold "image" uint8[B, H, W, 3] and "input_ids" int32[B, S], each row with an EOS.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from clip_jax import PretrainedClip, sharding
from clip_jax.config import ImageConfig
from clip_jax.contrastive import contrastive_loss
from clip_jax.model import MAX_LOGIT_SCALE, Clip, abstract_params
from clip_jax.tokenizer import Tokenizer
from experiments.config import TrainConfig
from experiments.data.examples import CaptionedPictures
from experiments.data.source import Split
from experiments.data.vocabulary import Vocabulary
from experiments.objectives.objective import Batch, Metrics, Objective, Params
from experiments.parallel import BATCH_AXES


def clip_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    model = config.model
    clip = Clip(model, config.compute)
    rows = PartitionSpec(BATCH_AXES)

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(rows, rows, PartitionSpec(), rows),
        out_specs=PartitionSpec(),
    )
    def sharded_loss(
        image: jax.Array, text: jax.Array, scale: jax.Array, groups: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        groups = groups if config.settings.duplicates == "positives" else None
        local = contrastive_loss(image, text, scale, groups=groups, axis_name=BATCH_AXES)
        return lax.pmean(local, BATCH_AXES)

    def init(rng: jax.Array) -> Params:
        size = model.vision.image_size
        ids = jnp.zeros((1, model.text.context_length), jnp.int32)
        return clip.init(rng, ids, jnp.zeros((1, size, size, 3)))["params"]

    def loss(
        params: Params, batch: Batch, rng: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        del rng, step  # neither tower has dropout; augmentation is the data's
        pixels = normalize_on_device(batch["image"], model.image)
        image, text, scale = clip.apply({"params": params}, batch["input_ids"], pixels)
        groups = caption_groups(batch["input_ids"])
        value, metrics = sharded_loss(image, text, scale, groups)
        return value, {**metrics, "logit_scale": scale}

    def project(params: Params) -> Params:
        clipped = jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)
        return {**params, "logit_scale": clipped}

    def examples(split: Split, tokenizer: Tokenizer | None) -> CaptionedPictures:
        return CaptionedPictures(split, config.data, model, tokenizer)

    def pretrained(params: Params, tokenizer: Tokenizer | None) -> PretrainedClip:
        return PretrainedClip(model, params, tokenizer, config.compute)

    return Objective(
        abstract_params=abstract_params(model),
        init=init,
        loss=loss,
        table=sharding.AXES,
        examples=examples,
        pretrained=pretrained,
        vocabulary=Vocabulary(model.text.vocab_size, model.bos_id, model.eos_id, model.pad_id),
        project=project,
    )


def normalize_on_device(image: jax.Array, config: ImageConfig) -> jax.Array:
    """uint8[..., 3] -> float32[..., 3]; bytes travel to the device, a quarter of floats."""
    return (image.astype(jnp.float32) / 255 - jnp.array(config.mean)) / jnp.array(config.std)


def caption_groups(input_ids: jax.Array) -> jax.Array:
    """int32[B, S] -> uint32[B]: equal rows give equal numbers (a polynomial hash, mod 2**32)."""
    S = input_ids.shape[1]
    powers = jnp.cumprod(jnp.full((S,), 0x01000193, jnp.uint32))  # the FNV prime
    return ((input_ids.astype(jnp.uint32) + 1) * powers).sum(axis=1, dtype=jnp.uint32)
