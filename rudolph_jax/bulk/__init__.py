"""Drawings, captions and classes of any number of items (`clip_jax.bulk`).

draw.py       images of texts
caption.py    texts of images
classify.py   classes of images
models.py     a copy of the model on each device
command.py    the options and commands
"""
