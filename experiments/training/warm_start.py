"""Loads the parameters of a model folder into a fresh state."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clip_jax import model_folder
from clip_jax.errors import InputError
from clip_jax.layers import stack_layers
from clip_jax.paths import as_path
from clip_jax.position_embedding import resize_position_embedding
from clip_jax.tokenizer import FILE_NAME, Tokenizer
from experiments.config.data import DataConfig
from experiments.config.run import TrainConfig, flatten
from experiments.objectives.objective import Objective, Params, Pretrained
from experiments.training.param_names import match_patterns
from experiments.training.state import State, merge_params

# What of two models' configs may differ: how they are trained, what they read, and what shapes
# tell. All else, such as an activation, would be wrong without a word.
FREE = (
    "attention_dropout", "output_dropout", "embedding_gradient_scale", "logit_bias",
    "bos_id", "eos_id", "pad_id", "lowercase", "image.", "vision.", "text.", "embed_dim",
    "text_vocab_size", "image_vocab_size", "text_special_tokens", "image_special_tokens",
)  # fmt: skip
POSITIONS, TEXT_POSITIONS = ("visual", "position_embedding"), ("text", "position_embedding")
# By objective: the table that has a row for each piece of the vocabulary.
TOKEN_TABLES = {"clip": "text/token_embedding", "rudolph": "text_embedding"}


def initial_vocabulary(config: TrainConfig) -> DataConfig:
    """`config.data`, with the vocabulary of `config.init.folder` where none is named.

    A new one would give the rows of that model's token table other meanings. Where the table keeps
    its fresh values (`config.init.reinitialize`), so may the vocabulary be new. A folder that lacks
    the vocabulary raises InputError.
    """
    folder, table = config.init.folder, TOKEN_TABLES.get(config.objective)
    fresh = table and any(re.fullmatch(pattern, table) for pattern in config.init.reinitialize)
    if not folder or config.data.vocabulary or table is None or fresh:
        return config.data
    if not (as_path(folder) / FILE_NAME).is_file():
        raise InputError(
            f"config.init.folder {folder} has no {FILE_NAME}, which its token table belongs to; "
            f"name it by config.data.vocabulary, or leave {table} by config.init.reinitialize"
        )
    return dataclasses.replace(config.data, vocabulary=folder)


def load_initial_params(state: State, config: TrainConfig) -> State:
    """Returns `state` with the parameters of `config.init.folder`, sharded as the fresh ones.

    An image tower's position embedding is resized to the config's resolution, and a text tower's is
    cut to a shorter context; any other parameter of another shape, or one that the folder lacks,
    raises InputError unless `config.init.reinitialize` names it.
    """
    if not config.init.folder:
        return state
    source = _read(config)
    lora = bool(config.optim.lora.rank)
    fresh = state["params"]["base"] if lora else state["params"]
    matched = match_patterns(fresh, config.init.reinitialize, "init.reinitialize")
    reinitialized = flatten_dict(matched)
    taken = {}
    for path, leaf in flatten_dict(fresh).items():
        if reinitialized[path].all():
            continue
        value = _fitting(path, source.get(path), leaf.shape, config)
        if reinitialized[path].any():  # some layers of a stack
            shape = (-1, *[1] * (leaf.ndim - 1))
            value = np.where(reinitialized[path].reshape(shape), np.asarray(leaf), value)
        taken[path] = jax.device_put(value.astype(leaf.dtype), leaf.sharding)
    params = merge_params(fresh, unflatten_dict(taken))
    begun = {**state, "params": {**state["params"], "base": params} if lora else params}
    if "ema" in state:
        begun["ema"] = jax.tree.map(jnp.copy, _like(state["ema"], begun["params"]))
    return begun


def with_initial_weights(objective: Objective, config: TrainConfig) -> Objective:
    """Returns the objective whose model is averaged with `config.init.folder`'s parameters.

    A parameter is `wise_ft` times the folder's plus the rest times the trained one; those that
    `config.init.reinitialize` names stay as they were trained. Source: Wortsman et al. 2022,
    section 3.
    """
    weight = config.init.wise_ft
    if not weight:
        return objective
    read = functools.cache(lambda: _read(config))

    def average(params: Params) -> Params:
        source = read()
        matched = match_patterns(params, config.init.reinitialize, "init.reinitialize")
        reinitialized = flatten_dict(matched)
        averaged = {}
        for path, leaf in flatten_dict(params).items():
            averaged[path] = leaf
            if reinitialized[path].all():
                continue
            value = _fitting(path, source.get(path), leaf.shape, config)
            shape = (-1, *[1] * (leaf.ndim - 1)) if reinitialized[path].any() else ()
            share = np.where(reinitialized[path].reshape(shape), 0, weight) if shape else weight
            averaged[path] = ((1 - share) * leaf + share * value).astype(leaf.dtype)
        return unflatten_dict(averaged)

    def pretrained(params: Params, tokenizer: Tokenizer | None) -> Pretrained:
        return objective.pretrained(average(params), tokenizer)

    return dataclasses.replace(
        objective,
        pretrained=pretrained,
        model_params=lambda params: average(objective.model_params(params)),
    )


def _read(config: TrainConfig) -> dict[tuple[str, ...], np.ndarray]:
    """Parameters by path, layers stacked."""
    folder = config.init.folder
    about = model_folder.read_config(folder)
    own = config.extensions.objectives.get(config.objective)
    if about["kind"] != (own.kind if own else config.objective):
        raise InputError(
            f"config.init.folder is {folder}, a model of kind {about['kind']!r}; objective "
            f"{config.objective!r} begins from one of its own kind"
        )
    wanted = flatten(json.loads(json.dumps(config.model.to_dict())))
    found = flatten(about["config"])
    for key, value in wanted.items():
        if key in found and found[key] != value and not key.startswith(FREE):
            raise InputError(
                f"config.init.folder {folder} has {key} = {found[key]!r}, config.model.{key} is "
                f"{value!r}; its parameters would mean something else"
            )
    return flatten_dict(stack_layers(model_folder.read_params(folder)))


def _fitting(
    path: tuple[str, ...], value: np.ndarray | None, shape: tuple[int, ...], config: TrainConfig
) -> np.ndarray:
    name = "/".join(path)
    if value is not None:
        value = np.asarray(value)
        if value.shape == shape:
            return value
        if path == POSITIONS and value.shape[1] == shape[1]:
            return resize_position_embedding(value, config.model.vision.patches_per_side)
        if path == TEXT_POSITIONS and value.shape[1] == shape[1]:
            # Text is causal: the positions that stay mean what they meant in a longer context.
            if shape[0] < value.shape[0]:
                return value[: shape[0]]
            raise InputError(
                f"config.model.text.context_length is {shape[0]}, that of {config.init.folder} is "
                f"{value.shape[0]}; its later positions were never trained: give that length or a "
                "shorter one, or begin with fresh positions by --config.init.reinitialize="
                f"\"('{name}',)\""
            )
    found = "is not there" if value is None else f"is {list(value.shape)}"
    raise InputError(
        f"{config.init.folder}: {name} {found}; expected {list(shape)}; "
        "config.init.reinitialize can name "
        "it, to begin with fresh values"
    )


def _like(branches: Any, params: Any) -> Any:
    """The leaves of `params` that a tree with some of its branches has."""
    return {
        key: _like(value, params[key]) if isinstance(value, dict) else params[key]
        for key, value in branches.items()
    }
