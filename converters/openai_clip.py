"""OpenAI's CLIP: the published TorchScript archive, or a plain state dict with the same names.

The config is read off the tensors' shapes, as `clip.model.build_model` does. The vocabulary is
bpe_simple_vocab_16e6.txt.gz of OpenAI's package, or vocab.json with merges.txt as transformers has
it: beside the checkpoint, or named. Without one texts cannot be encoded. The way back is
model.pt, a plain state dict in the archive's dtypes (float16, as published), for
`clip.model.build_model(torch.load("model.pt"))`. A TorchScript archive would need the code too;
`clip.load` (1.0.1) takes only those, for it does not rewind a file that turns out to be none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_jax.config import ClipConfig, ImageConfig, TextConfig
from clip_jax.errors import InputError
from converters import byte_vocabulary, torch_writer, youtokentome
from converters.clip_shapes import (
    ASKED_BY,
    head_count,
    layer_count,
    picture_tower,
    tensor_shape,
)
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

VOCABULARY = True
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


def read(path: Path, vocabulary: Path | None = None) -> Source:
    """path: the file, or a folder that holds no other checkpoint. vocabulary: file or folder."""
    weights = open_weights(path)
    require_kind(weights, "openai-clip", OPENAI_MARK)
    # The tensors of the two kinds are alike, but ids and pictures are prepared otherwise.
    if (weights.path.parent / youtokentome.ORIGINAL_NAME).exists():
        raise InputError(
            f"{path}: not openai-clip: a {youtokentome.ORIGINAL_NAME} lies beside it, so it looks "
            "like ruclip; use that kind"
        )
    config = _config(weights)
    vocabulary = vocabulary or byte_vocabulary.beside(weights.path)
    files, others = byte_vocabulary.read(vocabulary, config)
    return Source(
        model_kind="clip",
        config=config.to_dict(),
        weights=weights,
        rules=OPENAI_RULES,
        derived=DERIVED,
        settings=config,
        shapes=parameter_shapes(config),
        asked_by=ASKED_BY,
        others=others,
        files=files,
    )


def export(model: Model, folder: Path) -> None:
    """Writes model.pt."""
    config = ClipConfig.from_dict(model.config)
    tensors = export_tensors(model, OPENAI_RULES, DERIVED, config, parameter_shapes(config))
    torch_writer.write(folder / "model.pt", tensors)


def _config(weights: Weights) -> ClipConfig:
    vision = picture_tower(weights, "visual.")
    vocab_size, text_width = tensor_shape(weights, "token_embedding.weight", 2)
    context_length, _ = tensor_shape(weights, "positional_embedding", 2)
    _, embed_dim = tensor_shape(weights, "text_projection", 2)
    text_heads = head_count(weights, "token_embedding.weight", text_width)
    text_layers = layer_count(weights, "transformer.resblocks.")
    try:
        return ClipConfig(
            vision,
            TextConfig(
                *(vocab_size, context_length, text_width, text_layers),
                *(text_heads, 4 * text_width),
            ),
            embed_dim,
            bos_id=vocab_size - 2,
            eos_id=vocab_size - 1,
            pad_id=0,
            image=ImageConfig(resample="bicubic", crop="resize_then_crop"),
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error
