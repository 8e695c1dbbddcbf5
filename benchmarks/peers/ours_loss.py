"""This project's contrastive loss and its gradient, in one of its forms."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from benchmarks.peers.inputs import embeddings
from benchmarks.peers.serve import serve
from clip_jax.contrastive import contrastive_loss


class Loss:
    def open(self, batch: int, width: int, scale: float, form: str) -> None:
        loss = partial(contrastive_loss, form=form)
        self.step = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        self.given = (*map(jax.device_put, embeddings(batch, width)), np.float32(scale))

    def step_often(self, count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(self.step(*self.given))

    def gradient(self, rows: int) -> list[list[float]]:
        """Of the first pictures."""
        _, (image, _, _) = self.step(*self.given)
        return np.asarray(image[:rows]).tolist()


if __name__ == "__main__":
    loss = Loss()
    serve({"open": loss.open, "step": loss.step_often, "gradient": loss.gradient})
