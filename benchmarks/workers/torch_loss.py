"""The loss of Radford et al. 2021, figure 3, over one matrix of logits, by `torch.compile`."""

from __future__ import annotations

import os

import torch
from torch.nn import functional as F

from benchmarks.workers.inputs import embeddings
from benchmarks.workers.serve import serve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class LossTasks:
    def setup(self, batch: int, width: int, scale: float, compiled: bool) -> None:
        inputs = (*map(torch.from_numpy, embeddings(batch, width)), torch.tensor(scale))
        self.inputs = [x.to(DEVICE).requires_grad_() for x in inputs]
        self.loss = torch.compile(dense) if compiled else dense

    def step(self, repeats: int) -> None:
        for _ in range(repeats):
            self._gradients()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def gradient(self, rows: int) -> list[list[float]]:
        """Return the gradient of the first images' embeddings."""
        return self._gradients()[0][:rows].tolist()

    def _gradients(self) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(self.loss(*self.inputs), self.inputs)


def dense(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    logits = scale * image @ text.T
    labels = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = LossTasks()
    serve({"setup": tasks.setup, "step": tasks.step, "gradient": tasks.gradient})
