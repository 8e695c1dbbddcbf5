"""Tab that searches the server's folder of images by text."""

from __future__ import annotations

from typing import Any

from rudolph_jax.app.app_state import EXCLUSIVE, AppState, show_user_errors, status

NO_FOLDER = (
    "Start the page with `--ruclip=FOLDER` and `--images=FOLDER`, and the images of that "
    "folder are searched here by text."
)


def search_tab(state: AppState) -> None:
    import gradio as gr

    search_index = state.search_index
    if search_index is None:
        gr.Markdown(NO_FOLDER)
        return
    with gr.Row(equal_height=True):
        text = gr.Textbox(
            label="Text", placeholder="рукописная цифра семь", scale=4,
            max_length=state.limits.prompt, elem_id="sought",
        )  # fmt: skip
        largest = state.limits.images
        count = gr.Slider(1, largest, min(12, largest), step=1, label="Images", scale=2)
    with gr.Row():
        go = gr.Button("Search", variant="primary", elem_id="search")
        reload = gr.Button("Reload folder", elem_id="reload")
    status_line = gr.HTML(status(f"The folder {search_index.folder.name}"), elem_id="searched")
    gallery = gr.Gallery(
        label="Found", show_label=False, columns=6, height="auto", object_fit="contain",
        format="webp", buttons=["fullscreen"], interactive=False, elem_id="found",
    )  # fmt: skip

    def open_index(progress: Any) -> str:
        images, unreadable = search_index.open(
            lambda done, of: progress((done, of), desc="Encoding", unit="images")
        )
        skipped = f"; {unreadable} unreadable files skipped" if unreadable else ""
        return status(f"{images} images in the folder {search_index.folder.name}{skipped}")

    # gradio finds its progress by this default.
    def search(text: str, count: float, progress: Any = gr.Progress()) -> tuple[str, list[Any]]:  # noqa: B008
        with show_user_errors(), state.device:
            line = open_index(progress)
            thumbnails = search_index.search(text, count, state.limits)
        return line, [(each.image, each.caption) for each in thumbnails]

    def reload_folder(progress: Any = gr.Progress()) -> str:  # noqa: B008
        with show_user_errors(), state.device:
            search_index.close()
            return open_index(progress)

    gr.on([go.click, text.submit], search, [text, count], [status_line, gallery], **EXCLUSIVE)
    reload.click(reload_folder, None, status_line, **EXCLUSIVE)
