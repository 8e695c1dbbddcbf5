"""The loss of Radford et al. 2021, figure 3, over one matrix of logits, by `torch.compile`."""

from __future__ import annotations

import os

import torch
from torch.nn import functional as F

from benchmarks.peers.inputs import embeddings
from benchmarks.peers.serve import serve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Loss:
    def open(self, batch: int, width: int, scale: float, compiled: bool) -> None:
        given = (*map(torch.from_numpy, embeddings(batch, width)), torch.tensor(scale))
        self.given = [x.to(DEVICE).requires_grad_() for x in given]
        self.loss = torch.compile(dense) if compiled else dense

    def step_often(self, count: int) -> None:
        for _ in range(count):
            self._gradients()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def gradient(self, rows: int) -> list[list[float]]:
        """Of the first pictures."""
        return self._gradients()[0][:rows].tolist()

    def _gradients(self) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(self.loss(*self.given), self.given)


def dense(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    logits = scale * image @ text.T
    right = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    loss = Loss()
    serve({"open": loss.open, "step": loss.step_often, "gradient": loss.gradient})
