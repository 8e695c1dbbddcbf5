"""Images decoded from their codes by an image tokenizer while it trains, over all devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.config import Compute
from experiments.evaluation.during_training.sharded_model import ShardedModel
from experiments.evaluation.methods.reconstruction import encoder_input, squares
from rudolph_jax.config import VqganConfig
from rudolph_jax.vqgan import Vqgan


@dataclasses.dataclass(frozen=True)
class _Reconstruct:
    """(params, {"target", "seen": float32[B, H, W, 3]}) -> each image's mean error, and codes."""

    config: VqganConfig
    compute: Compute

    def __call__(self, params: Any, rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        vqgan, variables = Vqgan(self.config, self.compute), {"params": params}
        codes = vqgan.apply(variables, rows["seen"], method="encode")
        side = rows["seen"].shape[1] // self.config.patch_size
        grid = codes.reshape(len(codes), side, side)
        decoded = vqgan.apply(variables, grid, method="decode")
        errors = jnp.abs(decoded - rows["target"]).mean(axis=(1, 2, 3))
        return {"errors": errors, "codes": codes}


def sharded_reconstruction(
    model: ShardedModel, rows: Sequence[Mapping[str, Any]] | Any, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32[N], the mean absolute error of each image, 0 to 1, and codes int32[N, n].

    rows: with an "image" each. size: of what is decoded, in pixels.
    """

    def read(places: Sequence[int]) -> dict[str, np.ndarray]:
        target = squares(model.config, [rows[place]["image"] for place in places], size)
        return {
            "target": target.astype(np.float32) / 255,
            "seen": encoder_input(model.config, target),
        }

    function = _Reconstruct(model.config, model.compute)
    found = model.map_rows(function, model.params, len(rows), read)
    return found["errors"], found["codes"]
