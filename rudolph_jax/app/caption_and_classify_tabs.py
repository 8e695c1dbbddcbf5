"""Tabs that caption an image, and classify it among the user's labels."""

from __future__ import annotations

import html
from typing import Any

from rudolph_jax.app.app_state import EXCLUSIVE, AppState, show_user_errors, upload_field
from rudolph_jax.app.captions_and_classes import LabelScores, caption, classify
from rudolph_jax.app.image_generation import MAX_SEED, parse_int

ONLY_DRAWS = "This model has no right text (a ruDALL-E?); it can only draw."
MAX_CLASSES = 10  # shown


def caption_tab(state: AppState) -> None:
    import gradio as gr

    if not state.rudolph.config.right_text_length:
        gr.Markdown(ONLY_DRAWS)
        return
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            image = upload_field("Image", "caption-image")
            template = gr.Textbox(
                label="Beginning of each caption", placeholder="на картинке", elem_id="begin",
                max_length=state.limits.prompt, info="optional",
            )  # fmt: skip
            with gr.Row():
                largest = state.limits.images
                number = gr.Slider(
                    1, largest, min(16, largest), step=1, label="Candidates", info="to choose from"
                )
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120
                )
            go = gr.Button("Caption", variant="primary", elem_id="caption")
        with gr.Column(scale=3, min_width=320):
            found = gr.HTML(_note("Captions appear here."), elem_id="captions")

    def generate_captions(image: str | None, template: str, number: float, seed: float) -> str:
        with show_user_errors(), state.device:
            captions = caption(
                state.rudolph, image, template, number, parse_int("seed", seed, MAX_SEED),
                state.limits, batch_size=state.batch_size,
            )  # fmt: skip
        return _captions(captions)

    go.click(generate_captions, [image, template, number, seed], found, **EXCLUSIVE)


def classify_tab(state: AppState) -> None:
    import gradio as gr

    has_right_text = bool(state.rudolph.config.right_text_length)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            image = upload_field("Image", "classify-image")
            labels = gr.Textbox(
                label="Labels", placeholder="ноль, один, два, три", lines=3, elem_id="labels",
                info="separated by commas or lines",
            )  # fmt: skip
            template = gr.Textbox(
                label="Template", placeholder="рукописная цифра {}", elem_id="template",
                max_length=state.limits.prompt,
                info="{} stands for the label; empty: ruCLIP's six, and the label alone",
            )  # fmt: skip
            go = gr.Button("Classify", variant="primary", elem_id="classify")
        with gr.Column(scale=3, min_width=320), gr.Row():
            with gr.Column(min_width=200):
                by_ruclip = gr.Label(
                    label="ruCLIP", num_top_classes=MAX_CLASSES, elem_id="by-ruclip",
                    visible=state.predictor is not None,
                )  # fmt: skip
                note = "Probabilities: softmax of the cosines."
                gr.Markdown(
                    note if state.predictor else "Start the page with --ruclip=FOLDER for ruCLIP.",
                    elem_classes="note",
                )
            with gr.Column(min_width=200):
                by_rudolph = gr.Label(
                    label="RUDOLPH",
                    num_top_classes=MAX_CLASSES,
                    visible=has_right_text,
                    elem_id="by-rudolph",
                )
                note = (
                    "Normalized 1/perplexity of the label as a caption: an order, no probability."
                )
                gr.Markdown(note if has_right_text else ONLY_DRAWS, elem_classes="note")

    def classify_image(
        image: str | None, labels: str, template: str
    ) -> tuple[LabelScores | None, ...]:
        with show_user_errors(), state.device:
            found = classify(
                state.rudolph, state.predictor, image, labels, template, state.limits,
                batch_size=state.batch_size,
            )  # fmt: skip
        return found.ruclip, found.rudolph

    go.click(classify_image, [image, labels, template], [by_ruclip, by_rudolph], **EXCLUSIVE)


def _captions(found: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<li><b>{html.escape(each['text'])}</b>"
        f"<span>generated {each['count']} times, score {each['score']:.3f}</span></li>"
        for each in found
    )
    return f'<ol class="captions">{rows}</ol>' + _note(
        "Low scores are good: mainly the image's perplexity given the caption, divided by the "
        "caption's count."
    )


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'
