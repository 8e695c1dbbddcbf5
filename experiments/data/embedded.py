"""The data sets that come out of ordinary wheels: what they are called, and how they are built."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

from absl import logging as absl_logging

from clip_jax.errors import InputError

SETS = ("digits_ru", "emoji_ru")


def prepare(name: str, directory: str | Path) -> Path:
    """Builds an embedded set into `directory` unless it lies there; returns its version's folder.

    Takes seconds, needs no network. TFDS writes beside and renames, so an interrupted build leaves
    nothing that looks finished.
    """
    if name not in SETS:
        raise InputError(f"data set {name!r} is unknown; expected one of {', '.join(SETS)}")
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("etils").setLevel(logging.ERROR)
    import tensorflow_datasets as tfds  # slow, and not needed to refuse a name

    from experiments.data.builders import BUILDERS  # classes of TFDS, which is imported only now

    # The default format would need TensorFlow.
    builder = BUILDERS[name](data_dir=str(directory), file_format="array_record")
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download that there is not
        builder.download_and_prepare()
    return Path(builder.data_path)
