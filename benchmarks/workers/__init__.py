"""Implementations to compare, each in a process of its own that serves requests (`serve.py`).

NAME_decode.py and so on serve the same tasks for one implementation each: ours, original (the
packages as published, run by the Python of their own environment) and torch (the same model in
PyTorch as one would write it for speed today).
"""
