"""The published packages' models in a plain PyTorch step: loss, backward, AdamW."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import torch
from torch.nn import functional as F

import benchmarks.workers.original_packages  # noqa: F401 (makes `ruclip` and `rudolph` importable)
from benchmarks.workers.inputs import (
    BETAS,
    CLIP_NORM,
    EPSILON,
    MEAN,
    RATE,
    STD,
    sequences,
    texts,
    uint8_images,
)
from benchmarks.workers.serve import serve


class TrainTasks:
    def setup(self, kind: str, folder: str, batch: int) -> None:
        """kind: "clip" or "rudolph"."""
        self.model, self.loss = (_clip if kind == "clip" else _rudolph)(folder, batch)
        self.model.train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0
        )

    def train(self, repeats: int) -> float:
        for _ in range(repeats):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            self.optimizer.step()
        return float(loss.detach())


def _clip(folder: str, batch: int) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    from ruclip.model import CLIP

    clip = CLIP.from_pretrained(folder)
    size = clip.visual.input_resolution
    raw = torch.from_numpy(uint8_images(batch, size)).permute(0, 3, 1, 2).float() / 255
    image = (raw - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    ids = torch.from_numpy(texts(batch, clip.context_length, clip.vocab_size))
    labels = torch.arange(batch)

    def loss() -> torch.Tensor:
        per_image, per_text = clip(ids, image)
        return (F.cross_entropy(per_image, labels) + F.cross_entropy(per_text, labels)) / 2

    return clip, loss


def _rudolph(folder: str, batch: int) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    from rudolph.model import ruDolphModel

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        arguments = json.load(file)
    arguments |= {f"{part}_dropout_prob": 0.0 for part in ("embedding", "attention", "output")}
    model = ruDolphModel(device="cpu", **arguments)
    weights = torch.load(os.path.join(folder, "pytorch_model.bin"), weights_only=True)
    model.load_state_dict(weights)
    left, right = arguments["l_text_seq_length"], arguments["r_text_seq_length"]
    image, codes = arguments["image_tokens_per_dim"] ** 2, arguments["image_vocab_size"]
    pieces = arguments["vocab_size"] - left
    ids = torch.from_numpy(sequences(batch, left, image, right, pieces, codes))
    length = left + image + right
    allowed = torch.tril(torch.ones(batch, 1, length, length))
    return model, lambda: model(ids, allowed, return_loss=True)[0]


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = TrainTasks()
    serve({"setup": tasks.setup, "train": tasks.train})
