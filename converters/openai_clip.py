"""OpenAI's CLIP: the published TorchScript archive, or a plain state dict with the same names.

The config is read off the tensors' shapes, as `clip.model.build_model` does. The way back is
model.pt, a plain state dict in the archive's dtypes (float16, as published), for
`clip.model.build_model(torch.load("model.pt"))`. A TorchScript archive would need the code too;
`clip.load` (1.0.1) takes only those, for it does not rewind a file that turns out to be none.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from clip_jax.config import ClipConfig, ImageConfig, TextConfig, VisionConfig
from clip_jax.errors import InputError
from converters import torch_writer, youtokentome
from converters.clip_tables import (
    OPENAI_MARK,
    OPENAI_RULES,
    causal_mask,
    parameter_shapes,
    require_kind,
)
from converters.conversion import Model, Source, export_tensors
from converters.rules import Derived
from converters.weights import Weights, open_weights

ASKED_BY = "the shape of the other tensors"
DERIVED = (
    Derived(
        "input_resolution",
        "the picture's side, read off the position embedding",
        lambda config: np.array(config.vision.image_size, np.int64),
    ),
    Derived(
        "context_length",
        "read off the position embedding",
        lambda config: np.array(config.text.context_length, np.int64),
    ),
    Derived(
        "vocab_size",
        "read off the token embedding",
        lambda config: np.array(config.text.vocab_size, np.int64),
    ),
    Derived(
        "transformer.resblocks.{i}.attn_mask",
        "the causal mask",
        lambda config: causal_mask(config.text.context_length),
    ),
)


def read(path: Path) -> Source:
    """path: the file, or a folder that holds no other checkpoint."""
    weights = open_weights(path)
    require_kind(weights, "openai-clip", OPENAI_MARK)
    # The tensors of the two kinds are alike, but ids and pictures are prepared otherwise.
    if (weights.path.parent / youtokentome.ORIGINAL_NAME).exists():
        raise InputError(
            f"{path}: not openai-clip: a {youtokentome.ORIGINAL_NAME} lies beside it, so it looks "
            "like ruclip; use that kind"
        )
    config = _config(weights)
    return Source(
        model_kind="clip",
        config=config.to_dict(),
        weights=weights,
        rules=OPENAI_RULES,
        derived=DERIVED,
        settings=config,
        shapes=parameter_shapes(config),
        asked_by=ASKED_BY,
    )


def export(model: Model, folder: Path) -> None:
    """Writes model.pt."""
    config = ClipConfig.from_dict(model.config)
    tensors = export_tensors(model, OPENAI_RULES, DERIVED, config, parameter_shapes(config))
    torch_writer.write(folder / "model.pt", tensors)


def _config(weights: Weights) -> ClipConfig:
    width, _, patch, _ = _shape(weights, OPENAI_MARK, 4)
    tokens, _ = _shape(weights, "visual.positional_embedding", 2)
    vocab_size, text_width = _shape(weights, "token_embedding.weight", 2)
    context_length, _ = _shape(weights, "positional_embedding", 2)
    _, embed_dim = _shape(weights, "text_projection", 2)
    side = math.isqrt(max(tokens - 1, 0))
    if tokens != 1 + side**2 or not side:
        raise InputError(
            f"{weights.file_of('visual.positional_embedding')}: tensor "
            f"'visual.positional_embedding' has {tokens} rows; expected 1 + a square"
        )
    for name, size in ((OPENAI_MARK, width), ("token_embedding.weight", text_width)):
        if not size or size % 64:
            raise InputError(
                f"{weights.file_of(name)}: tensor {name!r} is {size} wide; expected a multiple of "
                "64, the size of a head"
            )
    visual_layers = _layers(weights, "visual.transformer.resblocks.")
    text_layers = _layers(weights, "transformer.resblocks.")
    try:
        return ClipConfig(
            VisionConfig(patch * side, patch, width, visual_layers, width // 64, 4 * width),
            TextConfig(
                *(vocab_size, context_length, text_width, text_layers),
                *(text_width // 64, 4 * text_width),
            ),
            embed_dim,
            bos_id=vocab_size - 2,
            eos_id=vocab_size - 1,
            pad_id=0,
            image=ImageConfig(resample="bicubic", crop="resize_then_crop"),
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error


def _shape(weights: Weights, name: str, rank: int) -> tuple[int, ...]:
    if name not in weights.tensors:
        raise InputError(f"{weights.path}: tensor {name!r} is missing; a CLIP with a ViT has it")
    shape, file = weights.tensors[name].shape, weights.file_of(name)
    if len(shape) != rank:
        raise InputError(f"{file}: tensor {name!r} has shape {list(shape)}; expected {rank} axes")
    return shape


def _layers(weights: Weights, prefix: str) -> int:
    """One more than the highest number; a gap shows later, as a missing tensor."""
    pattern = re.compile(re.escape(prefix) + r"([0-9]{1,4})\.")
    numbers = [int(m[1]) for name in weights.tensors if (m := pattern.match(name))]
    if not numbers:
        raise InputError(f"{weights.path}: tensor {prefix + '0.ln_1.weight'!r} is missing")
    return 1 + max(numbers)
