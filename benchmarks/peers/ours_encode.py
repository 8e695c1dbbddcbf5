"""This project's towers, as `clip_jax.load` has them."""

from __future__ import annotations

import jax
import numpy as np

import clip_jax
from benchmarks.peers.inputs import pixels, texts
from benchmarks.peers.serve import serve
from clip_jax import Compute


class Encoding:
    def open(self, folder: str, batch: int, dtype: str) -> None:
        self.clip = clip_jax.load(folder, compute=Compute(dtype=dtype))
        text = self.clip.config.text
        self.rows = {
            "image": pixels(batch, self.clip.config.vision.image_size),
            "text": texts(batch, text.context_length, text.vocab_size),
        }

    def encode(self, tower: str, count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(self._features(tower))

    def features(self, tower: str) -> list[list[float]]:
        return np.asarray(self._features(tower)).tolist()

    def _features(self, tower: str) -> jax.Array:
        encode = {"image": self.clip.encode_image, "text": self.clip.encode_text}[tower]
        return encode(self.rows[tower])


if __name__ == "__main__":
    encoding = Encoding()
    serve({"open": encoding.open, "encode": encoding.encode, "features": encoding.features})
