"""This project's converter."""

from __future__ import annotations

import shutil
from pathlib import Path

import converters
from benchmarks.workers.serve import serve


class ConvertTasks:
    def setup(self, source: str, out: str) -> None:
        """source: the original's folder. out: the folder that each conversion writes."""
        self.source, self.out = source, Path(out)

    def convert(self, repeats: int) -> None:
        for _ in range(repeats):
            shutil.rmtree(self.out, ignore_errors=True)
            self.summary = converters.convert("rudolph", self.source, self.out)

    def parameter_count(self) -> int:
        """Count the parameters of the last model folder."""
        return self.summary.parameters


if __name__ == "__main__":
    tasks = ConvertTasks()
    serve({
        "setup": tasks.setup, "convert": tasks.convert, "parameter_count": tasks.parameter_count,
    })  # fmt: skip
