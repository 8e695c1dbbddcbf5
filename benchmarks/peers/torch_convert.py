"""What people do with PyTorch: torch.load, and the tensors into a safetensors file."""

from __future__ import annotations

import os

import torch
from safetensors.torch import save_file

from benchmarks.peers.serve import serve


class Loading:
    def open(self, source: str, out: str) -> None:
        self.file, self.out = os.path.join(source, "pytorch_model.bin"), out

    def convert(self, count: int) -> None:
        for _ in range(count):
            weights = torch.load(self.file, map_location="cpu", weights_only=True)
            save_file({name: x.contiguous() for name, x in weights.items()}, self.out)


if __name__ == "__main__":
    loading = Loading()
    serve({"open": loading.open, "convert": loading.convert})
