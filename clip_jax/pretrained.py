"""Loaded models: parameters with config, processor and compiled encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clip_jax import batch_padding, cpu, digests, model_folder
from clip_jax.arguments import (
    check_array,
    check_compute,
    check_flag,
    check_floating,
    check_integer,
    check_path,
    describe,
    resolve_compute,
)
from clip_jax.byte_bpe import ByteBpe
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.config import PRESETS, RUCLIP_SMALL, ClipConfig, Compute, RuclipSmallConfig
from clip_jax.config_fields import short_repr
from clip_jax.content_hash import content_hash
from clip_jax.cpu.transposed import transpose_kernels
from clip_jax.errors import InputError
from clip_jax.fused import shard_over
from clip_jax.jit_apply import jit_apply
from clip_jax.layers import MATMUL_MODULES, is_stacked, stack_layers, unstack_layers
from clip_jax.leading_shapes import leading_shapes
from clip_jax.model import Clip, abstract_params, normalize
from clip_jax.model_repr import describe_tokenizer, model_repr
from clip_jax.position_embedding import resize_position_embedding
from clip_jax.processor import Processor
from clip_jax.released import model_folder_of
from clip_jax.ruclip_small import RuclipSmall
from clip_jax.tokenizer import Tokenizer, has_tokenizer, load_tokenizer

KIND = "clip"
# Kind of a model folder -> classes of its config and module.
KINDS: dict[str, tuple[Any, type[nn.Module]]] = {
    KIND: (ClipConfig, Clip),
    "ruclip-small": (RuclipSmallConfig, RuclipSmall),
}


class PretrainedClip:
    """Holds parameters, config and processor, with compiled encoders.

    The config decides between a Clip and a RuclipSmall, whose features have unit length. Batches
    are padded to one of few sizes, for which programs are compiled: see `batch_padding.py`.
    In float32 matrix products run at full precision on every device: a TPU would otherwise round
    operands to bfloat16.
    """

    def __init__(
        self,
        config: ClipConfig | RuclipSmallConfig,
        params: Mapping[str, Any],
        tokenizer: Tokenizer | ByteBpe | None = None,
        compute: Compute = Compute(),
        mesh: Mesh | None = None,
    ) -> None:
        """Takes parameters that are already on their devices.

        params: layers stacked, or one by one, which encode faster on a CPU.
        mesh: the devices that `replicate` put the parameters on; None: wherever they are.
        """
        if type(config) not in (ClipConfig, RuclipSmallConfig):
            raise InputError(
                f"config is {describe(config)}; expected a ClipConfig or RuclipSmallConfig; "
                "clip_jax.load(folder) loads a model"
            )
        self.kind = next(kind for kind, (made_of, _) in KINDS.items() if type(config) is made_of)
        self.config = config
        self._params, self._stacked = params, is_stacked(params)
        self.compute = check_compute(compute)
        self.processor = Processor(config, tokenizer)
        self._mesh = mesh

    def __repr__(self) -> str:
        size, text = self.config.vision.image_size, self.config.text
        return model_repr(
            type(self).__name__, self.config, {**PRESETS, "ruclip-small": RUCLIP_SMALL},
            self._params, self.compute, f"images of {size}x{size} pixels",
            f"texts of up to {text.context_length} tokens",
            describe_tokenizer(self.processor.tokenizer),
        )  # fmt: skip

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """Returns parameters with layers stacked, in the stored dtype; a copy if they are not."""
        return self._stack()

    def _stack(self) -> Mapping[str, Any]:
        return self._params if self._stacked else stack_layers(self._params)

    @cached_property
    def _inference_params(self) -> Mapping[str, Any]:
        """Returns the parameters for the encoders.

        Kernels of unstacked layers are cast to the compute dtype once, not in each call. On a CPU
        bfloat16 ones are also transposed, from which float32 gains nothing.
        """
        dtype = jnp.dtype(self.compute.dtype)

        def leaf(path: tuple[Any, ...], x: Any) -> Any:
            return x.astype(dtype) if {entry.key for entry in path} & set(MATMUL_MODULES) else x

        if self._stacked:
            return self._params
        params = jax.tree_util.tree_map_with_path(leaf, dict(self._params))
        if dtype == jnp.bfloat16 and self._mesh is None and cpu.in_use():
            params = jax.device_put(transpose_kernels(params))
        return params

    def replicate(self, devices: Sequence[jax.Device]) -> PretrainedClip:
        """Returns the model replicated on these devices, which share a batch's rows evenly.

        A batch may have any number of rows. Features equal those of one device that is given as
        many rows at once.
        """
        devices = _check_devices(devices)
        mesh = Mesh(np.asarray(devices), ("rows",), axis_types=(AxisType.Auto,))
        params = jax.device_put(dict(self._params), NamedSharding(mesh, PartitionSpec()))
        return PretrainedClip(self.config, params, self.processor.tokenizer, self.compute, mesh)

    def encode_image(
        self, pixel_values: np.ndarray | jax.Array, *, unpad: bool = True
    ) -> jax.Array:
        """Encodes normalised pixels, float32[B, H, W, 3], to float32[B, E], not of unit length.

        unpad: False returns the padded batch, [N, E] with N >= B, without waiting for the device.
        """
        pixels = self._check_pixels(pixel_values)
        return self._run_batch("encode_image", pixels, unpad)

    def encode_image_features(
        self, pixel_values: np.ndarray | jax.Array, *, unpad: bool = True
    ) -> jax.Array:
        """Encodes normalised pixels, float32[B, H, W, 3], to float32[B, D], before projection.

        D: the vision tower's width. Linear probes of CLIP take these (Radford et al. 2021, A.3).
        unpad: as in `encode_image`.
        """
        pixels = self._check_pixels(pixel_values)
        return self._run_batch("encode_image_features", pixels, unpad)

    def _check_pixels(self, pixel_values: Any) -> Any:
        size = self.config.vision.image_size
        pixels = check_array("pixel_values", pixel_values)
        if pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
            raise InputError(
                f"pixel_values are {list(pixels.shape)}; "
                f"expected [B, {size}, {size}, 3], channels last"
            )
        wanted = f"float32[B, {size}, {size}, 3], normalised: clip.processor(images=images)"
        check_floating("pixel_values", pixels, wanted)
        return pixels

    def encode_text(self, input_ids: np.ndarray | jax.Array, *, unpad: bool = True) -> jax.Array:
        """Encodes int32[B, S], S at most context_length, to float32[B, E], not of unit length.

        unpad: as in `encode_image`.
        """
        ids, text = np.asarray(check_array("input_ids", input_ids)), self.config.text
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"input_ids are {ids.dtype}{list(ids.shape)}; expected int32[B, S]")
        if not 0 < ids.shape[1] <= text.context_length:
            raise InputError(
                f"input_ids are {ids.shape[1]} long; expected 1 to {text.context_length}"
            )
        bad = np.argwhere((ids < 0) | (ids >= text.vocab_size))
        if bad.size:
            row, column = bad[0]
            raise InputError(
                f"input_ids[{row}, {column}] is {ids[row, column]}; "
                f"expected 0 to {text.vocab_size - 1}"
            )
        without_eos = np.flatnonzero(~(ids == self.config.eos_id).any(axis=1))
        if without_eos.size:
            raise InputError(
                f"input_ids row {without_eos[0]} has no EOS (id {self.config.eos_id}), where the "
                "text is pooled; end each text with it, as the processor does"
            )
        return self._run_batch("encode_text", ids.astype(np.int32), unpad)

    def logits(
        self, input_ids: np.ndarray | jax.Array, pixel_values: np.ndarray | jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits_per_image, float32[images, texts], and its transpose logits_per_text."""
        # Features stay on the device, padded; only the result is unpadded.
        image = self.encode_image(pixel_values, unpad=False)
        text = self.encode_text(input_ids, unpad=False)
        scale = self._params["logit_scale"]
        per_image, per_text = self._run(_similarity, image, text, scale, params=False)
        images, texts = len(pixel_values), len(input_ids)
        if per_image.shape == (images, texts) or isinstance(per_image, jax.core.Tracer):
            return per_image[:images, :texts], per_text[:texts, :images]
        host = np.asarray(per_image)[:images, :texts]
        per_image, per_text = jax.device_put((host, host.T))
        return per_image, per_text

    @property
    def logit_scale(self) -> float:
        """Returns the factor of cosine similarities (not its logarithm)."""
        return float(np.exp(np.float32(self._params["logit_scale"])))

    @cached_property
    def content_hash(self) -> str:
        """Returns SHA-256 of config, parameters and vocabulary (`content_hash.py`)."""
        tokenizer = self.processor.tokenizer
        files = {} if tokenizer is None else tokenizer.files
        return content_hash(self.config.to_dict(), self._stack(), files)

    def with_image_size(self, image_size: int) -> PretrainedClip:
        """Returns the model for another image size, with its position embedding resized.

        image_size: in pixels, a multiple of the patch size. See `position_embedding.py`.
        """
        image_size = check_integer("image_size", image_size)
        vision = dataclasses.replace(self.config.vision, image_size=image_size)
        config = dataclasses.replace(self.config, vision=vision)
        visual = dict(self._params["visual"])
        visual["position_embedding"] = jnp.asarray(
            resize_position_embedding(visual["position_embedding"], vision.patches_per_side)
        )
        params = {**self._params, "visual": visual}
        return PretrainedClip(config, params, self.processor.tokenizer, self.compute, self._mesh)

    def save(self, folder: str | Path, **provenance: Any) -> Path:
        """Writes a model folder; an existing one raises InputError."""
        check_path("folder", folder)
        tokenizer, params = self.processor.tokenizer, jax.tree.map(np.asarray, dict(self._params))
        return model_folder.write_model_folder(
            folder,
            kind=self.kind,
            config=self.config.to_dict(),
            params=unstack_layers(params) if self._stacked else params,
            files={} if tokenizer is None else tokenizer.files,
            provenance=provenance,
        )

    def _run_batch(self, method: str, rows: np.ndarray | jax.Array, unpad: bool) -> jax.Array:
        model = KINDS[self.kind][1]
        function = jit_apply(model, self.config, self.compute, self._stacked, method=method)
        padded = batch_padding.pad_to_bucket(rows, 1 if self._mesh is None else self._mesh.size)
        if self._mesh is not None:
            padded = jax.device_put(padded, NamedSharding(self._mesh, PartitionSpec("rows")))
        features = self._run(function, padded)
        return batch_padding.unpad(features, len(rows)) if unpad else features

    def _run(self, function: Any, *args: Any, params: bool = True) -> Any:
        precision = "highest" if self.compute.dtype == "float32" else "default"
        axes = () if self._mesh is None else tuple(self._mesh.axis_names)
        with jax.default_matmul_precision(precision), shard_over(axes):
            return function(self._inference_params, *args) if params else function(*args)


@jax.jit
def _similarity(
    image: jax.Array, text: jax.Array, logit_scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    per_image = jnp.exp(logit_scale) * jnp.einsum("IE,TE->IT", normalize(image), normalize(text))
    return per_image, per_image.T


def load(
    folder: str | Path,
    compute: Compute | None = None,
    verify: bool | None = None,
    *,
    dtype: str | None = None,
) -> PretrainedClip:
    """Loads the model of a folder; enables the compilation cache (`compilation_cache.py`).

    folder: or the name of a released model (`released.py`), such as "ruclip-vit-base-patch32-384".
    compute: how the model is run; None: Compute().
    dtype: shorthand for Compute(dtype=dtype), such as "bfloat16".
    verify: whether digests are compared; None: unless $RUDOLPH_JAX_VERIFY is 0 (`digests.py`).

    Another kind of model, or damaged files, raise InputError.
    """
    compute = resolve_compute(compute, dtype)
    check_flag("verify", verify, optional=True)
    folder = model_folder_of(folder, KIND)
    enable_compilation_cache()
    metadata = model_folder.read_config(folder)
    if metadata["kind"] not in KINDS:
        raise InputError(f"{folder}: holds a model of kind {metadata['kind']!r}; expected {KIND!r}")
    make_config, model = KINDS[metadata["kind"]]
    config = make_config.from_dict(metadata["config"])
    params = model_folder.read_params(
        folder,
        leading_shapes(config),
        lambda: unstack_layers(abstract_params(config, model)),
        verify,
    )
    tokenizer = None
    if has_tokenizer(folder):
        tokenizer = load_tokenizer(folder, verify)
        check_vocabulary(tokenizer, config, str(folder))
        trained_here = "config" in metadata["provenance"]  # a small vocabulary leaves rows unused
        recorded = digests.is_recorded(folder, tokenizer.files)
        if digests.should_verify(verify) and not (recorded or trained_here):
            check_vocabulary_size(tokenizer, config, str(folder))
    # Not jnp.asarray, which compiles a program for each shape.
    params = jax.device_put(params)
    return PretrainedClip(config, params, tokenizer, compute)


def _check_devices(devices: Any) -> list[jax.Device]:
    found = list(devices) if isinstance(devices, Sequence | np.ndarray) else [devices]
    if not found or not all(isinstance(device, jax.Device) for device in found):
        raise InputError(f"devices are {short_repr(devices)}; expected a list of jax.devices()")
    return found


def check_vocabulary(
    tokenizer: Tokenizer | ByteBpe, config: ClipConfig | RuclipSmallConfig, where: str
) -> None:
    """Raises InputError unless the tokenizer's ids fit the model's table and EOS."""
    if tokenizer.vocab_size > config.text.vocab_size:
        raise InputError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} pieces, the model's table "
            f"only {config.text.vocab_size} rows; they belong to different models"
        )
    if tokenizer.eos_id != config.eos_id:
        raise InputError(
            f"{where}: the tokenizer ends a text with id {tokenizer.eos_id}, the model expects "
            f"{config.eos_id}; they belong to different models"
        )


def check_vocabulary_size(
    tokenizer: Tokenizer | ByteBpe, config: ClipConfig | RuclipSmallConfig, where: str
) -> None:
    """Raises InputError unless vocabulary and table are of one size, where no digest is."""
    if tokenizer.vocab_size != config.text.vocab_size:
        raise InputError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} pieces, the model's table "
            f"{config.text.vocab_size} rows; they belong to different models; if they do not, "
            f"run: python -m converters verify {where} --write"
        )
