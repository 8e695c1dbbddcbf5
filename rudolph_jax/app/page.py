"""The page with its four tabs.

Annotations are not postponed: gradio looks for `gr.Request` among them.
"""

from typing import Any

from rudolph_jax.app.app_state import AppState
from rudolph_jax.app.caption_and_classify_tabs import caption_tab, classify_tab
from rudolph_jax.app.draw_tab import draw_tab
from rudolph_jax.app.search_tab import search_tab

TITLE = "RUDOLPH"
DELETE_AFTER = 3600  # seconds, the age of deleted files and the interval of deletions
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


def build_page(state: AppState) -> Any:
    """Builds gradio's Blocks, not launched."""
    import gradio as gr

    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(DELETE_AFTER, DELETE_AFTER)
    ) as page:
        gr.HTML(
            f'<div id="title"><h1>{TITLE}</h1>'
            "<span>generate, caption, classify and find images with Russian texts</span></div>"
        )
        with gr.Tab("Draw", id="draw"):
            draw_tab(state)
        with gr.Tab("Caption", id="caption"):
            caption_tab(state)
        with gr.Tab("Classify", id="classify"):
            classify_tab(state)
        with gr.Tab("Search", id="search"):
            search_tab(state)

        def unload(session: gr.Request) -> None:
            state.cancellations.cancel(str(session.session_hash))
            state.cancellations.finish(str(session.session_hash))

        page.unload(unload)
    page.queue(max_size=state.limits.waiting, default_concurrency_limit=1)
    return page


def theme() -> Any:
    """Returns a theme of local fonts; gradio's own are fetched from other hosts."""
    import gradio as gr

    return gr.themes.Soft(
        primary_hue="indigo",
        font=["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
    )
