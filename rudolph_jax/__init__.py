"""RUDOLPH in JAX: one decoder for images, captions, answers and texts, and for ranking.

    rudolph = rudolph_jax.load(folder, vqgan=folder_of_the_image_tokenizer)
    images, scores = rudolph_jax.tasks.dream(rudolph, "красный круг")
"""

from clip_jax.config import Compute
from clip_jax.errors import InputError
from rudolph_jax import tasks
from rudolph_jax.config import PRESETS, VQGAN_PRESETS, MaskType, RudolphConfig, VqganConfig
from rudolph_jax.image_tokenizer import PretrainedVqgan, load_vqgan
from rudolph_jax.model import Rudolph
from rudolph_jax.notebook import ImageSheet, show
from rudolph_jax.pretrained import PretrainedRudolph, load
from rudolph_jax.upscaler.config import UPSCALER_PRESETS, UpscalerConfig
from rudolph_jax.upscaler.pretrained import PretrainedUpscaler, load_upscaler
from rudolph_jax.upscaler.rrdb import RrdbNet
from rudolph_jax.vqgan import Vqgan

__all__ = [
    "PRESETS",
    "UPSCALER_PRESETS",
    "VQGAN_PRESETS",
    "Compute",
    "ImageSheet",
    "InputError",
    "MaskType",
    "PretrainedRudolph",
    "PretrainedUpscaler",
    "PretrainedVqgan",
    "RrdbNet",
    "Rudolph",
    "RudolphConfig",
    "UpscalerConfig",
    "Vqgan",
    "VqganConfig",
    "load",
    "load_upscaler",
    "load_vqgan",
    "show",
    "tasks",
]


def __dir__() -> list[str]:
    """Lists the public names; submodules are importable all the same."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
