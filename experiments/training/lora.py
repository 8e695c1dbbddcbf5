"""Low-rank updates: kernels stand still, products of two thin ones are trained beside them.

# L layers, I inputs, r rank, O outputs

Source: Hu et al. 2021, section 4.1.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from clip_jax.errors import InputError
from experiments.config.optimizer import LoraConfig
from experiments.objectives.objective import Batch, Metrics, Objective, Params, StepContext
from experiments.training.param_names import STACK, match_patterns

# How many axes of a kernel, after the layers', are its inputs.
INPUT_AXES = (
    (r".*attention/qkv_kernel", 1),
    (r".*attention/out_kernel", 2),
    (r".*mlp/(in|out)_kernel", 1),
    (r".*(head/kernel|projection)", 1),
)


def with_lora(objective: Objective, config: LoraConfig) -> Objective:
    """The objective over {"base": its parameters, "lora": each chosen kernel's {"a", "b"}}.

    A kernel counts as kernel + alpha / rank * a b; b begins at 0, so the first step sees the model
    as it was. What is evaluated, saved and exported has the products added in.
    """
    base = objective.abstract_params
    shapes = {
        path: _pair_shapes("/".join(path), leaf.shape, config.rank)
        for path, leaf in _chosen(base, config.kernels).items()
    }
    pairs = {
        (*path, part): jax.ShapeDtypeStruct(shape, jnp.float32)
        for path, both in shapes.items()
        for part, shape in zip("ab", both, strict=True)
    }

    def init(rng: jax.Array) -> Params:
        base_rng, lora_rng = jax.random.split(rng)
        fresh = {
            path: jax.random.normal(jax.random.fold_in(lora_rng, number), leaf.shape)
            * leaf.shape[-2] ** -0.5
            if path[-1] == "a"
            else jnp.zeros(leaf.shape)
            for number, (path, leaf) in enumerate(pairs.items())
        }
        return {"base": objective.init(base_rng), "lora": unflatten_dict(fresh)}

    def merged(params: Params) -> Params:
        return merge_lora(params, config)

    def loss(params: Params, batch: Batch, now: StepContext) -> tuple[jax.Array, Metrics]:
        return objective.loss(merged(params), batch, now)

    rules = [(f"base/{pattern}", axes) for pattern, axes in objective.sharding_rules]
    for path, leaf in pairs.items():
        rules.append((re.escape("/".join(("lora", *path))), (None,) * len(leaf.shape)))
    return dataclasses.replace(
        objective,
        abstract_params={"base": base, "lora": unflatten_dict(pairs)},
        init=init,
        loss=loss,
        sharding_rules=tuple(rules),
        pretrained=lambda params, tokenizer: objective.pretrained(merged(params), tokenizer),
        model_params=lambda params: objective.model_params(merged(params)),
        post_update=lambda params: {**params, "base": objective.post_update(params["base"])},
    )


def merge_lora(params: Mapping[str, Any], config: LoraConfig) -> Params:
    """{"base", "lora"} -> parameters of the model, the products added to their kernels."""
    kernels, pairs = flatten_dict(params["base"]), flatten_dict(params["lora"])
    for path in {path[:-1] for path in pairs}:
        product = jnp.einsum("...Ir,...rO->...IO", pairs[*path, "a"], pairs[*path, "b"])
        update = config.alpha / config.rank * product.reshape(kernels[path].shape)
        kernels[path] = kernels[path] + update.astype(kernels[path].dtype)
    return unflatten_dict(kernels)


def _chosen(params: Params, patterns: Sequence[str]) -> dict[tuple[str, ...], Any]:
    """The leaves that a pattern names, by path."""
    hits = flatten_dict(match_patterns(params, patterns, "optim.lora.kernels"))
    return {path: leaf for path, leaf in flatten_dict(params).items() if hits[path].any()}


def _pair_shapes(
    name: str, shape: tuple[int, ...], rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """[L, I, r] and [L, r, O] of a stacked kernel, else [I, r] and [r, O]."""
    inputs = [axes for pattern, axes in INPUT_AXES if re.fullmatch(pattern, name)]
    if not inputs:
        raise InputError(
            f"config.optim.lora.kernels names {name}; expected kernels of attention, mlp, head or "
            "projection"
        )
    stack = shape[:1] if STACK in name.split("/") else ()
    rest = shape[len(stack) :]
    I, O = math.prod(rest[: inputs[0]]), math.prod(rest[inputs[0] :])  # noqa: E741
    return (*stack, I, rank), (*stack, rank, O)
