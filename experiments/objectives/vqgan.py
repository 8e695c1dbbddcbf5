"""The image tokenizer: images painted again from codes. Batches hold "image" uint8[B, H, W, 3].

No second network judges the pictures: what small data need is codes, not sharp textures.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from experiments.config.objective import VqganSettings
from experiments.config.run import TrainConfig
from experiments.data.examples import ImageExamples
from experiments.data.source import Split
from experiments.objectives.objective import Batch, Metrics, Objective, Params, StepContext
from rudolph_jax import vqgan_sharding
from rudolph_jax.image_tokenizer import PretrainedVqgan, image_config
from rudolph_jax.vqgan import Vqgan, abstract_params
from rudolph_jax.vqgan_init import initial_params
from rudolph_jax.vqgan_loss import codebook_metrics, vqgan_loss


def vqgan_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    model, settings = config.model, config.settings
    del mesh
    vqgan = Vqgan(model, config.compute)
    # A wavelet decoder paints images twice as large as the encoder sees them.
    multiple = model.patch_size * (2 if model.wavelet else 1)
    if settings.image_size % multiple:
        raise InputError(
            f"config.settings.image_size is {settings.image_size}; expected a multiple of "
            f"{multiple}, the pixels of a token's side"
        )

    def loss(params: Params, batch: Batch, now: StepContext) -> tuple[jax.Array, Metrics]:
        images = batch["image"].astype(jnp.float32) / 255
        tau = gumbel_temperature(settings, now.step, config.steps)
        value, metrics = vqgan_loss(
            vqgan,
            params,
            images,
            now.keys,
            temperature=tau,
            kl_weight=settings.kl_weight,
            entropy_weight=settings.entropy_weight,
        )
        return value, {**metrics, "temperature": tau}

    def report(metrics: Metrics) -> Metrics:
        shares = metrics.pop("code_shares")
        return {**metrics, **codebook_metrics(shares)}

    def examples(split: Split, tokenizer: Tokenizer | None) -> ImageExamples:
        return ImageExamples(split, config.data, settings.image_size, image_config(model))

    def pretrained(params: Params, tokenizer: Tokenizer | None) -> PretrainedVqgan:
        return PretrainedVqgan(model, params, config.compute)

    return Objective(
        abstract_params=abstract_params(model),
        init=partial(initial_params, model, settings.initialization),
        loss=loss,
        sharding_rules=vqgan_sharding.AXES,
        examples=examples,
        pretrained=pretrained,
        summarize=report,
    )


def batch_shapes(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a global batch as the loss takes it."""
    B, size = config.data.batch_size, config.settings.image_size
    return {"image": jax.ShapeDtypeStruct((B, size, size, 3), jnp.uint8)}


def gumbel_temperature(settings: VqganSettings, step: jax.Array, steps: int) -> jax.Array:
    """float32[]: from start to end along half a cosine. Source: Ramesh et al. 2021, A.2."""
    start, end = settings.temperature_start, settings.temperature_end
    return end + (start - end) * (1 + jnp.cos(jnp.pi * step / steps)) / 2
