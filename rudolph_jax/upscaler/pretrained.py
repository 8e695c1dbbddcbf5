"""Loading and inference of a super-resolution network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from clip_jax import model_folder
from clip_jax.arguments import (
    check_array,
    check_compute,
    check_flag,
    check_image_list,
    check_integer,
    check_path,
    check_type,
    resolve_compute,
)
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.config import WHITE, Compute
from clip_jax.errors import InputError
from clip_jax.image import open_image, to_rgb
from clip_jax.jit_apply import jit_apply
from clip_jax.model_repr import model_repr
from clip_jax.progress import progress_bar
from clip_jax.released import model_folder_of
from rudolph_jax.leading_shapes import upscaler_leading_shapes
from rudolph_jax.upscaler.config import UPSCALER_PRESETS, UpscalerConfig
from rudolph_jax.upscaler.rrdb import RrdbNet, abstract_params
from rudolph_jax.upscaler.tiles import run_tiles

KIND = "upscaler"
TILE, OVERLAP, BATCH_SIZE = 128, 24, 4  # overlap as ruDALL-E's; tiles and batch fit 2 GB at x4
MAX_TILE = 1 << 13
MAX_PIXELS = 1 << 29  # of an enlarged image: 1.5 GB of bytes


class PretrainedUpscaler:
    """Parameters and config of a super-resolution network, compiled once per size of tiles.

    In float32 products run at full precision on every device.
    """

    def __init__(
        self, config: UpscalerConfig, params: Mapping[str, Any], compute: Compute = Compute()
    ) -> None:
        remedy = "rudolph_jax.load_upscaler(folder) loads a model"
        check_type("config", config, UpscalerConfig, remedy)
        self.config = config
        self.params = params
        self.compute = check_compute(compute)

    def __repr__(self) -> str:
        scale = self.config.scale
        return model_repr(
            type(self).__name__, self.config, UPSCALER_PRESETS, self.params, self.compute,
            f"images to {scale} times their sides, in tiles of {TILE}x{TILE} pixels",
        )  # fmt: skip

    @property
    def scale(self) -> int:
        """Factor by which the sides of an image grow."""
        return self.config.scale

    def network(self, pixels: np.ndarray | jax.Array) -> jax.Array:
        """Runs the network on whole images, as the original does without tiles.

        pixels: float32[B, H, W, 3] from 0 to 1; H and W multiples of `config.unshuffle`.
        Returns float32[B, s H, s W, 3], not clipped. Compiled for each shape.
        """
        pixels = check_array("pixels", pixels)
        side = self.config.unshuffle
        if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
            raise InputError(
                f"pixels are {list(pixels.shape)}; expected [B, H, W, 3], channels last"
            )
        if not jnp.issubdtype(pixels.dtype, jnp.floating):
            raise InputError(
                f"pixels are {pixels.dtype}; expected float32 from 0 to 1: divide bytes by 255"
            )
        if pixels.shape[1] % side or pixels.shape[2] % side:
            raise InputError(
                f"pixels are {pixels.shape[1]}x{pixels.shape[2]}; expected multiples of {side}; "
                "upscale() takes any size"
            )
        function = jit_apply(RrdbNet, self.config, self.compute)
        precision = "highest" if self.compute.dtype == "float32" else "default"
        with jax.default_matmul_precision(precision):
            return function(self.params, pixels)

    def upscale(
        self,
        images: Sequence[Any],
        tile: int = TILE,
        overlap: int = OVERLAP,
        batch_size: int = BATCH_SIZE,
        background: tuple[int, int, int] | None = WHITE,
        quiet: bool = True,
    ) -> list[Image.Image]:
        """Enlarges images of any sizes, each whatever `clip_jax.image.open_image` takes, to RGB.

        tile, overlap: pixels of the input (`tiles.py`); multiples of `config.unshuffle`.
        batch_size: tiles at once on the device.
        background: the colour under transparent pixels; None drops the alpha channel.
        quiet: no progress bar.
        """
        images = check_image_list("images", images)
        return list(self.upscale_each(images, tile, overlap, batch_size, background, quiet=quiet))

    def upscale_each(
        self,
        images: Iterable[Any],
        tile: int = TILE,
        overlap: int = OVERLAP,
        batch_size: int = BATCH_SIZE,
        background: tuple[int, int, int] | None = WHITE,
        quiet: bool = True,
    ) -> Iterator[Image.Image]:
        """Yields what `upscale` returns one by one; images may be a generator, opened in turn.

        An image whose enlargement has over 2^29 pixels raises InputError.
        """
        self._check_tiles(tile, overlap, batch_size)
        check_flag("quiet", quiet)
        arrays = (self._rgb(image, background) for image in images)
        with progress_bar(0, "tiles", quiet=quiet) as bar:

            def show(done: int, known: int) -> None:
                bar.total = known
                bar.update(done - bar.n)

            for array in run_tiles(self._run, arrays, self.scale, tile, overlap, batch_size, show):
                yield Image.fromarray(array)

    def _rgb(self, source: Any, background: tuple[int, int, int] | None) -> np.ndarray:
        """Opens an image as uint8[H, W, 3]."""
        image = open_image(source)
        self.check_size(image)
        return np.asarray(to_rgb(image, background))

    def check_size(self, image: Image.Image) -> None:
        """Raises InputError if an image is too large to be enlarged."""
        width, height = (side * self.scale for side in image.size)
        if width * height > MAX_PIXELS:
            raise InputError(
                f"an image of {image.width}x{image.height} pixels would become {width}x{height}; "
                f"expected at most {MAX_PIXELS:,} pixels: cut or shrink it"
            )

    def _run(self, windows: np.ndarray) -> np.ndarray:
        """Enlarges uint8[N, w, w, 3] -> uint8[N, s w, s w, 3]."""
        pixels = np.asarray(self.network(windows.astype(np.float32) / np.float32(255)))
        return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)

    def _check_tiles(self, tile: int, overlap: int, batch_size: int) -> None:
        check_integer("tile", tile, 16, MAX_TILE)
        check_integer("overlap", overlap, 0, MAX_TILE)
        check_integer("batch_size", batch_size)
        side = self.config.unshuffle
        for name, value in (("tile", tile), ("overlap", overlap)):
            if value % side:
                raise InputError(f"{name} is {value}; expected a multiple of {side}")

    def save(self, folder: str | Path, **provenance: Any) -> Path:
        """Writes a model folder; an existing one raises InputError."""
        check_path("folder", folder)
        return model_folder.write_model_folder(
            folder,
            kind=KIND,
            config=self.config.to_dict(),
            params=jax.tree.map(np.asarray, dict(self.params)),
            provenance=provenance,
        )


def load_upscaler(
    folder: str | Path,
    compute: Compute | None = None,
    verify: bool | None = None,
    *,
    dtype: str | None = None,
) -> PretrainedUpscaler:
    """Loads a model folder; compiled programs are cached (`clip_jax/compilation_cache.py`).

    folder: or the name of a released model (`clip_jax/released.py`), such as "real-esrgan-x4".
    compute, verify, dtype: as in `rudolph_jax.load`.
    Another kind of model, or damaged files, raise InputError.
    """
    compute = resolve_compute(compute, dtype)
    check_flag("verify", verify, optional=True)
    folder = model_folder_of(folder, KIND)
    enable_compilation_cache()
    metadata = model_folder.read_config(folder)
    if metadata["kind"] != KIND:
        raise InputError(f"{folder}: holds a model of kind {metadata['kind']!r}; expected {KIND!r}")
    config = UpscalerConfig.from_dict(metadata["config"])
    params = model_folder.read_params(
        folder, upscaler_leading_shapes(config), lambda: abstract_params(config), verify
    )
    return PretrainedUpscaler(config, jax.device_put(params), compute)
