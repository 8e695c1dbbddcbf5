"""Images with captions as HTML, for notebooks."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from typing import Any

from PIL import Image

from clip_jax.config import WHITE
from clip_jax.errors import InputError
from clip_jax.image import open_image, to_rgb

SMALLEST, LARGEST = 128, 320  # pixels of the longer side, to which an image is magnified or reduced
FIGURE = (
    '<figure style="display:inline-block;vertical-align:top;margin:4px;max-width:{width}px">'
    "{content}"
    '<figcaption style="text-align:center;overflow-wrap:anywhere">{caption}</figcaption></figure>'
)


def html_sheet(images: Iterable[tuple[Any, str]]) -> str:
    """Returns images side by side, each a PNG within the HTML, with its caption below.

    images: each whatever `open_image` takes, with its caption, which is escaped. An image that
        cannot be read is replaced by the reason.
    """
    return f"<div>{''.join(_figure(image, caption) for image, caption in images)}</div>"


def _figure(source: Any, caption: str) -> str:
    try:
        image = _shown(source)
    except InputError as error:
        reason = html.escape(str(error))
        return FIGURE.format(width=LARGEST, content=reason, caption=_lines(caption))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    content = f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
    return FIGURE.format(width=max(image.width, SMALLEST), content=content, caption=_lines(caption))


def _shown(source: Any) -> Image.Image:
    """Returns an image in RGB of a size to look at: small ones in whole multiples."""
    image = to_rgb(open_image(source), WHITE)
    longer = max(image.size)
    if longer < SMALLEST:
        zoom = -(-SMALLEST // longer)
        return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    reduced = image.copy()
    reduced.thumbnail((LARGEST, LARGEST))  # never magnifies
    return reduced


def _lines(caption: str) -> str:
    return "<br>".join(html.escape(line) for line in caption.split("\n"))
