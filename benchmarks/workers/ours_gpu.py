"""Pieces of work for `benchmarks.gpu`, on models whose random weights are made on the device.

A piece that fails replies with its error, so that the process can go on with the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.backend import get_backend

import clip_jax.config
import clip_jax.model
import rudolph_jax.config
import rudolph_jax.model
from benchmarks.random_models import STDDEV
from benchmarks.workers.inputs import embeddings, sequences, texts, uint8_images
from benchmarks.workers.sampler_inputs import image_inputs
from benchmarks.workers.serve import serve
from clip_jax import Compute
from clip_jax.contrastive import contrastive_loss
from clip_jax.fused import force_kernel
from clip_jax.layers import MATMUL_MODULES, unstack_layers
from experiments.config.run import MeshConfig, TrainConfig
from experiments.planning.flops import matmul_flops
from experiments.planning.step import planned_objective, trace_step
from experiments.training import partitioning
from experiments.training.optimizer import make_optimizer
from experiments.training.state import fresh_state
from rudolph_jax import decode, gpu_loop
from rudolph_jax.layout import Layout

BFLOAT16 = Compute(dtype="bfloat16")
LOSS_WIDTH, LOSS_SCALE = 512, 14.3


def machine() -> dict[str, str]:
    """Return the names and versions of device, driver and libraries."""
    device, version = jax.devices()[0], get_backend().platform_version
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "runtime": " ".join(version.split()),
        "jax": jax.__version__,
        "jaxlib": importlib.import_module("jaxlib").__version__,
    }


def roofs(side: int, megabytes: int, seconds: float) -> dict[str, float]:
    """Return what a product of bfloat16 squares and a read of memory reach, a second."""
    square = jnp.ones((side, side), jnp.bfloat16)
    array = jnp.ones((megabytes, 2**18), jnp.float32)
    product, total = jax.jit(jnp.matmul), jax.jit(jnp.sum)
    return {
        "flops": 2 * side**3 / _seconds_per_call(lambda: product(square, square), seconds),
        "read": array.nbytes / _seconds_per_call(lambda: total(array), seconds),
    }


def draw(preset: str, batch: int, plain: bool, seconds: float) -> dict[str, Any]:
    """Time codes in the middle of an image, as `benchmarks.workers.ours_decode` does."""
    config = rudolph_jax.config.PRESETS[preset]
    params = _random_params(rudolph_jax.model.abstract_params(config))
    sampler = decode.SamplerConfig(config, BFLOAT16, "image", batch)
    inputs, length = image_inputs(config, batch), Layout(config).image_length
    codes = length // 2  # of a call; a call begins in the middle
    with gpu_loop.forced(not plain):
        prompt, state = jax.jit(decode.prefill, static_argnums=0)(sampler, params, inputs)
        state = state._replace(position=jnp.int32(length - codes - 1))
        loop = jax.jit(
            decode.sample_loop, static_argnums=(0, 5), compiler_options=gpu_loop.options()
        )
        run = loop.lower(sampler, params, inputs, prompt, state, codes).compile()
        taken = _seconds_per_call(lambda: run(params, inputs, prompt, state).tokens, seconds)
    return {"rate": batch * codes / taken, "bytes": _bytes(run)}


def encode(preset: str, tower: str, batch: int, plain: bool, seconds: float) -> dict[str, Any]:
    """Time a tower of ruCLIP on inputs that are on the device already."""
    config = clip_jax.config.PRESETS[preset]
    params = _random_params(clip_jax.model.abstract_params(config))
    module = clip_jax.model.Clip(config, BFLOAT16, stacked=False)
    size, text = config.vision.image_size, config.text
    rows: jax.Array
    if tower == "image":
        rows = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
    else:
        rows = jnp.asarray(texts(batch, text.context_length, text.vocab_size), jnp.int32)
    with force_kernel("off" if plain else None):
        encode = jax.jit(
            lambda params, rows: module.apply({"params": params}, rows, method=f"encode_{tower}")
        )
        run = encode.lower(params, rows).compile()
        taken = _seconds_per_call(lambda: run(params, rows), seconds)
    return {"rate": batch / taken, "bytes": _bytes(run)}


def train(
    config: str, preset: str, batch: int, fp8: bool, plain: bool, seconds: float, smallest: int = 1
) -> dict[str, Any]:
    """Time the step of an experiment's config on one device; "flops" are the model's, of a second.

    preset: in place of the config's model; "": the config's.
    batch: halved, down to `smallest`, where it does not fit. fp8: `config.fp8_products`.
    """
    while True:
        try:
            return _train(config, preset, batch, fp8, plain, seconds)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or batch // 2 < smallest:
                raise
        jax.clear_caches()
        batch //= 2


def _train(
    name: str, preset: str, batch: int, fp8: bool, plain: bool, seconds: float
) -> dict[str, Any]:
    config: TrainConfig = importlib.import_module(f"experiments.configs.{name}").train_config()
    presets: Any = clip_jax.config if config.objective == "clip" else rudolph_jax.config
    config = dataclasses.replace(
        config,
        model=presets.PRESETS[preset] if preset else config.model,
        mesh=MeshConfig(),
        data=dataclasses.replace(config.data, batch_size=batch),
        grad_accum_steps=1,
        fp8_products=fp8,
    )
    devices = jax.devices()[:1]
    compute = dataclasses.replace(config.compute, remat="none", fused_attention=False)
    counted = trace_step(dataclasses.replace(config, compute=compute), devices)
    flops = matmul_flops(counted.traced.jaxpr)
    with force_kernel("off" if plain else None):
        step = trace_step(config, devices)
        run = step.traced.lower().compile()
    objective = planned_objective(config, step.mesh)
    optimizer = make_optimizer(config.optim, config.steps, config.extensions)
    with partitioning.mesh_context(step.mesh, config.parallel):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, step.state)
        fresh = jax.jit(partial(fresh_state, config, objective, optimizer), out_shardings=shardings)
        state, rows = fresh(jax.random.key(0)), _rows(config, step.batch)

        def one() -> jax.Array:
            nonlocal state
            state, metrics = run(state, rows)
            return metrics["loss"]

        taken = _seconds_per_call(one, seconds)
    return {"rate": batch / taken, "flops": flops / taken, "batch": batch, "bytes": _bytes(run)}


def _rows(config: TrainConfig, shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Make a batch as the config's loss takes it."""
    batch, model = config.data.batch_size, config.model
    if config.objective == "clip":
        size, text = model.vision.image_size, model.text
        rows = {
            "image": uint8_images(batch, size),
            "input_ids": texts(batch, text.context_length, text.vocab_size),
        }
    else:
        layout = Layout(model)
        lengths = [part.stop - part.start for part in (layout.left, layout.image, layout.right)]
        rows = {
            "input_ids": sequences(batch, *lengths, model.text_vocab_size, model.image_vocab_size)
        }
    for name, shape in shapes.items():
        rows.setdefault(name, np.zeros(shape.shape, shape.dtype))
    return {
        name: jax.device_put(rows[name].astype(shape.dtype), shape.sharding)
        for name, shape in shapes.items()
    }


def loss(batch: int, plain: bool, seconds: float) -> dict[str, Any]:
    """Time the contrastive loss of all pairs with its gradient, tiled; plain: gathered."""
    form = "gathered" if plain else "tiled"
    inputs = (*map(jax.device_put, embeddings(batch, LOSS_WIDTH)), jnp.float32(LOSS_SCALE))
    step = jax.jit(jax.value_and_grad(partial(contrastive_loss, form=form), (0, 1), has_aux=True))
    run = step.lower(*inputs).compile()
    taken = _seconds_per_call(lambda: run(*inputs), seconds)
    return {"rate": batch / taken, "bytes": _bytes(run)}


def _random_params(shapes: Any) -> Any:
    """Make parameters of stacked shapes on the device, unstacked, kernels of layers in bfloat16."""
    unstacked = unstack_layers(shapes)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
        names = {entry.key for entry in path}
        array = STDDEV * jax.random.normal(key, leaf.shape) + ("scale" in names)
        return array.astype(jnp.bfloat16 if names & set(MATMUL_MODULES) else leaf.dtype)

    @jax.jit
    def make(key: jax.Array) -> Any:
        leaves, tree = jax.tree_util.tree_flatten_with_path(unstacked)
        keys = jax.random.split(key, len(leaves))
        return tree.unflatten(
            fill(path, leaf, key) for (path, leaf), key in zip(leaves, keys, strict=True)
        )

    return make(jax.random.key(0))


def _seconds_per_call(call: Callable[[], Any], seconds: float) -> float:
    """Return the fastest of three rounds, together about so many seconds, after two calls."""
    jax.block_until_ready(call())
    begun = time.perf_counter()
    jax.block_until_ready(call())
    repeats = max(int(seconds / 3 / (time.perf_counter() - begun)), 1)
    rounds = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(repeats):
            out = call()
        jax.block_until_ready(out)
        rounds.append((time.perf_counter() - begun) / repeats)
    return min(rounds)


def _bytes(run: Any) -> int:
    """Return what a compiled program holds of the device's memory."""
    used = run.memory_analysis()
    return int(used.argument_size_in_bytes + used.output_size_in_bytes
               - used.alias_size_in_bytes + used.temp_size_in_bytes)  # fmt: skip


def _caught(task: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Turn an error of a task into {"error": its first line}, and free what it had made."""

    def run(**arguments: Any) -> dict[str, Any]:
        try:
            return task(**arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next row can be measured
            text = next(iter(str(error).splitlines()), "")
            return {"error": f"{type(error).__name__}: {text}"[:300]}
        finally:
            jax.clear_caches()

    return run


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        pieces = {"draw": draw, "encode": encode, "train": train, "loss": loss, "roofs": roofs}
        serve({"machine": machine, **{name: _caught(task) for name, task in pieces.items()}})
