"""RUDOLPH's answers to held-out questions while it trains, over all devices.

For each token a program needs every layer. A TPU's compiler gathers a layer's kernels as it
multiplies by them, in each step of the loop; XLA on CPUs gathers all layers once, before the loop.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.image import open_image, resize_square
from clip_jax.layers import unstack_layers
from experiments.evaluation.during_training.sharded_model import ShardedModel
from experiments.evaluation.during_training.sharded_rudolph import SEQUENCES
from experiments.evaluation.multihost import gather_notes
from experiments.objectives.objective import Batch
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.layout import Layout
from rudolph_jax.sampling import SamplingParams
from rudolph_jax.text_encoding import (
    TruncationWarning,
    decode_text,
    encode_left,
    encode_right,
)
from rudolph_jax.text_generation import template_length


@dataclasses.dataclass(frozen=True)
class _Answers:
    """The likeliest right texts, int32[B, N].

    start: ids of a sequence that are given. encode: puts the codes of "image" into "input_ids",
    int32[B, T]; None where no row has an image.
    """

    sampler: SamplerConfig
    start: int
    encode: Callable[[Any, Batch], Batch] | None

    def __call__(self, params: Any, rows: Mapping[str, jax.Array]) -> jax.Array:
        ids, count = rows["input_ids"], len(rows["input_ids"])
        if self.encode is not None:
            batch = {"input_ids": ids, "image": rows["image"]}
            seen = self.encode(params["codes"], batch)["input_ids"]
            ids = jnp.where(rows["has_image"][:, None], seen, ids)
        target = self.sampler.target_slice
        inputs = SamplerInputs(
            prompts=ids[None],
            start=jnp.int32(self.start),
            stop=jnp.int32(target.stop - target.start),
            forced_tokens=jnp.full((count, target.stop - target.start), -1, jnp.int32),
            allowed_tokens=jnp.ones(1, bool),
            # Greedy: a key changes nothing.
            keys=jax.random.split(jax.random.key(0), count),
            sampling=jax.tree.map(jnp.asarray, SamplingParams(temperature=0.0).to_arrays()),
            guidance_weight=jnp.float32(0),
        )
        return generate(self.sampler, unstack_layers(params["model"]), inputs)


def sharded_answers(
    model: ShardedModel, rows: Sequence[Mapping[str, Any]] | Any, about: str, has_images: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the likeliest answer to each question, and the right ones, on all processes.

    rows: with a "question" and "answers" each, and what it is about: a "context", an "image".
    about: one of QUESTIONS. has_images: whether any row may have an image.
    """
    config, tokenizer, transform = model.config, model.tokenizer, model.batch_transform
    assert tokenizer is not None and transform is not None
    layout, (left_token, right_token) = Layout(config), QUESTIONS[about]
    right = encode_right(tokenizer, config, "", right_token)
    side = transform.image_size
    own: dict[int, str] = {}

    def read(places: Sequence[int]) -> dict[str, np.ndarray]:
        # All codes 0 without an image, as trained.
        ids = np.zeros((len(places), layout.sequence_length), np.int32)
        ids[:, layout.right] = right
        images = np.zeros((len(places), side, side, 3), np.uint8)
        seen = np.zeros(len(places), bool)
        for i, place in enumerate(places):
            row = rows[place]
            own[place] = json.dumps(list(row["answers"]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)  # sets hold many long contexts
                ids[i, layout.left] = encode_left(
                    tokenizer, config, row["question"], left_token, row.get("context", "")
                )
            if row.get("image") is not None:
                seen[i] = True
                images[i] = resize_square(open_image(row["image"]), side, transform.image)
        read = {"input_ids": ids}
        return {**read, "image": images, "has_image": seen} if has_images else read

    sampler = SamplerConfig(config, model.compute, "right", samples=1)
    start = layout.right.start + template_length(right)
    function = _Answers(sampler, start, transform.apply if has_images else None)
    params = {"model": model.params}
    if has_images:
        params["codes"] = model.replicate(transform.params)
    tokens = model.map_rows(function, params, len(rows), read, SEQUENCES)
    gathered = gather_notes(own)
    right_ones = [json.loads(gathered[place]) for place in range(len(rows))]
    return [decode_text(tokenizer, ids) for ids in tokens], right_ones
