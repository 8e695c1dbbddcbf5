"""The step of `experiments.train`, on one device: loss, gradient, AdamW."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

import clip_jax
import rudolph_jax
from benchmarks.workers.inputs import (
    BETAS,
    CLIP_NORM,
    EPSILON,
    RATE,
    sequences,
    texts,
    uint8_images,
)
from benchmarks.workers.serve import serve
from clip_jax import Compute
from clip_jax.layers import stack_layers
from experiments.config.data import DataConfig
from experiments.config.run import MeshConfig, OptimConfig, TrainConfig
from experiments.configs import ruclip_vit_base_patch32_224, rudolph_350m
from experiments.planning.flops import matmul_flops
from experiments.planning.step import planned_objective
from experiments.training import partitioning
from experiments.training.optimizer import make_optimizer
from experiments.training.state import fresh_state
from experiments.training.step import make_train_step
from rudolph_jax.layout import Layout

# The fastest on a CPU: bfloat16 without conversion, layers unrolled.
COMPUTE = {
    "float32": Compute(),
    "bfloat16": Compute(dtype="bfloat16", unroll=64),
}


OPTIM = OptimConfig(
    learning_rate=RATE, schedule="constant", warmup_steps=0, beta1=BETAS[0], beta2=BETAS[1],
    epsilon=EPSILON, weight_decay=0.0, clip_norm=CLIP_NORM,
)  # fmt: skip


class TrainTasks:
    def setup(self, kind: str, folder: str, batch: int, dtype: str) -> float:
        """Return the FLOPs of a step's matmuls. kind: "clip" or "rudolph"."""
        config, params, rows = (_clip if kind == "clip" else _rudolph)(folder, batch)
        config = dataclasses.replace(
            config,
            compute=COMPUTE[dtype],
            data=DataConfig(name="none", batch_size=batch),
            mesh=MeshConfig(),
            optim=OPTIM,
        )
        mesh = partitioning.make_mesh(config.mesh, jax.devices()[:1])
        objective = planned_objective(config, mesh)
        optimizer = make_optimizer(config.optim, config.steps)
        state = jax.eval_shape(
            lambda rng: fresh_state(config, objective, optimizer, rng), jax.random.key(0)
        )
        params = jax.tree.map(jnp.asarray, params)
        # Moments start at zero, as in `optimizer.init`.
        self.state = {
            "params": params,
            "opt_state": jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state["opt_state"]),
            "step": jnp.int32(0),
            "rng": jax.random.key(0),
            "skipped": jnp.int32(0),
        }
        self.batch = {name: jnp.asarray(row) for name, row in rows.items()}
        self.context = lambda: partitioning.mesh_context(mesh, config.parallel)
        with self.context():
            traced = jax.jit(make_train_step(config, objective, optimizer), donate_argnums=0).trace(
                self.state, self.batch
            )
            self.step = traced.lower().compile()
        return matmul_flops(traced.jaxpr)

    def train(self, repeats: int) -> float:
        """Return the last step's loss, before its update."""
        with self.context():
            for _ in range(repeats):
                self.state, metrics = self.step(self.state, self.batch)
        return float(metrics["loss"])


def _clip(folder: str, batch: int) -> tuple[TrainConfig, Any, dict[str, Any]]:
    clip, config = clip_jax.load(folder), ruclip_vit_base_patch32_224.train_config()
    size, text = clip.config.vision.image_size, clip.config.text
    rows = {
        "image": uint8_images(batch, size),
        "input_ids": texts(batch, text.context_length, text.vocab_size).astype("int32"),
    }
    return dataclasses.replace(config, model=clip.config), clip.params, rows


def _rudolph(folder: str, batch: int) -> tuple[TrainConfig, Any, dict[str, Any]]:
    rudolph, config = rudolph_jax.load(folder), rudolph_350m.train_config()
    model = dataclasses.replace(rudolph.config, attention_dropout=0.0, output_dropout=0.0)
    layout = Layout(model)
    segments = (layout.left, layout.image, layout.right)
    lengths = [segment.stop - segment.start for segment in segments]
    ids = sequences(batch, *lengths, model.text_vocab_size, model.image_vocab_size)
    settings = dataclasses.replace(config.settings, legacy_boundary_label=True)
    config = dataclasses.replace(config, model=model, settings=settings)
    return config, stack_layers(rudolph.params), {"input_ids": ids.astype("int32")}


if __name__ == "__main__":
    tasks = TrainTasks()
    serve({"setup": tasks.setup, "train": tasks.train})
