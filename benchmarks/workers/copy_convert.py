"""A copy of the file: a lower bound of a conversion. Standard library only."""

from __future__ import annotations

import os
import shutil

from benchmarks.workers.serve import serve


class ConvertTasks:
    def setup(self, source: str, out: str) -> None:
        self.file, self.out = os.path.join(source, "pytorch_model.bin"), out

    def convert(self, repeats: int) -> None:
        for _ in range(repeats):
            shutil.copyfile(self.file, self.out)


if __name__ == "__main__":
    tasks = ConvertTasks()
    serve({"setup": tasks.setup, "convert": tasks.convert})
