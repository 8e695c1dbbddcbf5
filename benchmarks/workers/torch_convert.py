"""A usual conversion with PyTorch: torch.load, then a safetensors file."""

from __future__ import annotations

import os

import torch
from safetensors.torch import save_file

from benchmarks.workers.serve import serve


class ConvertTasks:
    def setup(self, source: str, out: str) -> None:
        self.file, self.out = os.path.join(source, "pytorch_model.bin"), out

    def convert(self, repeats: int) -> None:
        for _ in range(repeats):
            weights = torch.load(self.file, map_location="cpu", weights_only=True)
            save_file({name: x.contiguous() for name, x in weights.items()}, self.out)


if __name__ == "__main__":
    tasks = ConvertTasks()
    serve({"setup": tasks.setup, "convert": tasks.convert})
