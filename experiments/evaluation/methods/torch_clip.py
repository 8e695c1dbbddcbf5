"""Wraps transformers' CLIPModel with a model's weights, to be timed beside it (extra `torch`)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from clip_jax import PretrainedClip
from clip_jax.config import ClipConfig
from clip_jax.layers import unstack_layers
from converters import hf_clip, rules
from converters.clip_tables import parameter_shapes


class TorchEncoder:
    """On a GPU where PyTorch has one, in the dtype of the model that it was made from."""

    name = "transformers"

    def __init__(self, clip: PretrainedClip) -> None:
        """ModuleNotFoundError where PyTorch or transformers is not installed."""
        import torch

        self._torch = torch
        self._place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = getattr(torch, clip.compute.dtype)
        self._model = clip_model(clip).to(self._place, self._dtype).eval()

    @property
    def device(self) -> str:
        if self._place.type == "cuda":
            return self._torch.cuda.get_device_name()
        return f"cpu, {self._torch.get_num_threads()} threads"

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """float32[B, H, W, 3], normalised -> float32[B, E]."""
        model = self._model
        with self._torch.inference_mode():
            placed = self._torch.from_numpy(pixels).to(self._place, self._dtype)
            pooled = model.vision_model(pixel_values=placed.permute(0, 3, 1, 2)).pooler_output
            return model.visual_projection(pooled).float().cpu().numpy()


def clip_model(clip: PretrainedClip) -> Any:
    """A CLIPModel that computes what `clip` does."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    config = clip.config
    shapes = parameter_shapes(config)
    tree = unstack_layers(jax.tree.map(np.asarray, dict(clip.params)))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    params = {"/".join(key.key for key in path): leaf for path, leaf in leaves}
    mappings = rules.resolve_rules(hf_clip.RULES, shapes)
    tensors = rules.export(mappings, (), config, params, None)
    model = CLIPModel(CLIPConfig(**_settings(config)))
    state = {name: np.asarray(tensor).astype(np.float32) for name, tensor in tensors.items()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model


def _settings(config: ClipConfig) -> dict[str, Any]:
    shared = {"hidden_act": config.activation, "layer_norm_eps": config.layer_norm_epsilon}

    def tower(part: Any) -> dict[str, Any]:
        return {
            "hidden_size": part.width,
            "intermediate_size": part.mlp_width,
            "num_hidden_layers": part.layers,
            "num_attention_heads": part.heads,
            "projection_dim": config.embed_dim,
            **shared,
        }

    text, vision = config.text, config.vision
    return {
        "projection_dim": config.embed_dim,
        "text_config": tower(text) | {
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": config.bos_id,
            "eos_token_id": config.eos_id,
            "pad_token_id": config.pad_id,
        },
        "vision_config": tower(vision) | {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
    }  # fmt: skip
