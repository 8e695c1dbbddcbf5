"""This project's contrastive loss and its gradient, in one of its forms."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from benchmarks.workers.inputs import embeddings
from benchmarks.workers.serve import serve
from clip_jax.contrastive import contrastive_loss


class LossTasks:
    def setup(self, batch: int, width: int, scale: float, form: str) -> None:
        loss = partial(contrastive_loss, form=form)
        self.loss_and_gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        self.inputs = (*map(jax.device_put, embeddings(batch, width)), np.float32(scale))

    def step(self, repeats: int) -> None:
        for _ in range(repeats):
            jax.block_until_ready(self.loss_and_gradient(*self.inputs))

    def gradient(self, rows: int) -> list[list[float]]:
        """Return the gradient of the first images' embeddings."""
        _, (image, _, _) = self.loss_and_gradient(*self.inputs)
        return np.asarray(image[:rows]).tolist()


if __name__ == "__main__":
    tasks = LossTasks()
    serve({"setup": tasks.setup, "step": tasks.step, "gradient": tasks.gradient})
