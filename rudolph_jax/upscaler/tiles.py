"""Tiles with overlap: images of any size through a program of one size, in bounded memory.

# H x W pixels, t side of a tile, o overlap, w = t + 2 o side of a window, s scale, N windows

An image is cut into tiles of t x t pixels. Around each the network sees o more, its window, and
what it computes for those is dropped:

    overlap o  +--------------+
               |  +--------+  |
        window |  |  tile  |  |      row r, column c: the tile begins at pixel (r t, c t)
               |  +--------+  |
               +--------------+

Beyond its edges an image continues as its reflection, as far as windows reach. With an overlap of
the network's receptive radius a tile is what the network makes of the whole reflected plane; with
less, pixels near the edge of a tile miss what is further away than o.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from clip_jax.batch_padding import bucket_size, pad_batch

SMALLEST_TILE = 16  # pixels; smaller images are reflected to it
Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Tiles of an image of `height` x `width` pixels, row by row."""

    height: int
    width: int
    tile: int
    overlap: int

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    def window(self, image: np.ndarray, number: int) -> np.ndarray:
        """Copies the window of a tile: [H, W, C] -> [w, w, C], reflected beyond the edges."""
        row, column = divmod(number, self.columns)
        y, x = (
            reflected(index * self.tile - self.overlap, self.tile + 2 * self.overlap, side)
            for index, side in ((row, self.height), (column, self.width))
        )
        return image[y[:, None], x]

    def place(self, enlarged: np.ndarray, output: np.ndarray, number: int, scale: int) -> None:
        """Writes the tile of an enlarged window [s w, s w, C] into the output [s H, s W, C]."""
        row, column = divmod(number, self.columns)
        top, left, margin = row * self.tile, column * self.tile, self.overlap * scale
        height, width = min(self.tile, self.height - top), min(self.tile, self.width - left)
        output[top * scale : (top + height) * scale, left * scale : (left + width) * scale] = (
            enlarged[margin : margin + height * scale, margin : margin + width * scale]
        )


def reflected(start: int, count: int, length: int) -> np.ndarray:
    """Returns the positions int[count] from `start` on a line that is reflected at both ends.

    The end itself is not repeated: for length 4, positions -2 to 5 are 2 1 0 1 2 3 2 1.
    """
    period = max(2 * (length - 1), 1)
    positions = np.arange(start, start + count) % period
    return np.minimum(positions, period - positions) if length > 1 else np.zeros(count, int)


def tile_side(height: int, width: int, largest: int) -> int:
    """Returns the side of an image's tiles: `largest`, or a power of two that holds all of it.

    Small images have smaller windows, and all sizes together few programs.
    """
    side = max(SMALLEST_TILE, 1 << (max(height, width) - 1).bit_length())
    return min(side, largest)


def run_tiles(
    run: Run,
    images: Iterable[np.ndarray],
    scale: int,
    tile: int,
    overlap: int,
    batch_size: int,
    on_progress: Callable[[int, int], object] = lambda done, known: None,
) -> Iterator[np.ndarray]:
    """Yields each image enlarged, [H, W, 3] -> [s H, s W, 3], in order and as soon as it is whole.

    run: [N, w, w, 3] -> [N, s w, s w, 3], of the dtype that is yielded; compiled for each N and w.
    on_progress: called after each batch with the numbers of tiles that are done, and of all tiles
        of the images that were opened.
    Batches hold tiles of several images in a row, as long as their tiles have one size. The last
    batch is padded to `batch_size` if there was a full one, so that it needs no other program.
    Besides the images of a batch and their results one batch of windows is in memory.
    """
    unfinished: list[_Unfinished] = []
    batch: list[tuple[_Unfinished, int]] = []
    done = known = 0
    filled: set[int] = set()  # sides of tiles whose program for full batches is compiled

    def flush() -> None:
        nonlocal done
        grid = batch[0][0].grid
        count = len(batch)
        windows = np.stack([each.grid.window(each.image, number) for each, number in batch])
        padded = batch_size if count == batch_size or grid.tile in filled else bucket_size(count)
        if count == batch_size:
            filled.add(grid.tile)
        enlarged = run(pad_batch(windows, min(padded, batch_size)))
        for (each, number), result in zip(batch, enlarged[:count], strict=True):
            each.place(number, result)
        batch.clear()
        done += count
        on_progress(done, known)

    def finished() -> Iterator[np.ndarray]:
        while unfinished and not unfinished[0].missing:
            yield unfinished.pop(0).output

    for image in images:
        height, width = image.shape[:2]
        grid = TileGrid(height, width, tile_side(height, width, tile), overlap)
        if batch and batch[0][0].grid.tile != grid.tile:
            flush()
            yield from finished()
        each = _Unfinished(image, grid, scale)
        known += grid.count
        unfinished.append(each)
        for number in range(grid.count):
            batch.append((each, number))
            if len(batch) == batch_size:
                flush()
                yield from finished()
    if batch:
        flush()
    yield from finished()


class _Unfinished:
    """Hold an image and its result, of which `missing` tiles are not computed."""

    def __init__(self, image: np.ndarray, grid: TileGrid, scale: int) -> None:
        self.image, self.grid, self.scale = image, grid, scale
        self.missing = grid.count
        self.output = np.empty((0, 0, 3))  # until the first tile's dtype is known

    def place(self, number: int, enlarged: np.ndarray) -> None:
        if self.missing == self.grid.count:
            height, width = self.grid.height * self.scale, self.grid.width * self.scale
            self.output = np.empty((height, width, 3), enlarged.dtype)
        self.grid.place(enlarged, self.output, number, self.scale)
        self.missing -= 1
