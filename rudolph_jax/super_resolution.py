"""Task: images enlarged by a super-resolution network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from clip_jax.arguments import check_image_list, check_type
from rudolph_jax.upscaler.pretrained import BATCH_SIZE, PretrainedUpscaler


def super_resolution(
    pil_images: Sequence[Any], realesrgan: PretrainedUpscaler, batch_size: int = BATCH_SIZE
) -> list[Image.Image]:
    """Enlarges images, as ruDALL-E's function of this name does.

    pil_images: each whatever `clip_jax.image.open_image` takes.
    realesrgan: `rudolph_jax.load_upscaler(folder)`.
    batch_size: tiles at once; `PretrainedUpscaler.upscale` takes their size and overlap too.
    """
    check_upscaler("realesrgan", realesrgan)
    pil_images = check_image_list("pil_images", pil_images)
    return realesrgan.upscale(pil_images, batch_size=batch_size)


def check_upscaler(name: str, upscaler: Any) -> None:
    """Raises InputError unless an argument is a loaded super-resolution network."""
    check_type(name, upscaler, PretrainedUpscaler, "rudolph_jax.load_upscaler(folder)")
