"""Writing of generated images: PNG files with metadata, and a contact sheet of all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clip_jax.model_folder import atomic_folder
from clip_jax.paths import as_path

SHEET = "sheet.png"
GAP = 8  # pixels between images of a sheet
MIN_SIDE = 128  # to which small images are magnified on a sheet


def image_metadata(
    text: str, seed: int, order: np.ndarray, scores: Mapping[str, np.ndarray]
) -> list[dict[str, object]]:
    """Returns the metadata of each image's file.

    order: int[B], indices of candidates; scores: float[candidates] by name (`tasks.rank_images`).
    """
    return [
        {
            "prompt": text,
            "seed": seed,
            "candidate": int(i),
            **{name: round(float(values[i]), 6) for name, values in scores.items()},
        }
        for i in order
    ]


def write_images(
    folder: str | Path, images: Sequence[Image.Image], metadata: Sequence[Mapping[str, object]]
) -> list[Path]:
    """Writes 01.png, 02.png, ... and `sheet.png` into a new folder; returns the images' paths.

    metadata: of each image, written as PNG text chunks (iTXt, UTF-8).
    A folder that is not empty raises InputError; an interrupted write leaves nothing.
    """
    digits = max(len(str(len(images))), 2)
    names = [f"{number:0{digits}}.png" for number in range(1, len(images) + 1)]
    with atomic_folder(folder) as beside:
        for name, image, text in zip(names, images, metadata, strict=True):
            image.save(beside / name, pnginfo=_text_chunks(text))
        contact_sheet(images).save(beside / SHEET)
    return [as_path(folder) / name for name in names]


def png_bytes(image: Image.Image, metadata: Mapping[str, object] | None = None) -> bytes:
    """Encodes an image as PNG, with metadata as text chunks."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=_text_chunks(metadata or {}))
    return buffer.getvalue()


def contact_sheet(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Arranges images on white, row by row, in about a square; small ones are magnified."""
    columns = columns or max(round(len(images) ** 0.5), 1)
    rows = -(-len(images) // columns)
    width, height = (max(sides) for sides in zip(*(p.size for p in images), strict=True))
    zoom = -(-MIN_SIDE // min(width, height)) if min(width, height) < MIN_SIDE else 1
    width, height = width * zoom, height * zoom
    size = (GAP + columns * (width + GAP), GAP + rows * (height + GAP))
    sheet = Image.new("RGB", size, "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        large = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
        sheet.paste(large, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def _text_chunks(metadata: Mapping[str, object]) -> PngInfo:
    info = PngInfo()
    for key, value in metadata.items():
        info.add_itxt(key, str(value))
    return info
