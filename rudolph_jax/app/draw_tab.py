"""Tab that generates images.

Annotations are not postponed: gradio looks for `gr.Request` among them.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rudolph_jax.app.app_state import (
    EXCLUSIVE,
    IMMEDIATE,
    AppState,
    show_user_errors,
    status,
    upload_field,
)
from rudolph_jax.app.image_generation import (
    MAX_SEED,
    GenerationProgress,
    GenerationRequest,
    generate_images,
)
from rudolph_jax.image_prompts import SIDES
from rudolph_jax.sampling import IMAGE_SAMPLING

SCORES = {"cosine": "ruCLIP's cosine", "score": "RUDOLPH's own score, low is good"}
IDLE = "Write a prompt, and press Draw."


def draw_tab(state: AppState) -> None:
    import gradio as gr

    widest = state.rudolph.config.image_tokens_per_side
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            prompt = gr.Textbox(
                label="Prompt", placeholder="рукописная цифра семь", lines=2,
                max_length=state.limits.prompt, submit_btn=False, elem_id="prompt",
            )  # fmt: skip
            with gr.Row():
                count = gr.Slider(
                    1, state.limits.images, min(8, state.limits.images), step=1,
                    label="Images", elem_id="count",
                )  # fmt: skip
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120,
                    info="the same seed gives the same images",
                )  # fmt: skip
            scale = state.upscaler.scale if state.upscaler else 1
            upscale = gr.Checkbox(
                False, label=f"Enlarge {scale} times", visible=state.upscaler is not None,
                info="by super-resolution, after the drawing", elem_id="upscale",
            )  # fmt: skip
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
            with gr.Accordion("Keep borders of an image", open=False, elem_id="keep"):
                image = upload_field("Image", "kept-image")
                gr.Markdown(f"Width of each kept border, of {widest} tokens.")
                with gr.Row():
                    sides = [
                        gr.Slider(0, widest, 0, step=1, label=side, min_width=180) for side in SIDES
                    ]
            with gr.Accordion("Sampling", open=False):
                guidance = gr.Slider(
                    -2, 0.9, 0, step=0.05, label="Guidance",
                    info="weight of the unconditional prediction; below 0 leads away from it, "
                    "0 is off",
                )  # fmt: skip
                temperature = gr.Slider(
                    0, 2, IMAGE_SAMPLING.temperature, step=0.05, label="Temperature",
                    info="0: greedy",
                )  # fmt: skip
                top_k = gr.Number(
                    IMAGE_SAMPLING.top_k, label="Top k", precision=0, minimum=0, info="0: off"
                )
                top_p = gr.Slider(
                    0, 1, IMAGE_SAMPLING.top_p, step=0.01, label="Top p", info="1: off"
                )
        with gr.Column(scale=3, min_width=320):
            status_line = gr.HTML(status(IDLE), elem_id="drawn")
            gallery = gr.Gallery(
                label="Drawings", show_label=False, columns=4, height="auto",
                object_fit="contain", buttons=["download", "fullscreen"], interactive=False,
                elem_classes=state.gallery_classes, elem_id="drawings",
            )  # fmt: skip
            archive = gr.DownloadButton(
                "Download all as a zip", interactive=False, elem_id="archive"
            )

    def start(session: gr.Request) -> tuple[Any, ...]:
        with show_user_errors():
            state.cancellations.start(str(session.session_hash))
        return (
            gr.update(interactive=False), gr.update(interactive=True),
            status("Queued"), [], gr.update(value=None, interactive=False),
        )  # fmt: skip

    def generate(
        prompt: str, count: float, seed: float, guidance: float, temperature: float,
        top_k: float, top_p: float, image: str | None, up: float, down: float, left: float,
        right: float, upscale: bool, session: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        borders = dict(zip(SIDES, (up, down, left, right), strict=True))
        request = GenerationRequest(
            prompt, count, seed, guidance, temperature, top_k, top_p, image, borders, bool(upscale)
        )
        is_cancelled = state.cancellations.event(str(session.session_hash)).is_set
        with show_user_errors(), tempfile.TemporaryDirectory() as folder:
            for progress in generate_images(
                state.rudolph, state.predictor, request, state.limits, Path(folder),
                batch_size=state.batch_size, is_cancelled=is_cancelled, device=state.device,
                upscaler=state.upscaler,
            ):  # fmt: skip
                yield (
                    _line(progress), progress.images,
                    gr.update(value=progress.archive, interactive=progress.archive is not None),
                )  # fmt: skip

    def finish(session: gr.Request) -> tuple[Any, ...]:
        state.cancellations.finish(str(session.session_hash))
        return gr.update(interactive=True), gr.update(interactive=False)

    def cancel(session: gr.Request) -> str:
        state.cancellations.cancel(str(session.session_hash))
        return status("Stopping after the current batch")

    started = gr.on(
        [go.click, prompt.submit],
        start,
        None,
        [go, stop, status_line, gallery, archive],
        **IMMEDIATE,
    )
    inputs = [prompt, count, seed, guidance, temperature, top_k, top_p, image, *sides, upscale]
    generated = started.success(
        generate, inputs, [status_line, gallery, archive], show_progress="hidden", **EXCLUSIVE
    )
    generated.failure(lambda: status(IDLE), None, status_line, **IMMEDIATE)
    generated.then(finish, None, [go, stop], **IMMEDIATE)
    stop.click(cancel, None, status_line, **IMMEDIATE)


def _line(progress: GenerationProgress) -> str:
    done, total = progress.done, progress.total
    ranked = f", the best first by {SCORES[progress.score]}" if progress.score else ""
    if progress.truncated:
        ranked += f"; the prompt is truncated: «{progress.truncated}»"
    if progress.stopped:
        return status(f"Stopped with {done} of {total}{ranked}")
    if progress.archive:
        enlarged = f", {progress.upscaled} times enlarged" if progress.upscaled > 1 else ""
        return status(f"{done} drawn{enlarged}{ranked}")
    if progress.upscaled > 1:
        times = f"{progress.upscaled} times"
        return status(f"{progress.enlarged} of {done} enlarged {times}", progress.enlarged, done)
    if not done:
        return status(f"Drawing {total}; the first time takes longer, to compile", 0, total)
    if done == total:
        return status("Ranking", done, total)
    return status(f"{done} of {total} drawn", done, total)
