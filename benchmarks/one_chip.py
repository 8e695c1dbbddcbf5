"""Programs of one TPU chip by the compiler's cycles: drawing and the encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import clip_jax.config
import rudolph_jax.config
from clip_jax.config import Compute
from clip_jax.fused import shard_over
from clip_jax.layers import unstack_layers
from clip_jax.model import Clip
from clip_jax.model import abstract_params as abstract_clip
from experiments.config.run import MeshConfig
from experiments.planning.chips import CHIPS
from experiments.planning.cycles import estimate
from experiments.planning.flops import matmul_flops
from experiments.planning.topology import slice_devices
from experiments.training.partitioning import make_mesh
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate
from rudolph_jax.model import abstract_params as abstract_rudolph
from rudolph_jax.sampling import IMAGE_SAMPLING

ENCODER_BATCH = 128
SMALLEST = {"v5p": "2x2x1"}  # slices from which the chip is taken; of others 2x2


def drawing_program(preset: str, batch: int) -> tuple[Callable[..., Any], tuple[Any, ...], float]:
    """Return a function that draws `batch` images, its arguments' shapes, and how many codes."""
    config = rudolph_jax.config.PRESETS[preset]
    sampler = SamplerConfig(config, Compute(dtype="bfloat16"), "image", batch)
    codes = config.image_tokens_per_side**2
    int32 = jax.ShapeDtypeStruct((), jnp.int32)
    inputs = SamplerInputs(
        jax.ShapeDtypeStruct((1, 1, sampler.prompt_length), jnp.int32), int32, int32,
        jax.ShapeDtypeStruct((1, codes), jnp.int32), jax.ShapeDtypeStruct((1,), bool),
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch)),
        jax.tree.map(np.asarray, IMAGE_SAMPLING.to_arrays()), np.float32(1),
    )  # fmt: skip
    params = _bfloat16(unstack_layers(abstract_rudolph(config)))
    return lambda params, inputs: generate(sampler, params, inputs), (params, inputs), codes


def encoder_program(
    preset: str, tower: str
) -> tuple[Callable[..., Any], tuple[Any, ...], float]:
    """Return a function that encodes a batch, its arguments' shapes, and 1 for the batch.

    tower: "images" or "texts".
    """
    config = clip_jax.config.PRESETS[preset]
    model = Clip(config, Compute(dtype="bfloat16"), stacked=False)
    size = config.vision.image_size
    images = tower == "images"
    shape = (size, size, 3) if images else (config.text.context_length,)
    rows = jax.ShapeDtypeStruct((ENCODER_BATCH, *shape), jnp.float32 if images else jnp.int32)
    method = "encode_image" if images else "encode_text"

    def encode(params: Any, rows: jax.Array) -> Any:
        return model.apply({"params": params}, rows, method=method)

    return encode, (_bfloat16(unstack_layers(abstract_clip(config))), rows), 1.0


def measure_program(
    program: tuple[Callable[..., Any], tuple[Any, ...], float], generation: str
) -> dict[str, Any]:
    """Return {"ms", "mfu", "gb", "work"} of a code or a batch, as a row of a training step has."""
    run, shapes, units = program
    chip = CHIPS[generation]
    devices = slice_devices(f"{generation}:{SMALLEST.get(generation, '2x2')}")[:1]
    mesh = make_mesh(MeshConfig(), devices)
    place = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes
    )
    with jax.set_mesh(mesh), shard_over(("data", "fsdp")):
        traced = jax.jit(run).trace(*placed)
        compiled = traced.lower().compile()
    found = estimate(compiled.as_text(), generation, chip)
    work = {kind: 1000 * cost.seconds / units for kind, cost in found.costs.items()}
    return {
        "ms": round(1000 * found.seconds / units, 4),
        "mfu": round(matmul_flops(traced.jaxpr) / found.seconds / chip.flops, 4),
        "gb": round(compiled.memory_analysis().peak_memory_in_bytes / 1e9, 3),
        "work": {kind: round(ms, 4) for kind, ms in work.items() if ms >= 1e-3},
    }


def _bfloat16(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), params)
