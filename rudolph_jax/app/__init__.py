"""Web app: draw, caption, classify, search. `python -m rudolph_jax app --help`.

`image_generation.py`, `captions_and_classes.py` and `image_search.py` do the work and do not depend
on the page, which `page.py` and the tabs build with gradio, the extra `app`.
"""
