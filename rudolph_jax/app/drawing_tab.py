"""The tab that draws.

Annotations are not postponed: gradio looks among them for `gr.Request`.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rudolph_jax.app.drawing import MAX_SEED, Progress, Request, draw
from rudolph_jax.app.studio import (
    ALONE,
    AT_ONCE,
    Studio,
    errors_on_the_page,
    status,
    upload_field,
)
from rudolph_jax.image_prompts import SIDES
from rudolph_jax.sampling import IMAGE_SAMPLING

SCORES = {"cosine": "ruCLIP's cosine", "score": "RUDOLPH's own score, low is good"}
NO_DRAWING = "Say what to draw, and press Draw."


def drawing_tab(studio: Studio) -> None:
    import gradio as gr

    widest = studio.rudolph.config.image_tokens_per_side
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            prompt = gr.Textbox(
                label="Prompt", placeholder="рукописная цифра семь", lines=2,
                max_length=studio.limits.prompt, submit_btn=False, elem_id="prompt",
            )  # fmt: skip
            with gr.Row():
                count = gr.Slider(
                    1, studio.limits.pictures, min(8, studio.limits.pictures), step=1,
                    label="Pictures", elem_id="count",
                )  # fmt: skip
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120,
                    info="the same seed draws the same",
                )  # fmt: skip
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
            with gr.Accordion("Keep borders of a picture", open=False, elem_id="keep"):
                picture = upload_field("Picture", "kept-picture")
                gr.Markdown(f"How much of each side is kept, of {widest} tokens.")
                with gr.Row():
                    sides = [
                        gr.Slider(0, widest, 0, step=1, label=side, min_width=180) for side in SIDES
                    ]
            with gr.Accordion("Sampling", open=False):
                guidance = gr.Slider(
                    -2, 0.9, 0, step=0.05, label="Guidance",
                    info="share of the unconditional prediction; below 0 leads away from it, "
                    "0 is off",
                )  # fmt: skip
                temperature = gr.Slider(
                    0, 2, IMAGE_SAMPLING.temperature, step=0.05, label="Temperature",
                    info="0: always the likeliest token",
                )  # fmt: skip
                top_k = gr.Number(
                    IMAGE_SAMPLING.top_k, label="Top k", precision=0, minimum=0, info="0: off"
                )
                top_p = gr.Slider(
                    0, 1, IMAGE_SAMPLING.top_p, step=0.01, label="Top p", info="1: off"
                )
        with gr.Column(scale=3, min_width=320):
            said = gr.HTML(status(NO_DRAWING), elem_id="drawn")
            gallery = gr.Gallery(
                label="Drawings", show_label=False, columns=4, height="auto",
                object_fit="contain", buttons=["download", "fullscreen"], interactive=False,
                elem_classes=studio.gallery_classes, elem_id="drawings",
            )  # fmt: skip
            archive = gr.DownloadButton(
                "Download all as a zip", interactive=False, elem_id="archive"
            )

    def begin(session: gr.Request) -> tuple[Any, ...]:
        with errors_on_the_page():
            studio.stops.begin(str(session.session_hash))
        return (
            gr.update(interactive=False), gr.update(interactive=True),
            status("Waiting for its turn"), [], gr.update(value=None, interactive=False),
        )  # fmt: skip

    def work(
        prompt: str, count: float, seed: float, guidance: float, temperature: float,
        top_k: float, top_p: float, picture: str | None, up: float, down: float, left: float,
        right: float, session: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        borders = dict(zip(SIDES, (up, down, left, right), strict=True))
        request = Request(
            prompt, count, seed, guidance, temperature, top_k, top_p, picture, borders
        )
        stopped = studio.stops.of(str(session.session_hash)).is_set
        with errors_on_the_page(), tempfile.TemporaryDirectory() as folder:
            for progress in draw(
                studio.rudolph, studio.predictor, request, studio.limits, Path(folder),
                batch_size=studio.batch_size, stopped=stopped, device=studio.device,
            ):  # fmt: skip
                yield (
                    _line(progress), progress.pictures,
                    gr.update(value=progress.archive, interactive=progress.archive is not None),
                )  # fmt: skip

    def end(session: gr.Request) -> tuple[Any, ...]:
        studio.stops.end(str(session.session_hash))
        return gr.update(interactive=True), gr.update(interactive=False)

    def ask(session: gr.Request) -> str:
        studio.stops.ask(str(session.session_hash))
        return status("Stopping after the batch that is at work")

    begun = gr.on(
        [go.click, prompt.submit], begin, None, [go, stop, said, gallery, archive], **AT_ONCE
    )
    asked = [prompt, count, seed, guidance, temperature, top_k, top_p, picture, *sides]
    drawn = begun.success(work, asked, [said, gallery, archive], show_progress="hidden", **ALONE)
    drawn.failure(lambda: status(NO_DRAWING), None, said, **AT_ONCE)
    drawn.then(end, None, [go, stop], **AT_ONCE)
    stop.click(ask, None, said, **AT_ONCE)


def _line(progress: Progress) -> str:
    done, wanted = progress.done, progress.wanted
    ranked = f", the best first by {SCORES[progress.score]}" if progress.score else ""
    if progress.lost:
        ranked += f"; the model has no room for the prompt's end, «{progress.lost}»"
    if progress.stopped:
        return status(f"Stopped with {done} of {wanted}{ranked}")
    if progress.archive:
        return status(f"{done} drawn{ranked}")
    if not done:
        return status(f"Drawing {wanted}; the first time takes longer, to compile", 0, wanted)
    if done == wanted:
        return status("Ranking", done, wanted)
    return status(f"{done} of {wanted} drawn", done, wanted)
