"""OpenAI's CLIP and open_clip's: a TorchScript archive, or a state dict with the same names.

Sizes come from tensor shapes, as in `clip.model.build_model`. The activation leaves no trace in
tensors: an archive's classes name it, or open_clip_config.json next to the weights, which also
gives sizes of heads and image preprocessing; else `--activation`. The vocabulary is
bpe_simple_vocab_16e6.txt.gz of OpenAI's package, or vocab.json with merges.txt as in transformers:
next to the checkpoint, or given by path. Without one texts cannot be encoded. An export writes
model.pt, a plain state dict in the archive's dtypes (float16, as published), for
`clip.model.build_model(torch.load("model.pt"))`, with an open_clip_config.json. A TorchScript
archive would need the code too; `clip.load` (1.0.1) takes only those, for it does not rewind a file
that turns out to be none.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from clip_jax.config import ClipConfig, ImageConfig, TextConfig, VisionConfig
from clip_jax.errors import InputError
from converters import (
    byte_vocabulary,
    open_clip_config,
    scripted_activation,
    torch_writer,
    youtokentome,
)
from converters.clip_shapes import (
    CONFIG_SOURCE,
    head_count,
    infer_vision_config,
    layer_count,
    tensor_shape,
)
from converters.clip_tables import (
    OPENAI_RULES,
    causal_mask,
    parameter_shapes,
    require_kind,
)
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.open_clip_config import OpenClipConfig
from converters.rules import Derived
from converters.signatures import OPENAI_SIGNATURE
from converters.weights import Selection, Weights, open_weights

VOCABULARY = True
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")
# Names in open_clip's repositories, which also hold transformers' files.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
WIDEST_PUBLISHED = 1024  # by OpenAI, whose heads have 64 numbers; open_clip's wider ones differ
DERIVED = (
    Derived(
        "input_resolution",
        "the image's side, from the position embedding",
        lambda config: np.array(config.vision.image_size, np.int64),
    ),
    Derived(
        "context_length",
        "from the position embedding",
        lambda config: np.array(config.text.context_length, np.int64),
    ),
    Derived(
        "vocab_size",
        "from the token embedding",
        lambda config: np.array(config.text.vocab_size, np.int64),
    ),
    Derived(
        "transformer.resblocks.{i}.attn_mask",
        "the causal mask",
        lambda config: causal_mask(config.text.context_length),
    ),
)


def read(
    path: Path,
    vocabulary: Path | None = None,
    activation: str | None = None,
    selection: Selection | None = None,
) -> ForeignCheckpoint:
    """Read a checkpoint.

    path: the file, or a folder that holds one of WEIGHTS or no other checkpoint.
    vocabulary: file or folder.
    activation: one of ACTIVATIONS, where the files do not name it.
    """
    named = path.is_dir() and any((path / name).exists() for name in WEIGHTS)
    weights = open_weights(path, WEIGHTS if named else (), selection)
    require_kind(weights, "openai-clip", OPENAI_SIGNATURE)
    # The tensors of the two kinds are alike, but ids and images are prepared otherwise.
    if (weights.path.parent / youtokentome.ORIGINAL_NAME).exists():
        raise InputError(
            f"{path}: not openai-clip: a {youtokentome.ORIGINAL_NAME} is next to it, so it looks "
            "like ruclip; use that kind"
        )
    given = open_clip_config.next_to(weights.path)
    activation, told_by = _activation(weights, given, activation)
    config = _config(weights, given, activation)
    vocabulary = vocabulary or byte_vocabulary.next_to(weights.path)
    files, sidecar_files = byte_vocabulary.read(vocabulary, config)
    return ForeignCheckpoint(
        model_kind="clip",
        config=config.to_dict(),
        weights=weights,
        rules=OPENAI_RULES,
        derived=DERIVED,
        settings=config,
        shapes=parameter_shapes(config),
        config_source=open_clip_config.NAME if given else CONFIG_SOURCE,
        sidecar_files=(*([given.path] if given else []), *sidecar_files),
        original=given.original if given else {},
        files=files,
        notes={"activation": {"is": activation, "told_by": told_by}},
    )


def export(model: ModelFolder, folder: Path) -> None:
    """Write model.pt and open_clip_config.json, which names the activation."""
    config = ClipConfig.from_dict(model.config)
    tensors = export_tensors(model, OPENAI_RULES, DERIVED, config, parameter_shapes(config))
    text = json.dumps(model.original or open_clip_config.to_original(config), indent=2)
    (folder / open_clip_config.NAME).write_text(text + "\n", encoding="utf-8")
    torch_writer.write(folder / "model.pt", tensors)


def _activation(
    weights: Weights, given: OpenClipConfig | None, requested: str | None
) -> tuple[str, str]:
    """Return the activation and its source. InputError where none is named, or two differ."""
    said = {}
    if weights.script and (found := scripted_activation.read(weights.script, str(weights.path))):
        said["the classes of the TorchScript archive"] = found
    if given:
        said[open_clip_config.NAME] = given.activation
    if requested is not None:
        said["--activation"] = requested
    if not said:
        raise InputError(
            f"{weights.path}: the activation of these weights is unknown: a "
            "state dict does not name it, and no open_clip_config.json is next to it; add "
            "--activation=quick_gelu (OpenAI's) or --activation=gelu (most of open_clip's)"
        )
    if len(set(said.values())) > 1:
        both = ", ".join(f"{value} by {source}" for source, value in said.items())
        raise InputError(f"{weights.path}: its activation is {both}; expected one")
    source, value = next(iter(said.items()))
    return value, source


def _config(weights: Weights, given: OpenClipConfig | None, activation: str) -> ClipConfig:
    vision = infer_vision_config(weights, "visual.", given.vision["heads"] if given else None)
    if not given and vision.width > WIDEST_PUBLISHED:
        raise InputError(
            f"{weights.path}: its vision tower is {vision.width} wide, where heads are of several "
            f"sizes that leave no trace in tensors; put the model's {open_clip_config.NAME} next "
            "to the weights"
        )
    vocab_size, text_width = tensor_shape(weights, "token_embedding.weight", 2)
    context_length, _ = tensor_shape(weights, "positional_embedding", 2)
    _, embed_dim = tensor_shape(weights, "text_projection", 2)
    text_heads = (
        given.text["heads"] if given else head_count(weights, "token_embedding.weight", text_width)
    )
    text_layers = layer_count(weights, "transformer.resblocks.")
    try:
        text = TextConfig(
            vocab_size, context_length, text_width, text_layers, text_heads, 4 * text_width
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error
    image = ImageConfig(resample="bicubic", crop="resize_then_crop", background=None)
    if given:
        vision = dataclasses.replace(vision, mlp_width=given.vision["mlp_width"])
        text = dataclasses.replace(text, mlp_width=given.text["mlp_width"])
        image = given.image
        _check_sizes(given, vision, text, embed_dim)
    try:
        return ClipConfig(
            vision,
            text,
            embed_dim,
            activation=activation,
            layer_norm_epsilon=given.layer_norm_epsilon if given else 1e-5,
            bos_id=vocab_size - 2,
            eos_id=vocab_size - 1,
            pad_id=0,
            image=image,
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error


def _check_sizes(
    given: OpenClipConfig, vision: VisionConfig, text: TextConfig, embed_dim: int
) -> None:
    """Raise InputError where open_clip_config.json contradicts the tensors."""
    pairs = [("embed_dim", given.embed_dim, embed_dim)]
    for part, said, found in (("vision_cfg", given.vision, vision), ("text_cfg", given.text, text)):
        pairs += [(f"{part}.{key}", value, getattr(found, key)) for key, value in said.items()]
    for name, value, read_off in pairs:
        if value != read_off:
            raise InputError(f"{given.path}: {name} is {value}; the tensors say {read_off}")
