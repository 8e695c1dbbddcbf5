"""This project's converter."""

from __future__ import annotations

import json
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
            converters.convert("rudolph", self.source, self.out)

    def tensors(self) -> int:
        """How many of the source's have a place in the model folder, by the report."""
        report = json.loads((self.out / "report.json").read_text(encoding="utf-8"))
        return len(report["tensors"])


if __name__ == "__main__":
    converting = Converting()
    serve({
        "open": converting.open, "convert": converting.convert, "tensors": converting.tensors,
    })  # fmt: skip
