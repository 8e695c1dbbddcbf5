"""A page in the browser: draw, caption, classify, search. `python -m rudolph_jax app --help`.

`drawing.py`, `reading.py` and `searching.py` do the work and know nothing of the page, which the
files `*_tab.py` and `page.py` build with gradio, the extra `app`.
"""
