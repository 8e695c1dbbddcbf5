"""A copy of the file: the least that a conversion can take. Standard library only."""

from __future__ import annotations

import os
import shutil

from benchmarks.peers.serve import serve


class Copying:
    def open(self, source: str, out: str) -> None:
        self.file, self.out = os.path.join(source, "pytorch_model.bin"), out

    def convert(self, count: int) -> None:
        for _ in range(count):
            shutil.copyfile(self.file, self.out)


if __name__ == "__main__":
    copying = Copying()
    serve({"open": copying.open, "convert": copying.convert})
