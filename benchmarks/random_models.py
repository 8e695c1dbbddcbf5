"""Models of published sizes with random weights, as folders of ours and as the originals' files.

Speed does not depend on the values. They are large enough for logits to differ, so that a
comparison of outputs can fail.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import clip_jax.config
import clip_jax.model
import rudolph_jax.config
import rudolph_jax.model
from clip_jax import model_folder
from clip_jax.cache_dir import cache_dir
from clip_jax.layers import unstack_layers
from converters import export
from experiments.data.vocabulary import train_tokenizer

STDDEV = 0.05  # of kernels and embeddings; scales of norms are around 1
MAX_VOCAB_SIZE = 100
DEFAULT_FOLDER = cache_dir() / "benchmarks"


def rudolph_folder(preset: str, work: Path = DEFAULT_FOLDER) -> Path:
    """Return a RUDOLPH model folder; write it if it is absent."""
    config = rudolph_jax.config.PRESETS[preset]
    shapes = rudolph_jax.model.abstract_params(config)
    return _folder(work / f"rudolph-{preset}", "rudolph", config, shapes)


def clip_folder(preset: str, work: Path = DEFAULT_FOLDER) -> Path:
    """Return a ruCLIP model folder; write it if it is absent."""
    config = clip_jax.config.PRESETS[preset]
    shapes = clip_jax.model.abstract_params(config)
    # The original's files have a vocabulary, if a short one.
    files = train_tokenizer([string.ascii_lowercase], MAX_VOCAB_SIZE).files
    return _folder(work / preset, "clip", config, shapes, files)


def parameter_count(preset: str) -> int:
    """Count the parameters of a RUDOLPH."""
    shapes = rudolph_jax.model.abstract_params(rudolph_jax.config.PRESETS[preset])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def original_folder(folder: Path) -> Path:
    """Return the same model as the original's files; export them if they are absent."""
    out = folder.with_name(folder.name + "-original")
    if not out.exists():
        export(folder, out)
    return out


def _folder(
    out: Path,
    kind: str,
    config: Any,
    shapes: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> Path:
    if not out.exists():
        params = random_params(unstack_layers(shapes))
        contents = {"config": config.to_dict(), "params": params, "files": files or {}}
        model_folder.write_model_folder(out, kind=kind, **contents)
    return out


def random_params(shapes: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Return random arrays of these shapes and dtypes."""
    rng = np.random.default_rng(seed)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        array = STDDEV * rng.standard_normal(leaf.shape, dtype=np.float32)
        return (array + (path[-1].key == "scale")).astype(leaf.dtype)

    params: dict[str, Any] = jax.tree_util.tree_map_with_path(fill, shapes)
    return params
