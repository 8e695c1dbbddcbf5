"""State and components shared by all tabs of the page."""

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
from rudolph_jax.app.cancellation import CancellationRegistry
from rudolph_jax.app.image_search import SearchTabIndex
from rudolph_jax.app.limits import Limits
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.upscaler.pretrained import PretrainedUpscaler

SMALL_SIDE = 128  # smaller images are magnified without smoothing
# One task at a time, the rest in gradio's queue. Nothing is exposed to gradio's clients.
EXCLUSIVE: dict[str, Any] = {
    "concurrency_id": "models",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
IMMEDIATE: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
OOM_HINT = "fewer images at once (--batch-size) or --dtype=bfloat16"


@dataclasses.dataclass(frozen=True)
class AppState:
    """State of the app.

    predictor: of ruCLIP, or None. search_index: of the images to search, or None. upscaler: of
        drawings, or None.
    device: lock that is held while a model runs.
    """

    rudolph: PretrainedRudolph
    predictor: Predictor | None
    search_index: SearchTabIndex | None
    limits: Limits
    batch_size: int
    upscaler: PretrainedUpscaler | None = None
    device: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    cancellations: CancellationRegistry = dataclasses.field(default_factory=CancellationRegistry)

    @property
    def gallery_classes(self) -> list[str]:
        return ["pixels"] if self.rudolph.image_size < SMALL_SIDE else []


@contextlib.contextmanager
def show_user_errors() -> Iterator[None]:
    """Shows InputError and the like in one line on the page; others are traced in the terminal."""
    import gradio as gr

    try:
        yield
    except Exception as error:
        line, status = describe_error(error, OOM_HINT, {})
        if not status:
            raise
        line = html.escape(escape(" ".join(line.split())))
        raise gr.Error(line, print_exception=False) from error


def upload_field(label: str, name: str) -> Any:
    """Builds a field for an uploaded or pasted image, whose value is the path of its file."""
    import gradio as gr
    from gradio.utils import get_upload_folder

    field = gr.Image(
        label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=280,
        buttons=[], elem_id=name,
    )  # fmt: skip
    move = field.async_move_resource_to_block_cache

    async def check_uploaded(path: str) -> str:
        if "://" in path:
            raise gr.Error("only uploaded files are accepted as images", print_exception=False)
        if Path(get_upload_folder()).resolve() not in Path(path).resolve().parents:
            raise gr.Error("only uploaded files are accepted as images", print_exception=False)
        return await move(path)

    # gradio's own methods fetch a URL that a client sends instead of a file, and open the image
    # before its size is checked.
    field.async_move_resource_to_block_cache = check_uploaded
    field.preprocess = lambda payload: payload.path if payload else None
    return field


def status(text: str, done: int = 0, total: int = 0) -> str:
    """Returns HTML of a line of text, with a progress bar where `total` is given."""
    bar = f'<progress value="{done}" max="{total}"></progress>' if total else ""
    return f'<div class="status">{bar}<span>{html.escape(escape(text))}</span></div>'
