"""The published package `ruclip`: its model's two encoders."""

from __future__ import annotations

import os

import torch

import benchmarks.workers.original_packages  # noqa: F401 (makes `ruclip` importable)
from benchmarks.workers.inputs import pixels, texts
from benchmarks.workers.serve import serve


class EncodeTasks:
    def setup(self, folder: str, batch: int) -> None:
        """folder: of the package's files."""
        from ruclip.model import CLIP

        self.clip = CLIP.from_pretrained(folder).eval()
        image = torch.from_numpy(pixels(batch, self.clip.visual.input_resolution))
        ids = texts(batch, self.clip.context_length, self.clip.vocab_size)
        self.rows = {
            "image": image.permute(0, 3, 1, 2).contiguous(),
            "text": torch.from_numpy(ids),
        }

    def encode(self, tower: str, repeats: int) -> None:
        for _ in range(repeats):
            self._features(tower)

    def features(self, tower: str) -> list[list[float]]:
        return self._features(tower).tolist()

    @torch.no_grad()
    def _features(self, tower: str) -> torch.Tensor:
        encode = {"image": self.clip.encode_image, "text": self.clip.encode_text}[tower]
        return encode(self.rows[tower])


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = EncodeTasks()
    serve({"setup": tasks.setup, "encode": tasks.encode, "features": tasks.features})
