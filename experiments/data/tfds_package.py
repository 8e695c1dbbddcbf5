"""tensorflow_datasets, which only reading and preparing sets needs."""

from __future__ import annotations

from types import ModuleType


def import_tfds() -> ModuleType:
    # It takes a sixth of a second to import; who is told of a wrong config needs none.
    import tensorflow_datasets

    return tensorflow_datasets
