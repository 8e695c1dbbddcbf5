"""A sheet of a prepared set's images, to be looked at: are they upright, are they whole?"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from clip_jax.config import WHITE
from clip_jax.image import to_rgb
from clip_jax.image_file import open_image
from experiments.data.source import Split
from rudolph_jax.png_files import contact_sheet

FILE_NAME = "preview.png"
IMAGES, SIDE = 36, 160  # how many at most, and the longer side of each, in pixels


def write_preview(folder: Path, split: str) -> Path | None:
    """Writes images spread evenly over a split, upright and on white, as `preview.png`.

    Returns its path, or None for a set without images. A file is replaced whole.
    """
    rows = Split(folder, split)
    if not rows.pictured:
        return None
    thumbnails = []
    for place in np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(int).tolist():
        image = to_rgb(open_image(rows[place]["image"], draft_side=SIDE), WHITE)
        image.thumbnail((SIDE, SIDE))
        thumbnails.append(image)
    part = folder / f"{FILE_NAME}.part"
    contact_sheet(thumbnails).save(part, "PNG")
    os.replace(part, folder / FILE_NAME)
    return folder / FILE_NAME
