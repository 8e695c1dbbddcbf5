"""Loading and inference of an image tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax import model_folder
from clip_jax.arguments import (
    check_array,
    check_compute,
    check_flag,
    check_integer,
    check_path,
    check_type,
    describe,
    resolve_compute,
)
from clip_jax.batch_padding import run_padded
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.config import Compute, ImageConfig
from clip_jax.errors import InputError
from clip_jax.jit_apply import jit_apply
from clip_jax.model_repr import model_repr
from clip_jax.released import model_folder_of
from rudolph_jax.config import VQGAN_PRESETS, VqganConfig
from rudolph_jax.leading_shapes import vqgan_leading_shapes
from rudolph_jax.vqgan import Vqgan, abstract_params

KIND = "vqgan"
MAX_SIDE = 2**15  # tokens
TOLERANCE = 1e-6  # by which rounding may take a resized image out of [0, 1]


class PretrainedVqgan:
    """Parameters and config, with encoder and decoder compiled once per shape.

    A batch is padded to one of few sizes: see `clip_jax/batch_padding.py`.
    In float32 products run at full precision on every device: a rounded logit is another code.
    """

    def __init__(
        self, config: VqganConfig, params: Mapping[str, Any], compute: Compute = Compute()
    ) -> None:
        check_type("config", config, VqganConfig, "rudolph_jax.load_vqgan(folder) loads a model")
        self.config = config
        self.params = params
        self.compute = check_compute(compute)

    def __repr__(self) -> str:
        patch = self.config.patch_size
        decoder = "wavelet decoder" if self.config.wavelet else "plain decoder"
        return model_repr(
            type(self).__name__, self.config, VQGAN_PRESETS, self.params, self.compute,
            f"{self.config.codebook_size:,} codes, one to {patch}x{patch} pixels", decoder,
        )  # fmt: skip

    def encode(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Encodes float32[B, H, W, 3] from 0 to 1 -> int32[B, n], row by row.

        H and W are multiples of the patch size p, and n = (H / p) (W / p).
        """
        images = check_array("images", images)
        self._check_images(np.asarray(images))
        return self._run("encode", images)

    def decode(
        self, ids: np.ndarray | jax.Array, shape: tuple[int, int] | None = None
    ) -> jax.Array:
        """Decodes int32[B, n] -> float32[B, H, W, 3] from 0 to 1.

        shape: rows and columns of tokens; a square where none is given. A wavelet decoder's
        images have sides twice as long as those that gave these ids.
        """
        ids = np.asarray(check_array("ids", ids))
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"ids are {ids.dtype}{list(ids.shape)}; expected int32[B, n]")
        rows, columns = self._token_shape(ids.shape[1], shape)
        bad = np.argwhere((ids < 0) | (ids >= self.config.codebook_size))
        if bad.size:
            row, column = bad[0]
            raise InputError(
                f"ids[{row}, {column}] is {ids[row, column]}; "
                f"expected 0 to {self.config.codebook_size - 1}"
            )
        return self._run("decode", ids.astype(np.int32).reshape(len(ids), rows, columns))

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

    def _check_images(self, images: np.ndarray) -> None:
        if images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                f"images are {list(images.shape)}; expected [B, H, W, 3], channels last"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"images are {images.dtype}; expected float32 from 0 to 1: divide bytes by 255"
            )
        patch, sides = self.config.patch_size, images.shape[1:3]
        if 0 in sides or any(side % patch for side in sides):
            raise InputError(
                f"images are {sides[0]}x{sides[1]} pixels; expected multiples of {patch}: crop or "
                "resize them"
            )
        if not np.isfinite(images).all():
            raise InputError("images hold values that are not finite; expected 0 to 1")
        if images.size and (images.min() < -TOLERANCE or images.max() > 1 + TOLERANCE):
            raise InputError(
                f"images hold values from {images.min():g} to {images.max():g}; expected 0 to 1"
            )

    def _token_shape(self, n: int, shape: tuple[int, int] | None) -> tuple[int, int]:
        if shape is None:
            side = math.isqrt(n)
            if not n or side**2 != n:
                raise InputError(
                    f"an image has {n} ids, not a square number; give shape=(rows, columns)"
                )
            return side, side
        if not isinstance(shape, tuple | list) or len(shape) != 2:
            raise InputError(f"shape is {describe(shape)}; expected (rows, columns)")
        rows, columns = (
            check_integer("shape", side, -MAX_SIDE, MAX_SIDE, wanted="(rows, columns)")
            for side in shape
        )
        if rows < 1 or columns < 1 or rows * columns != n:
            raise InputError(f"an image has {n} ids; shape {rows}x{columns} does not hold them")
        return rows, columns

    def _run(self, method: str, argument: Any) -> jax.Array:
        function = jit_apply(Vqgan, self.config, self.compute, method=method)
        precision = "highest" if self.compute.dtype == "float32" else "default"
        with jax.default_matmul_precision(precision):
            return run_padded(lambda rows: function(self.params, rows), argument)


def image_config(config: VqganConfig) -> ImageConfig:
    """Returns preprocessing as the originals': RGB, center crop, bilinear, from 0 to 1."""
    # PretrainedRudolph takes any object that encodes and decodes; its config may lack the field.
    background = getattr(config, "background", None)
    return ImageConfig(mean=(0.0,) * 3, std=(1.0,) * 3, background=background)


def load_vqgan(
    folder: str | Path,
    compute: Compute | None = None,
    verify: bool | None = None,
    *,
    dtype: str | None = None,
) -> PretrainedVqgan:
    """Loads a model folder; compiled programs are cached (`clip_jax/compilation_cache.py`).

    folder: or the name of a released model (`clip_jax/released.py`), such as "vqgan-gumbelf8".
    compute, verify, dtype: as in `pretrained.load`.
    Another kind of model, or damaged files, raise InputError.
    """
    compute = resolve_compute(compute, dtype)
    check_flag("verify", verify, optional=True)
    folder = model_folder_of(folder, KIND)
    enable_compilation_cache()
    metadata = model_folder.read_config(folder)
    if metadata["kind"] != KIND:
        raise InputError(f"{folder}: holds a model of kind {metadata['kind']!r}; expected {KIND!r}")
    config = VqganConfig.from_dict(metadata["config"])
    params = model_folder.read_params(
        folder, vqgan_leading_shapes(config), lambda: abstract_params(config), verify
    )
    return PretrainedVqgan(config, jax.device_put(params), compute)
