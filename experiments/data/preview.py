"""Draws preview.html: random records of a prepared set, to be looked at before training."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clip_jax.atomic_file import replace_file
from clip_jax.config import Background
from clip_jax.image import to_rgb
from clip_jax.image_file import open_image
from experiments.data.source import Split, all_texts

RECORDS, SIDE = 64, 160  # how many records at most, and the longer side of an image, in pixels
SEED = 0

_PAGE = """<!doctype html>
<html lang="ru"><meta charset="utf-8"><title>Prepared set</title>
<style>
body {{ font-family: sans-serif; margin: 1.5rem; color: #222; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
img {{ max-width: 100%; border: 1px solid #ddd; {checkered} }}
figcaption {{ font-size: .85rem; overflow-wrap: anywhere; }}
small {{ color: #777; }}
</style>
<h1>Prepared set</h1><p>{lead}</p><ul>{findings}</ul>
<main>{figures}</main></html>
"""
# Where transparent pixels keep their transparency, they show as a pattern.
_CHECKERED = (
    "background: repeating-conic-gradient(#ccc 0 25%, #fff 0 50%) 0 0 / 16px 16px;"
)


def write_preview(
    out: Path, file: Path, splits: Mapping[str, int], findings: Mapping[str, int],
    background: Background, stated: bool,
) -> None:  # fmt: skip
    """Writes a page of up to 64 random records with their texts, the same for the same set.

    splits: records by split. findings: records by kind of finding. background: under transparent
    pixels where `stated`; else they are drawn as transparent.
    """
    split = max(splits, key=splits.__getitem__)
    rows = Split(out, split)
    places = np.random.default_rng(SEED).permutation(len(rows))[:RECORDS]
    figures = []
    for place in sorted(places.tolist()):
        row = rows[place]
        texts = "<br>".join(html.escape(text) for text in all_texts(row))
        image = _image(row["image"], background, stated) if rows.has_images else ""
        key = html.escape(str(row.get("key", place)))
        figures.append(f"<figure>{image}<figcaption>{texts}<br><small>{key}</small></figcaption></figure>")
    counted = ", ".join(f"{name} {count:,}" for name, count in sorted(splits.items()))
    page = _PAGE.format(
        lead=f"{len(figures)} of {splits[split]:,} records of the split {split} ({counted})",
        findings="".join(f"<li>{count:,} {kind}</li>" for kind, count in findings.items()),
        figures="\n".join(figures),
        checkered="" if stated else _CHECKERED,
    )
    replace_file(file, page)


def _image(data: bytes, background: Background, stated: bool) -> str:
    image = open_image(data, draft_side=SIDE)
    transparent = image.has_transparency_data and not stated
    image = image.convert("RGBA") if transparent else to_rgb(image, background)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if transparent else "JPEG", quality=85)
    kind = "png" if transparent else "jpeg"
    return f'<img src="data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}">'
