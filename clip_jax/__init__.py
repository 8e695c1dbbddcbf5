"""ruCLIP, OpenAI's CLIP and their kin in JAX.

    clip = clip_jax.load(folder)
    inputs = clip.processor(text=["кошка", "собака"], images=["photo.jpg"])
    logits_per_image, logits_per_text = clip.logits(**inputs)
"""

from clip_jax.byte_bpe import ByteBpe
from clip_jax.config import (
    PRESETS,
    RUCLIP_SMALL,
    ClipConfig,
    Compute,
    ImageConfig,
    RuclipSmallConfig,
    TextConfig,
    VisionConfig,
)
from clip_jax.errors import InputError
from clip_jax.model import Clip
from clip_jax.predictor import Predictor
from clip_jax.pretrained import PretrainedClip, load
from clip_jax.processor import Processor
from clip_jax.ruclip_small import RuclipSmall
from clip_jax.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "PRESETS",
    "RUCLIP_SMALL",
    "ByteBpe",
    "Clip",
    "ClipConfig",
    "Compute",
    "ImageConfig",
    "InputError",
    "Predictor",
    "PretrainedClip",
    "Processor",
    "RuclipSmall",
    "RuclipSmallConfig",
    "TextConfig",
    "Tokenizer",
    "VisionConfig",
    "load",
    "load_tokenizer",
]


def __dir__() -> list[str]:
    """Lists the public names; submodules are importable all the same."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
