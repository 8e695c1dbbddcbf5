"""The page: four tabs.

Annotations are not postponed: gradio looks among them for `gr.Request`.
"""

from typing import Any

from rudolph_jax.app.drawing_tab import drawing_tab
from rudolph_jax.app.reading_tabs import caption_tab, classify_tab
from rudolph_jax.app.search_tab import search_tab
from rudolph_jax.app.studio import Studio

TITLE = "RUDOLPH"
FORGET = 3600  # seconds after which uploads and drawings are removed, and between looks for them
STYLE = """
.gradio-container .fillable { width: 100%; max-width: 1180px !important; }
.gradio-container .grid-wrap { min-height: 0; max-height: none; }
.gradio-container .caption-label { max-width: 100%; }
#title { display: flex; align-items: baseline; gap: .8em; flex-wrap: wrap; }
#title h1 { margin: 0; letter-spacing: .06em; }
#title span, .note, .note p, .captions span {
  color: var(--body-text-color-subdued); font-size: .9em; }
.status { display: flex; align-items: center; gap: .8em; min-height: 2em; }
.status progress { width: 12em; accent-color: var(--color-accent); }
.captions { list-style-position: inside; padding: 0; }
.captions li { padding: .6em .2em; border-bottom: 1px solid var(--border-color-primary); }
.captions li span { display: block; }
.pixels img { image-rendering: pixelated; }
"""


def build_page(studio: Studio) -> Any:
    """gradio's Blocks, not launched."""
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(FORGET, FORGET)) as page:
        gr.HTML(
            f'<div id="title"><h1>{TITLE}</h1>'
            "<span>draws, captions, classifies and finds pictures by Russian texts</span></div>"
        )
        with gr.Tab("Draw", id="draw"):
            drawing_tab(studio)
        with gr.Tab("Caption", id="caption"):
            caption_tab(studio)
        with gr.Tab("Classify", id="classify"):
            classify_tab(studio)
        with gr.Tab("Search", id="search"):
            search_tab(studio)

        def leave(session: gr.Request) -> None:
            studio.stops.ask(str(session.session_hash))
            studio.stops.end(str(session.session_hash))

        page.unload(leave)
    page.queue(max_size=studio.limits.waiting, default_concurrency_limit=1)
    return page


def theme() -> Any:
    """Of fonts that the machine has: gradio's own are fetched from elsewhere."""
    import gradio as gr

    return gr.themes.Soft(
        primary_hue="indigo",
        font=["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
    )
