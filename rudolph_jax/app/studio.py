"""What all tabs of the page share."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_jax import Predictor
from clip_jax.cli import describe_error
from clip_jax.text import escape
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.searching import Shelf
from rudolph_jax.app.stops import Stops
from rudolph_jax.pretrained import PretrainedRudolph

SMALL = 128  # images with a smaller side are magnified without being smoothed
# One task at a time; gradio's queue holds the rest. Nothing is offered to its client libraries.
ALONE: dict[str, Any] = {
    "concurrency_id": "models",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
LESS_MEMORY = "fewer pictures at once (--batch-size) or --dtype=bfloat16"


@dataclasses.dataclass(frozen=True)
class Studio:
    """predictor: of ruCLIP, if there is one. shelf: the images to search, if there are any.

    device: held by whoever lets a model work.
    """

    rudolph: PretrainedRudolph
    predictor: Predictor | None
    shelf: Shelf | None
    limits: Limits
    batch_size: int
    device: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    stops: Stops = dataclasses.field(default_factory=Stops)

    @property
    def gallery_classes(self) -> list[str]:
        return ["pixels"] if self.rudolph.image_size < SMALL else []


@contextlib.contextmanager
def errors_on_the_page() -> Iterator[None]:
    """A user's error is shown in one line; one that is nobody's input is traced in the terminal."""
    import gradio as gr

    try:
        yield
    except Exception as error:
        line, status = describe_error(error, LESS_MEMORY, {})
        if not status:
            raise
        line = html.escape(escape(" ".join(line.split())))
        raise gr.Error(line, print_exception=False) from error


def upload_field(label: str, name: str) -> Any:
    """An image that is dropped, chosen or pasted; what is asked of it gets its file's path."""
    import gradio as gr
    from gradio.utils import get_upload_folder

    field = gr.Image(
        label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=280,
        buttons=[], elem_id=name,
    )  # fmt: skip
    move = field.async_move_resource_to_block_cache

    async def uploaded(path: str) -> str:
        if "://" in path:
            raise gr.Error("a picture is taken from a file alone", print_exception=False)
        if Path(get_upload_folder()).resolve() not in Path(path).resolve().parents:
            raise gr.Error("a picture is taken from what was uploaded", print_exception=False)
        return await move(path)

    # gradio's own fetch an address that a client sends in a file's place, and open the image
    # before its size is known to be within the limits.
    field.async_move_resource_to_block_cache = uploaded
    field.preprocess = lambda payload: payload.path if payload else None
    return field


def status(text: str, done: int = 0, wanted: int = 0) -> str:
    """HTML of a line, and of a bar where something is under way."""
    bar = f'<progress value="{done}" max="{wanted}"></progress>' if wanted else ""
    return f'<div class="status">{bar}<span>{html.escape(escape(text))}</span></div>'
