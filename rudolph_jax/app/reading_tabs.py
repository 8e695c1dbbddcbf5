"""The tabs that read a picture: its captions, its class among one's own labels."""

from __future__ import annotations

import html
from typing import Any

from rudolph_jax.app.drawing import MAX_SEED, whole
from rudolph_jax.app.reading import Shares, caption, classify
from rudolph_jax.app.studio import ALONE, Studio, errors_on_the_page, upload_field

ONLY_DRAWS = "This model has no right text (a ruDALL-E?); it can only draw."
SHOWN = 10  # classes


def caption_tab(studio: Studio) -> None:
    import gradio as gr

    if not studio.rudolph.config.right_text_length:
        gr.Markdown(ONLY_DRAWS)
        return
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            picture = upload_field("Picture", "caption-picture")
            template = gr.Textbox(
                label="How each caption begins", placeholder="на картинке", elem_id="begin",
                max_length=studio.limits.prompt, info="empty: as the model likes",
            )  # fmt: skip
            with gr.Row():
                most = studio.limits.pictures
                number = gr.Slider(
                    1, most, min(16, most), step=1, label="Candidates", info="to choose from"
                )
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120
                )
            go = gr.Button("Caption", variant="primary", elem_id="caption")
        with gr.Column(scale=3, min_width=320):
            found = gr.HTML(_note("Captions appear here."), elem_id="captions")

    def work(picture: str | None, template: str, number: float, seed: float) -> str:
        with errors_on_the_page(), studio.device:
            captions = caption(
                studio.rudolph, picture, template, number, whole("seed", seed, MAX_SEED),
                studio.limits, batch_size=studio.batch_size,
            )  # fmt: skip
        return _captions(captions)

    go.click(work, [picture, template, number, seed], found, **ALONE)


def classify_tab(studio: Studio) -> None:
    import gradio as gr

    reads = bool(studio.rudolph.config.right_text_length)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            picture = upload_field("Picture", "classify-picture")
            labels = gr.Textbox(
                label="Labels", placeholder="ноль, один, два, три", lines=3, elem_id="labels",
                info="with commas, or each on a line of its own",
            )  # fmt: skip
            template = gr.Textbox(
                label="Template", placeholder="рукописная цифра {}", elem_id="template",
                max_length=studio.limits.prompt,
                info="{} stands for the label; empty: ruCLIP's six, and the label alone",
            )  # fmt: skip
            go = gr.Button("Classify", variant="primary", elem_id="classify")
        with gr.Column(scale=3, min_width=320), gr.Row():
            with gr.Column(min_width=200):
                by_ruclip = gr.Label(
                    label="ruCLIP", num_top_classes=SHOWN, elem_id="by-ruclip",
                    visible=studio.predictor is not None,
                )  # fmt: skip
                note = "Probabilities: softmax of the cosines."
                gr.Markdown(
                    note if studio.predictor else "Start the page with --ruclip=FOLDER for ruCLIP.",
                    elem_classes="note",
                )
            with gr.Column(min_width=200):
                by_rudolph = gr.Label(
                    label="RUDOLPH", num_top_classes=SHOWN, visible=reads, elem_id="by-rudolph"
                )
                note = "Shares of 1/perplexity of the label as a caption: an order, no probability."
                gr.Markdown(note if reads else ONLY_DRAWS, elem_classes="note")

    def work(picture: str | None, labels: str, template: str) -> tuple[Shares | None, ...]:
        with errors_on_the_page(), studio.device:
            found = classify(
                studio.rudolph, studio.predictor, picture, labels, template, studio.limits,
                batch_size=studio.batch_size,
            )  # fmt: skip
        return found.ruclip, found.rudolph

    go.click(work, [picture, labels, template], [by_ruclip, by_rudolph], **ALONE)


def _captions(found: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<li><b>{html.escape(each['text'])}</b>"
        f"<span>written {each['count']} times, score {each['score']:.3f}</span></li>"
        for each in found
    )
    return f'<ol class="captions">{rows}</ol>' + _note(
        "Low scores are good: how well the picture would be drawn from the caption, divided by "
        "how often it was written."
    )


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'
