"""Foreign checkpoints <-> model folders.

    python -m converters ruclip SRC DST [--dtype bfloat16]
    python -m converters rudolph SRC DST [--preset 350M]
    python -m converters openai-clip SRC DST [--activation gelu]
    python -m converters export SRC_FOLDER DST_FOLDER
    python -m converters pretrained NAME
    python -m converters push-to-hub FOLDER REPO
    python -m converters verify FOLDER

Each kind is a module with `read(path, selection) -> ForeignCheckpoint` and `export(model, folder)`,
mostly a table. A kind whose checkpoints may lack a config has PRESETS, the names of those it knows,
and `read` takes a preset. A kind with a separate vocabulary has VOCABULARY = True and takes a
vocabulary; one whose files may not name the activation has ACTIVATIONS and takes an activation.
"""

from __future__ import annotations

from converters.api import KINDS, convert, export, presets
from converters.conversion import Summary
from converters.hub import pretrained
from converters.hub_upload import push_to_hub
from converters.verification import verify

__all__ = [
    "KINDS",
    "Summary",
    "convert",
    "export",
    "presets",
    "pretrained",
    "push_to_hub",
    "verify",
]
