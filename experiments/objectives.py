"""Objectives: (params, batch, rng) -> loss, metrics. The loop knows nothing else of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from clip_jax import sharding as clip_sharding
from clip_jax.config import ImageConfig
from clip_jax.contrastive import contrastive_loss
from clip_jax.errors import InputError
from clip_jax.model import MAX_LOGIT_SCALE, Clip, abstract_params
from experiments.config import TrainConfig
from experiments.parallel import BATCH_AXES, Table

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """abstract_params: shapes of the parameters. init: rng -> params. loss: what is minimised.
    project: params -> params, after each update. table: the model's sharding table.
    """

    abstract_params: Params
    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]
    project: Callable[[Params], Params]
    table: Table


def make_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    makers = {"clip": clip_objective}
    if config.objective not in makers:
        raise InputError(
            f"config.objective is {config.objective!r}; expected one of {', '.join(makers)}"
        )
    return makers[config.objective](config, mesh)


def clip_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    """Contrastive learning of picture and caption.

    Batches hold "image" uint8[B, H, W, 3] and "input_ids" int32[B, S], each row with an EOS.
    """
    clip = Clip(config.model, config.compute)
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
        groups = groups if config.duplicates == "positives" else None
        local = contrastive_loss(image, text, scale, groups=groups, axis_name=BATCH_AXES)
        return lax.pmean(local, BATCH_AXES)

    def init(rng: jax.Array) -> Params:
        size = config.model.vision.image_size
        ids = jnp.zeros((1, config.model.text.context_length), jnp.int32)
        return clip.init(rng, ids, jnp.zeros((1, size, size, 3)))["params"]

    def loss(params: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        del rng  # neither model has dropout; augmentation is the data's
        pixels = normalize_on_device(batch["image"], config.model.image)
        image, text, scale = clip.apply({"params": params}, batch["input_ids"], pixels)
        groups = caption_groups(batch["input_ids"])
        value, metrics = sharded_loss(image, text, scale, groups)
        return value, {**metrics, "logit_scale": scale}

    def project(params: Params) -> Params:
        clipped = jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)
        return {**params, "logit_scale": clipped}

    return Objective(abstract_params(config.model), init, loss, project, clip_sharding.AXES)


def normalize_on_device(image: jax.Array, config: ImageConfig) -> jax.Array:
    """uint8[..., 3] -> float32[..., 3]; bytes travel to the device, a quarter of floats."""
    return (image.astype(jnp.float32) / 255 - jnp.array(config.mean)) / jnp.array(config.std)


def caption_groups(input_ids: jax.Array) -> jax.Array:
    """int32[B, S] -> uint32[B]: equal rows give equal numbers (a polynomial hash, mod 2**32)."""
    S = input_ids.shape[1]
    powers = jnp.cumprod(jnp.full((S,), 0x01000193, jnp.uint32))  # the FNV prime
    return ((input_ids.astype(jnp.uint32) + 1) * powers).sum(axis=1, dtype=jnp.uint32)
