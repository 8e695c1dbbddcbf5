"""Drawings as files: PNG with what made them, and one contact sheet of all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clip_jax.model_folder import atomic_folder

SHEET = "sheet.png"
GAP = 8  # pixels between images of a sheet
SMALLEST = 128  # side to which small images are magnified on a sheet


def about_drawings(
    text: str, seed: int, order: np.ndarray, scores: Mapping[str, np.ndarray]
) -> list[dict[str, object]]:
    """What each drawing's file says of itself.

    order: int[B], candidates, and scores: float[candidates] by name, of `tasks.rank_drawings`.
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


def write_drawings(
    folder: str | Path, pictures: Sequence[Image.Image], about: Sequence[Mapping[str, object]]
) -> list[Path]:
    """Writes 01.png, 02.png, ... and `sheet.png` into a new folder; returns the pictures' paths.

    about: what each file says of itself, as PNG text chunks (iTXt, UTF-8). A folder that holds
    anything raises InputError; an interrupted write leaves nothing.
    """
    digits = max(len(str(len(pictures))), 2)
    names = [f"{number:0{digits}}.png" for number in range(1, len(pictures) + 1)]
    with atomic_folder(folder) as beside:
        for name, picture, facts in zip(names, pictures, about, strict=True):
            picture.save(beside / name, pnginfo=_text_chunks(facts))
        contact_sheet(pictures).save(beside / SHEET)
    return [Path(folder) / name for name in names]


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def contact_sheet(pictures: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """All pictures on white, row by row, in about a square; small ones magnified."""
    columns = columns or max(round(len(pictures) ** 0.5), 1)
    rows = -(-len(pictures) // columns)
    width, height = (max(sides) for sides in zip(*(p.size for p in pictures), strict=True))
    zoom = -(-SMALLEST // min(width, height)) if min(width, height) < SMALLEST else 1
    width, height = width * zoom, height * zoom
    size = (GAP + columns * (width + GAP), GAP + rows * (height + GAP))
    sheet = Image.new("RGB", size, "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        large = picture.resize(
            (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
        )
        sheet.paste(large, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def _text_chunks(facts: Mapping[str, object]) -> PngInfo:
    info = PngInfo()
    for key, value in facts.items():
        info.add_itxt(key, str(value))
    return info
