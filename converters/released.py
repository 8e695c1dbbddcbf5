"""Find released models for `load(NAME)`: the entry point of the group "rudolph_jax.released"."""

from __future__ import annotations

import difflib
from pathlib import Path

from clip_jax.errors import InputError
from converters.hub import newest_cached, pretrained
from converters.hub_errors import UnreachableError
from converters.registry import PUBLISHED_MODELS

# How a published model is converted -> the kind of its model folder. "": detected, OpenAI's CLIP.
LOADERS = {
    "": "clip",
    "ruclip": "clip",
    "ruclip-small": "clip",
    "rudolph": "rudolph",
    "rudalle": "rudolph",
    "vqgan": "vqgan",
    "real-esrgan": "upscaler",
}


def released(name: str, kind: str) -> Path:
    """Return the folder of a released model: the newest in the cache, else from `hub.pretrained`.

    The hub is asked only where the cache has none; `pretrained` asks it for a newer commit.
    kind: "clip", "rudolph", "vqgan" or "upscaler".
    An unknown name, or a model of another kind, raises InputError before anything is downloaded.
    """
    if name not in PUBLISHED_MODELS:
        known = [each for each, model in PUBLISHED_MODELS.items() if LOADERS[model.kind] == kind]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no released model has this name: {hint}known are {', '.join(known)}")
    if LOADERS[PUBLISHED_MODELS[name].kind] != kind:
        found = LOADERS[PUBLISHED_MODELS[name].kind]
        raise InputError(f"the released model of this name is of kind {found!r}; expected {kind!r}")
    try:
        return newest_cached(name) or pretrained(name)
    except UnreachableError as error:
        raise UnreachableError(
            f"{error}; without a network, copy the folder that python -m converters pretrained "
            f"{name} prints on a machine with one, and load that"
        ) from error
