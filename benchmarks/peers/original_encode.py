"""The published package `ruclip`: its model's two methods."""

from __future__ import annotations

import os

import torch

import benchmarks.peers.original_packages  # noqa: F401 (makes `ruclip` importable)
from benchmarks.peers.inputs import pixels, texts
from benchmarks.peers.serve import serve


class Encoding:
    def open(self, folder: str, batch: int) -> None:
        """folder: with the package's files."""
        from ruclip.model import CLIP

        self.clip = CLIP.from_pretrained(folder).eval()
        image = torch.from_numpy(pixels(batch, self.clip.visual.input_resolution))
        ids = texts(batch, self.clip.context_length, self.clip.vocab_size)
        self.rows = {
            "image": image.permute(0, 3, 1, 2).contiguous(),
            "text": torch.from_numpy(ids),
        }

    def encode(self, tower: str, count: int) -> None:
        for _ in range(count):
            self._features(tower)

    def features(self, tower: str) -> list[list[float]]:
        return self._features(tower).tolist()

    @torch.no_grad()
    def _features(self, tower: str) -> torch.Tensor:
        encode = {"image": self.clip.encode_image, "text": self.clip.encode_text}[tower]
        return encode(self.rows[tower])


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    encoding = Encoding()
    serve({"open": encoding.open, "encode": encoding.encode, "features": encoding.features})
