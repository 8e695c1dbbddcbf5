"""This project's converter."""

from __future__ import annotations

import shutil
from pathlib import Path

import converters
from benchmarks.peers.serve import serve


class Converting:
    def open(self, source: str, out: str) -> None:
        """source: the original's folder. out: what is made anew in each turn."""
        self.source, self.out = source, Path(out)

    def convert(self, count: int) -> None:
        for _ in range(count):
            shutil.rmtree(self.out, ignore_errors=True)
            self.summary = converters.convert("rudolph", self.source, self.out)

    def parameters(self) -> int:
        """How many numbers the last model folder holds."""
        return self.summary.parameters


if __name__ == "__main__":
    converting = Converting()
    serve({
        "open": converting.open, "convert": converting.convert, "parameters": converting.parameters,
    })  # fmt: skip
