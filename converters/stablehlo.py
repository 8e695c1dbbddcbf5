"""Functions of a model as StableHLO (jax.export), for programs that have JAX and not this package.

    python -m converters jax-export FOLDER DST

Parameters are arguments: a serialized function holds at most 2 GB, and all functions share them.

# b batch, symbolic; D width, H heads, K head size, L positions, E embedding
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import clip_jax
import rudolph_jax
from clip_jax import cpu, digests, model_folder
from clip_jax.config import Compute, RuclipSmallConfig
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.pretrained import KINDS as CLIP_KINDS
from converters import safetensors_file
from rudolph_jax import incremental
from rudolph_jax.config import RudolphConfig, VqganConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.model import Rudolph
from rudolph_jax.vqgan import Vqgan

PLATFORMS = ("cpu", "cuda", "tpu")
PARAMS, SIGNATURE, SUFFIX = "params.safetensors", "signature.json", ".stablehlo"
Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ModelFunction:
    """Describe an exported function.

    run: (params, *arrays) -> arrays.
    inputs: name -> dtype and shape, `b` for the batch.
    """

    run: Callable[..., Any]
    inputs: Mapping[str, tuple[str, str]]
    outputs: Sequence[str]


def jax_export(src: str | Path, dst: str | Path) -> Path:
    """Write the functions of a model folder, its parameters and signature.json to `dst`.

    ruCLIP: image, text. RUDOLPH: logits, and prompt and step, which decode with a KV cache. VQGAN:
    decode. In float32 with matmuls at full precision, for all PLATFORMS. InputError for a folder of
    another kind; then nothing is left at `dst`.
    """
    destination = model_folder.check_destination(dst)
    kind, config, params, functions = _open(as_path(src))
    flat = _flatten(params)
    specs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in flat.items()}
    with model_folder.atomic_folder(destination) as partial_folder:
        for name, function in functions.items():
            (partial_folder / f"{name}{SUFFIX}").write_bytes(_serialize(function, specs))
        safetensors_file.write(partial_folder / PARAMS, flat)
        text = json.dumps(_signature(kind, config, functions), ensure_ascii=False, indent=1)
        (partial_folder / SIGNATURE).write_text(text + "\n", encoding="utf-8")
        digests.write_digests(partial_folder, {})
    return destination


def _open(folder: Path) -> tuple[str, Mapping[str, Any], Params, Mapping[str, ModelFunction]]:
    kind = model_folder.read_config(folder)["kind"]
    if kind in CLIP_KINDS:
        clip = clip_jax.load(folder)
        return kind, clip.config.to_dict(), clip.params, clip_functions(clip)
    if kind == "rudolph":
        rudolph = rudolph_jax.load(folder)
        return kind, rudolph.config.to_dict(), rudolph.params, rudolph_functions(rudolph.config)
    if kind == "vqgan":
        vqgan = rudolph_jax.load_vqgan(folder)
        return kind, vqgan.config.to_dict(), vqgan.params, vqgan_functions(vqgan.config)
    known = ", ".join([*CLIP_KINDS, "rudolph", "vqgan"])
    raise InputError(f"{folder}: a model of kind {kind!r}; expected {known}")


def clip_functions(model: clip_jax.PretrainedClip) -> dict[str, ModelFunction]:
    config, side = model.config, model.config.vision.image_size
    S = (
        config.prompt_length
        if isinstance(config, RuclipSmallConfig)
        else config.text.context_length
    )
    clip = CLIP_KINDS[model.kind][1](config)
    return {
        "image": ModelFunction(
            lambda params, x: clip.apply({"params": params}, x, method="encode_image"),
            {"pixel_values": ("float32", f"b, {side}, {side}, 3")},
            ["float32[b, E]"],
        ),
        "text": ModelFunction(
            lambda params, x: clip.apply({"params": params}, x, method="encode_text"),
            {"input_ids": ("int32", f"b, {S}")},
            ["float32[b, E]"],
        ),
    }


def vqgan_functions(config: VqganConfig) -> dict[str, ModelFunction]:
    vqgan = Vqgan(config)
    return {
        "decode": ModelFunction(
            lambda params, ids: vqgan.apply({"params": params}, ids, method="decode"),
            {"ids": ("int32", "b, rows, columns")},
            ["float32[b, height, width, 3], from 0 to 1"],
        )
    }


def rudolph_functions(config: RudolphConfig) -> dict[str, ModelFunction]:
    model, layout = Rudolph(config, stacked=False), Layout(config)
    decoder = ImageDecoder(config)
    L, M = layout.sequence_length, layout.left.stop
    cache = f"{config.layers}, b, {config.heads}, {decoder.positions}, "
    caches = dict.fromkeys(
        ("keys", "values"), ("float32", cache + str(config.width // config.heads))
    )
    made = ["float32[b, V], of the codes alone", *(f"{name}: as in step" for name in caches)]
    return {
        "logits": ModelFunction(
            lambda params, ids: model.apply({"params": params}, ids),
            {"input_ids": ("int32", f"b, {L}")},
            [f"float32[b, {L}, V]"],
        ),
        "prompt": ModelFunction(decoder.prompt, {"left_ids": ("int32", f"b, {M}")}, made),
        "step": ModelFunction(
            decoder.step, {**caches, "codes": ("int32", "b"), "place": ("int32", "")}, made
        ),
    }


@dataclasses.dataclass(frozen=True)
class ImageDecoder:
    """Generate an image code by code: `prompt` reads the left text, `step` the previous code."""

    config: RudolphConfig
    compute: Compute = Compute()

    @property
    def positions(self) -> int:
        """Return L, the length of the KV cache: left text and image."""
        layout = Layout(self.config)
        return layout.num_prefix_tokens + layout.image.stop

    def prompt(self, params: Params, ids: jax.Array) -> tuple[jax.Array, ...]:
        """Map int32[b, left] to logits of the first code, keys and values [layers, b, H, L, K]."""
        x, seen = incremental.forward_with_cache(self.config, self.compute, params, ids)
        room = ((0, 0), (0, 0), (0, self.positions - x.shape[1]), (0, 0))
        keys, values = (jnp.stack([jnp.pad(pair[i], room) for pair in seen]) for i in range(2))
        return self._logits(params, x[:, -1]), keys, values

    def step(
        self,
        params: Params,
        keys: jax.Array,
        values: jax.Array,
        codes: jax.Array,
        place: jax.Array,
    ) -> tuple[jax.Array, ...]:
        """Decode one code further, as `prompt`. codes: int32[b]. place: their position, int32[]."""
        config, layout = self.config, Layout(self.config)
        x = incremental.apply_embedding(
            config, self.compute, params, codes[:, None], place[None], method="embed_image"
        )
        position = layout.num_prefix_tokens + layout.left.stop + place
        before = jnp.arange(self.positions) < position
        past = []
        for layer, kind in enumerate(layer_mask_types(config)):
            allowed = jnp.asarray(mask(config, kind))[position, : self.positions] & before
            past.append([(keys[layer], values[layer], allowed)])
        alone = dict.fromkeys(layer_mask_types(config), jnp.ones((1, 1), bool))
        x, key_values = incremental.run_layers(config, params, x, alone, past)
        for layer, (k, v) in enumerate(key_values):
            keys = keys.at[layer, :, :, position].set(k[:, :, 0])
            values = values.at[layer, :, :, position].set(v[:, :, 0])
        return self._logits(params, x[:, 0]), keys, values

    def _logits(self, params: Params, x: jax.Array) -> jax.Array:
        columns = Layout(self.config).code_logits
        return incremental.make_logits_fn(self.config, self.compute, params, columns)(x)


def _serialize(function: ModelFunction, specs: Mapping[str, jax.ShapeDtypeStruct]) -> bytes:
    scope = export.SymbolicScope()
    arrays = [
        jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), np.dtype(dtype))
        for dtype, shape in function.inputs.values()
    ]
    traced = jax.jit(lambda flat, *arrays: function.run(_unflatten(flat), *arrays))
    with cpu.forms(False), jax.default_matmul_precision("highest"):  # one program for all
        return bytes(export.export(traced, platforms=PLATFORMS)(dict(specs), *arrays).serialize())


def _signature(
    kind: str, config: Mapping[str, Any], functions: Mapping[str, ModelFunction]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "config": config,
        "params": PARAMS,
        "platforms": PLATFORMS,
        "jax": jax.__version__,
        "functions": {
            name: {
                "file": f"{name}{SUFFIX}",
                "inputs": {
                    key: {"dtype": dtype, "shape": f"[{shape}]"}
                    for key, (dtype, shape) in function.inputs.items()
                },
                "outputs": list(function.outputs),
            }
            for name, function in functions.items()
        },
    }


def _flatten(params: Params) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def _unflatten(flat: Mapping[str, jax.Array]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree
