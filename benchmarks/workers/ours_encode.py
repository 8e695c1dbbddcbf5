"""This project's towers, by `clip_jax.load`."""

from __future__ import annotations

import jax
import numpy as np

import clip_jax
from benchmarks.workers.inputs import pixels, texts
from benchmarks.workers.serve import serve
from clip_jax import Compute


class EncodeTasks:
    def setup(self, folder: str, batch: int, dtype: str) -> None:
        self.clip = clip_jax.load(folder, compute=Compute(dtype=dtype))
        text = self.clip.config.text
        self.rows = {
            "image": pixels(batch, self.clip.config.vision.image_size),
            "text": texts(batch, text.context_length, text.vocab_size),
        }

    def encode(self, tower: str, repeats: int) -> None:
        for _ in range(repeats):
            jax.block_until_ready(self._features(tower))

    def features(self, tower: str) -> list[list[float]]:
        return np.asarray(self._features(tower)).tolist()

    def _features(self, tower: str) -> jax.Array:
        encode = {"image": self.clip.encode_image, "text": self.clip.encode_text}[tower]
        return encode(self.rows[tower])


if __name__ == "__main__":
    tasks = EncodeTasks()
    serve({"setup": tasks.setup, "encode": tasks.encode, "features": tasks.features})
