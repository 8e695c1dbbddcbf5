"""Loading and inference of RUDOLPH with its tokenizers, the first argument of all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from clip_jax import cpu, model_folder
from clip_jax.arguments import (
    check_array,
    check_compute,
    check_flag,
    check_image_list,
    check_number,
    check_path,
    check_type,
    resolve_compute,
)
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.config import Compute, check_choice
from clip_jax.cpu.transposed import is_transposed, transpose_kernels_in_place, untranspose_kernels
from clip_jax.errors import InputError
from clip_jax.image import preprocess
from clip_jax.input_files import MAX_VOCABULARY_BYTES, read_limited
from clip_jax.jit_apply import jit_apply
from clip_jax.layers import unstack_layers
from clip_jax.model_repr import describe_tokenizer, model_repr
from clip_jax.paths import as_path
from clip_jax.released import model_folder_of
from clip_jax.tokenizer import FILE_NAME, Tokenizer
from rudolph_jax.config import PRESETS, MaskType, RudolphConfig
from rudolph_jax.image_tokenizer import PretrainedVqgan, image_config, load_vqgan
from rudolph_jax.int8 import is_int8, quantize_layers
from rudolph_jax.layout import Layout
from rudolph_jax.leading_shapes import leading_shapes
from rudolph_jax.loss import rudolph_loss
from rudolph_jax.model import Rudolph, abstract_params

KIND = "rudolph"
WEIGHTS = ("stored", "int8")

_loss = jax.jit(rudolph_loss, static_argnames=("config", "legacy_boundary_label"))


class PretrainedRudolph:
    """Config, parameters (layers one by one), and the tokenizers of texts and images, if any.

    In float32 products run at full precision on every device.
    """

    def __init__(
        self,
        config: RudolphConfig,
        params: Mapping[str, Any],
        tokenizer: Tokenizer | None = None,
        vqgan: PretrainedVqgan | None = None,
        compute: Compute = Compute(),
    ) -> None:
        """params: kernels may be transposed (`clip_jax/cpu/transposed.py`).

        A tokenizer or image tokenizer of another model raises InputError.
        """
        check_type("config", config, RudolphConfig, "rudolph_jax.load(folder) loads a model")
        check_compute(compute)
        if tokenizer is not None and tokenizer.vocab_size > config.text_vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size} pieces, the model's text_vocab_size is "
                f"{config.text_vocab_size}; they belong to different models"
            )
        if vqgan is not None and vqgan.config.codebook_size != config.image_vocab_size:
            raise InputError(
                f"the image tokenizer has {vqgan.config.codebook_size} codes, the model's "
                f"image_vocab_size is {config.image_vocab_size}; they belong to different models"
            )
        self.config = config
        self.inference_params = params  # kernels transposed or quantized
        self.compute = compute
        self.layout = Layout(config)
        self._tokenizer, self._vqgan = tokenizer, vqgan

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """Parameters as in `Rudolph`, in the stored dtype; copied if kernels are transposed."""
        if not any(
            map(is_transposed, jax.tree.leaves(self.inference_params, is_leaf=is_transposed))
        ):
            return self.inference_params
        return jax.device_put(untranspose_kernels(self.inference_params))

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise InputError(
                "this model has no tokenizer.model, so texts cannot be read or written; convert it "
                "from a folder that holds bpe.model, or put tokenizer.model into its folder"
            )
        return self._tokenizer

    @property
    def vqgan(self) -> PretrainedVqgan:
        if self._vqgan is None:
            raise InputError(
                "no image tokenizer was given, so images cannot be encoded or generated; pass a "
                "VQGAN folder: rudolph_jax.load(folder, vqgan=...), --vqgan=FOLDER"
            )
        return self._vqgan

    @property
    def image_size(self) -> int:
        """Side in pixels of the model's images."""
        return self.config.image_tokens_per_side * self.vqgan.config.patch_size

    @property
    def precision(self) -> AbstractContextManager:
        """Context in which this model runs: the precision of matrix products."""
        exact = self.compute.dtype == "float32"
        return jax.default_matmul_precision("highest" if exact else "default")

    def __repr__(self) -> str:
        images = "no image tokenizer"
        if self._vqgan is not None:
            images = f"images of {self.image_size}x{self.image_size} pixels"
        config = self.config
        return model_repr(
            type(self).__name__, config, PRESETS, self.inference_params, self.compute,
            f"{config.left_text_length} tokens of left text, {self.layout.image_length} of image, "
            f"{config.right_text_length} of right text",
            describe_tokenizer(self._tokenizer), images,
        )  # fmt: skip

    def logits(self, input_ids: np.ndarray | jax.Array) -> jax.Array:
        """Computes int32[B, T] -> float32[B, T, V], T up to the whole sequence (`layout.py`)."""
        return self._run("__call__", input_ids)

    def hidden_states(self, input_ids: np.ndarray | jax.Array) -> jax.Array:
        """Computes each layer's output: int32[B, T] -> float[layers, B, T, D]."""
        return self._run("hidden_states", input_ids)

    def loss(
        self,
        input_ids: np.ndarray | jax.Array,
        left_weight: float = 1.0,
        image_weight: float = 7.0,
        right_weight: float = 1.0,
        legacy_boundary_label: bool = True,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the loss float32[] and its three parts: see `loss.rudolph_loss`.

        legacy_boundary_label: on as in the original; training here leaves it off.
        """
        ids = self.validate_input_ids(input_ids)
        for name, weight in (
            ("left_weight", left_weight),
            ("image_weight", image_weight),
            ("right_weight", right_weight),
        ):
            check_number(name, weight, 0)
        check_flag("legacy_boundary_label", legacy_boundary_label)
        return _loss(
            self.logits(ids),
            ids,
            self.config,
            left_weight=left_weight,
            image_weight=image_weight,
            right_weight=right_weight,
            legacy_boundary_label=legacy_boundary_label,
        )

    def validate_input_ids(self, input_ids: np.ndarray | jax.Array) -> np.ndarray:
        """Returns int32[B, T]; an id without a row in its segment's table raises InputError."""
        ids, layout = np.asarray(check_array("input_ids", input_ids)), self.layout
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"input_ids are {ids.dtype}{list(ids.shape)}; expected int32[B, T]")
        layout.segment_lengths(ids.shape[1])
        limits = np.full(layout.sequence_length, layout.num_text_ids)
        limits[layout.image] = layout.num_image_ids
        bad = np.argwhere((ids < 0) | (ids >= limits[: ids.shape[1]]))
        if bad.size:
            row, column = bad[0]
            segment = "image" if layout.image.start <= column < layout.image.stop else "text"
            raise InputError(
                f"input_ids[{row}, {column}] is {ids[row, column]}; expected 0 to "
                f"{limits[column] - 1} in the {segment}"
            )
        return ids.astype(np.int32)

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        """Encodes images to int32[B, image tokens].

        images: each whatever `clip_jax.image.open_image` takes; RGB, center crop, resized to the
            model's size.
        Codes are the likeliest, without noise.
        """
        images = check_image_list("images", images)
        if not len(images):
            return np.zeros((0, self.layout.image_length), np.int32)
        return np.asarray(self.vqgan.encode(self.pixels(images)))

    def pixels(self, images: Sequence[Any]) -> np.ndarray:
        """Preprocesses images for the image tokenizer: float32[B, size, size, 3] from 0 to 1."""
        images = check_image_list("images", images)
        return preprocess(list(images), self.image_size, image_config(self.vqgan.config))

    def decode_images(self, codes: np.ndarray) -> list[Image.Image]:
        """Decodes int32[B, image tokens] to images."""
        codes = np.asarray(check_array("codes", codes))
        if codes.ndim and not len(codes):
            return []
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
            wanted = f"int32[B, {self.layout.image_length}]"
            raise InputError(f"codes are {codes.dtype}{list(codes.shape)}; expected {wanted}")
        pixels = np.asarray(self.vqgan.decode(codes))
        return [Image.fromarray(array) for array in np.rint(pixels * 255).astype(np.uint8)]

    def save(self, folder: str | Path, **provenance: Any) -> Path:
        """Writes a model folder; an existing one raises InputError, and so do weights of int8."""
        check_path("folder", folder)
        if any(map(is_int8, jax.tree.leaves(self.inference_params, is_leaf=is_int8))):
            raise InputError(
                "weights that were rounded to int8 are not saved; load the model with "
                'weights="stored" to save it, and round them when it is loaded again'
            )
        return model_folder.write_model_folder(
            folder,
            kind=KIND,
            config=self.config.to_dict(),
            params=jax.tree.map(np.asarray, untranspose_kernels(self.inference_params)),
            files={} if self._tokenizer is None else {FILE_NAME: self._tokenizer.model},
            provenance=provenance,
        )

    def _run(self, method: str, ids: np.ndarray | jax.Array) -> jax.Array:
        # False: layers are unstacked.
        function = jit_apply(Rudolph, self.config, self.compute, False, method=method)
        with self.precision:
            return function(self.inference_params, self.validate_input_ids(ids))


def check_rudolph(rudolph: Any) -> None:
    """Raises InputError unless the first argument of a task is a loaded model."""
    check_type("rudolph", rudolph, PretrainedRudolph, "rudolph_jax.load(folder)")


def load(
    folder: str | Path,
    vqgan: str | Path | PretrainedVqgan | None = None,
    compute: Compute | None = None,
    weights: str = "stored",
    verify: bool | None = None,
    custom_mask: MaskType | None = None,
    *,
    dtype: str | None = None,
) -> PretrainedRudolph:
    """Loads a model folder; compiled programs are cached (`clip_jax/compilation_cache.py`).

    folder: or the name of a released model (`clip_jax/released.py`), such as "rudolph-350M".
    vqgan: its image tokenizer, or that one's folder or released name; needed for images.
    compute: how the model is run; None: Compute().
    weights: "stored", or "int8" to quantize the layers' kernels (`int8.py`): less memory, other
        results.
    verify: compare digests; None: unless $RUDOLPH_JAX_VERIFY is 0 (`clip_jax/digests.py`).
    custom_mask: of a model that was trained with one of its own.
    dtype: shorthand for Compute(dtype=dtype), such as "bfloat16".
    Another kind of model, damaged files or tokenizers that do not fit raise InputError.
    """
    compute = resolve_compute(compute, dtype)
    check_choice("weights", weights, WEIGHTS)
    check_flag("verify", verify, optional=True)
    folder = model_folder_of(folder, KIND)
    enable_compilation_cache()
    metadata = model_folder.read_config(folder)
    if metadata["kind"] != KIND:
        raise InputError(f"{folder}: holds a model of kind {metadata['kind']!r}; expected {KIND!r}")
    config = RudolphConfig.from_dict(metadata["config"], custom_mask)
    if vqgan is not None and not isinstance(vqgan, PretrainedVqgan):
        vqgan = load_vqgan(check_path("vqgan", vqgan), compute, verify)
    params = model_folder.read_params(
        folder, leading_shapes(config), lambda: unstack_layers(abstract_params(config)), verify
    )
    file = as_path(folder) / FILE_NAME
    model = read_limited(file, MAX_VOCABULARY_BYTES) if file.exists() else None
    tokenizer = Tokenizer(model, str(file)) if model is not None else None
    if weights == "int8":
        params = quantize_layers(params)
    elif cpu.in_use():
        transpose_kernels_in_place(params)
    params = jax.device_put(params)
    try:
        return PretrainedRudolph(config, params, tokenizer, vqgan, compute)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
