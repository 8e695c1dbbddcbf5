"""The tab that searches the server's folder of images by text."""

from __future__ import annotations

from typing import Any

from rudolph_jax.app.studio import ALONE, Studio, errors_on_the_page, status

NO_FOLDER = (
    "Start the page with `--ruclip=FOLDER` and `--pictures=FOLDER`, and the pictures of that "
    "folder are searched here by text."
)


def search_tab(studio: Studio) -> None:
    import gradio as gr

    shelf = studio.shelf
    if shelf is None:
        gr.Markdown(NO_FOLDER)
        return
    with gr.Row(equal_height=True):
        text = gr.Textbox(
            label="What the picture shows", placeholder="рукописная цифра семь", scale=4,
            max_length=studio.limits.prompt, elem_id="sought",
        )  # fmt: skip
        most = studio.limits.pictures
        count = gr.Slider(1, most, min(12, most), step=1, label="Pictures", scale=2)
    with gr.Row():
        go = gr.Button("Search", variant="primary", elem_id="search")
        again = gr.Button("Look for new pictures", elem_id="again")
    said = gr.HTML(status(f"The folder {shelf.folder.name}"), elem_id="searched")
    gallery = gr.Gallery(
        label="Found", show_label=False, columns=6, height="auto", object_fit="contain",
        format="webp", buttons=["fullscreen"], interactive=False, elem_id="found",
    )  # fmt: skip

    def opened(progress: Any) -> str:
        album = shelf.open(lambda done, of: progress((done, of), desc="Encoding", unit="pictures"))
        left_out = f"; {len(album.unreadable)} left out as unreadable" * bool(album.unreadable)
        return status(f"{len(album.paths)} pictures in the folder {shelf.folder.name}{left_out}")

    # gradio finds its progress by this default.
    def work(text: str, count: float, progress: Any = gr.Progress()) -> tuple[str, list[Any]]:  # noqa: B008
        with errors_on_the_page(), studio.device:
            line = opened(progress)
            found = shelf.search(text, count, studio.limits)
        return line, [(each.picture, each.caption) for each in found]

    def look(progress: Any = gr.Progress()) -> str:  # noqa: B008
        with errors_on_the_page(), studio.device:
            shelf.close()
            return opened(progress)

    gr.on([go.click, text.submit], work, [text, count], [said, gallery], **ALONE)
    again.click(look, None, said, **ALONE)
