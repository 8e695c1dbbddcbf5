"""transformers' CLIPModel: scaled_dot_product_attention, each tower by `torch.compile`."""

from __future__ import annotations

import os

import torch

import clip_jax
from benchmarks.workers.inputs import pixels, texts
from benchmarks.workers.serve import serve
from experiments.evaluation.methods.torch_clip import clip_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class EncodeTasks:
    def setup(self, folder: str, batch: int, dtype: str, compiled: bool) -> None:
        clip = clip_jax.load(folder)
        self.model = clip_model(clip).to(DEVICE, getattr(torch, dtype)).eval()
        config = clip.config
        image = torch.from_numpy(pixels(batch, config.vision.image_size)).permute(0, 3, 1, 2)
        ids = texts(batch, config.text.context_length, config.text.vocab_size)
        self.rows = {
            "image": image.contiguous().to(DEVICE, getattr(torch, dtype)),
            "text": torch.from_numpy(ids).to(DEVICE),
        }
        self.towers = {"image": self._image, "text": self._text}
        if compiled:
            self.towers = {name: torch.compile(run) for name, run in self.towers.items()}

    def encode(self, tower: str, repeats: int) -> None:
        for _ in range(repeats):
            self._features(tower)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def features(self, tower: str) -> list[list[float]]:
        return self._features(tower).float().tolist()

    @torch.inference_mode()
    def _features(self, tower: str) -> torch.Tensor:
        return self.towers[tower](self.rows[tower])

    def _image(self, pixels: torch.Tensor) -> torch.Tensor:
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return self.model.visual_projection(pooled)

    def _text(self, ids: torch.Tensor) -> torch.Tensor:
        pooled = self.model.text_model(input_ids=ids).pooler_output
        return self.model.text_projection(pooled)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = EncodeTasks()
    serve({"setup": tasks.setup, "encode": tasks.encode, "features": tasks.features})
