"""RUDOLPH's training: every next token of left text, image codes and right text.

Batches hold "input_ids" int32[B, T]; before they are prepared, maybe with zeros in the codes' place
and the images as "image" uint8[B, H, W, 3].
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clip_jax.errors import InputError
from clip_jax.layers import unstack_layers
from clip_jax.tokenizer import Tokenizer
from experiments.config.data import BACKGROUNDS
from experiments.config.run import TrainConfig
from experiments.data.rudolph_examples import RudolphExamples, TextExamples
from experiments.data.source import Split
from experiments.data.vocabulary import Vocabulary
from experiments.objectives.objective import (
    Batch,
    BatchTransform,
    Metrics,
    Objective,
    Params,
    StepContext,
)
from rudolph_jax import sharding
from rudolph_jax.config import RudolphConfig
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.image_tokenizer import PretrainedVqgan, image_config, load_vqgan
from rudolph_jax.layout import BOS, EOS, PAD, Layout
from rudolph_jax.loss import count_right_tokens, segment_loss
from rudolph_jax.model import Rudolph, abstract_params
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.vqgan import Vqgan

TRAINED_TOKENS = ("LT_UNK", "RT_UNK", "LT_T2I", "LT_I2T", "LT_T2T", "RT_I2T")


def rudolph_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    del mesh
    # Codes are the likeliest ones, found in float32 whatever the decoder is trained in.
    vqgan = load_vqgan(config.settings.vqgan)
    if config.data.background:
        background = BACKGROUNDS[config.data.background]
        vqgan.config = dataclasses.replace(vqgan.config, background=background)
    return decoder_objective(config, vqgan)


def decoder_objective(config: TrainConfig, vqgan: PretrainedVqgan) -> Objective:
    """The objective over an image tokenizer, of which the loss needs nothing but its codes."""
    model, settings = config.model, config.settings
    _check_fit(config, vqgan)
    layout = Layout(model)
    rudolph = Rudolph(model, config.compute)

    def init(rng: jax.Array) -> Params:
        return rudolph.init(rng, jnp.zeros((1, layout.sequence_length), jnp.int32))["params"]

    def loss(params: Params, batch: Batch, now: StepContext) -> tuple[jax.Array, Metrics]:
        ids = batch["input_ids"]
        variables = {"params": params}
        states = rudolph.apply(variables, ids, now.keys, method="final_states")

        def logits(positions: slice, columns: slice) -> jax.Array:
            rows = states[:, positions]
            return rudolph.apply(variables, rows, columns, method="logit_columns")

        return segment_loss(
            logits,
            ids,
            model,
            left_weight=settings.left_weight,
            image_weight=settings.image_weight,
            right_weight=settings.right_weight,
            legacy_boundary_label=settings.legacy_boundary_label,
            right_tokens=now.batch_stats["right_tokens"],
        )

    def batch_stats(batch: Batch) -> dict[str, jax.Array]:
        return {"right_tokens": count_right_tokens(batch["input_ids"], model)}

    def examples(split: Split, tokenizer: Tokenizer | None) -> RudolphExamples | TextExamples:
        if not split.has_images:
            return TextExamples(split, config.data, model, settings, tokenizer)

        def encode(images: np.ndarray) -> np.ndarray:
            return np.asarray(vqgan.encode(images.astype(np.float32) / 255))

        size = model.image_tokens_per_side * vqgan.config.patch_size
        image = image_config(vqgan.config)
        return RudolphExamples(split, config.data, model, settings, tokenizer, size, image, encode)

    def pretrained(params: Params, tokenizer: Tokenizer | None) -> PretrainedRudolph:
        return PretrainedRudolph(model, unstack_layers(params), tokenizer, vqgan, config.compute)

    return Objective(
        abstract_params=abstract_params(model),
        init=init,
        loss=loss,
        sharding_rules=sharding.AXES,
        examples=examples,
        pretrained=pretrained,
        vocabulary=Vocabulary(model.text_vocab_size, BOS, EOS, PAD),
        batch_stats=batch_stats,
        batch_transform=_codes_filled(vqgan, layout),
    )


def batch_shapes(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a global batch as the loss takes it, with the images' codes."""
    shape = config.data.batch_size, Layout(config.model).sequence_length
    return {"input_ids": jax.ShapeDtypeStruct(shape, jnp.int32)}


def _codes_filled(vqgan: PretrainedVqgan, layout: Layout) -> BatchTransform:
    """Puts the codes of a batch's images in their place."""
    model = Vqgan(vqgan.config, vqgan.compute)

    def run(params: Params, batch: Batch) -> Batch:
        if "image" not in batch:
            return batch
        pixels = batch["image"].astype(jnp.float32) / 255
        with jax.default_matmul_precision("highest"):
            codes = model.apply({"params": params}, pixels, method="encode")
        return {"input_ids": batch["input_ids"].at[:, layout.image].set(codes)}

    size = layout.config.image_tokens_per_side * vqgan.config.patch_size
    return BatchTransform(vqgan.params, run, size, image_config(vqgan.config))


def _check_fit(config: TrainConfig, vqgan: PretrainedVqgan) -> None:
    """InputError unless tokenizer, tasks and decoder belong together."""
    model: RudolphConfig = config.model
    if vqgan.config.codebook_size != model.image_vocab_size:
        raise InputError(
            f"{config.settings.vqgan}: has {vqgan.config.codebook_size} codes; config.model."
            f"image_vocab_size is {model.image_vocab_size}; they must be equal"
        )
    if model.text_special_tokens:
        questions = QUESTIONS[config.settings.question_about] if config.settings.asks else ()
        for name in (*TRAINED_TOKENS, *questions):
            Layout(model).special_id(name)
    for name in ("image_to_text", "question"):
        share = config.settings.tasks[name]
        if share and not model.right_text_length:
            raise InputError(
                f"config.settings.{name} is {share}; expected 0, since "
                "config.model.right_text_length is 0"
            )
