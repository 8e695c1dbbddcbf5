"""The argument of the configs that begin from a model: --config=FILE:MODEL."""

from __future__ import annotations

from typing import Any

from clip_jax import model_folder
from clip_jax.errors import InputError


def read_model_config(model: str, name: str, kind: str) -> dict[str, Any]:
    """Returns the config of a model folder; InputError for none, or for one of another kind."""
    if not model:
        raise InputError(
            f"experiments/configs/{name}.py begins from a model: --config=experiments/configs/"
            f"{name}.py:MODEL, where MODEL is a model folder"
        )
    config = model_folder.read_config(model)
    if config["kind"] != kind:
        raise InputError(
            f"{model}: holds a model of kind {config['kind']!r}; {name}.py takes one of kind "
            f"{kind!r}"
        )
    return config["config"]
