"""Small checkpoints of each kind with random weights, in the formats that users have."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from clip_jax import ClipConfig, TextConfig, VisionConfig
from converters import hf_clip, rules, safetensors_file, torch_writer
from converters.clip_tables import OPENAI_RULES, parameter_shapes


def random_tensors(table, config: ClipConfig, dtype=np.float32) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    mappings = rules.resolve_rules(table, parameter_shapes(config))
    return {
        name: np.asarray(generator.normal(size=mapping.source_shape) * 0.1, dtype)
        for mapping in mappings
        for name in mapping.sources
    }


def openai_checkpoint(file: Path, vocab_size: int) -> Path:
    """OpenAI's tensors with towers 64 wide and a text table of so many rows."""
    config = ClipConfig(
        VisionConfig(image_size=16, patch_size=8, width=64, layers=1, heads=1, mlp_width=256),
        TextConfig(vocab_size, context_length=12, width=64, layers=1, heads=1, mlp_width=256),
        embed_dim=20,
    )
    torch_writer.write(file, random_tensors(OPENAI_RULES, config, np.float16))
    return file


def hf_config(config: ClipConfig) -> dict:
    """The small config in transformers' words."""
    vision, text = config.vision, config.text
    return {
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "transformers_version": "5.0.0",
        "vision_config": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "hidden_size": vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.mlp_width,
        },
        "text_config": {
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "intermediate_size": text.mlp_width,
            "bos_token_id": 58,
            "eos_token_id": 59,
        },
    }


def hf_folder(folder: Path, config: ClipConfig, layout: str = "safetensors") -> Path:
    """layout: safetensors or bin, with `-sharded` after it or not. Three dtypes and the buffers."""
    folder.mkdir()
    tensors = random_tensors(hf_clip.RULES, config)
    tensors["logit_scale"] = tensors["logit_scale"].astype(np.float16)
    tensors["text_projection.weight"] = tensors["text_projection.weight"].astype(ml_dtypes.bfloat16)
    for name, count in (("vision", config.vision.tokens), ("text", config.text.context_length)):
        tensors[f"{name}_model.embeddings.position_ids"] = np.arange(count)[None]
    write, stem = {
        "safetensors": (safetensors_file.write, "model.safetensors"),
        "bin": (torch_writer.write, "pytorch_model.bin"),
    }[layout.split("-")[0]]
    if layout.endswith("sharded"):
        names = sorted(tensors)
        places = {name: f"part{i % 2}.{stem}" for i, name in enumerate(names)}
        for shard in sorted(set(places.values())):
            write(folder / shard, {n: tensors[n] for n in names if places[n] == shard})
        index = {"metadata": {"total_size": 0}, "weight_map": places}
        (folder / f"{stem}.index.json").write_text(json.dumps(index))
    else:
        write(folder / stem, tensors)
    (folder / "config.json").write_text(json.dumps(hf_config(config)))
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    pieces += ["ab", "cd</w>", "abcd</w>", "ef", "gh", "efgh", "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nc d</w>\nab cd</w>\n")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"crop_size": 24, "size": 24, "resample": 3, "image_mean": [0.1, 0.2, 0.3]})
    )
    return folder
