"""Tensor names, masks and sizes, common to RUDOLPH and ruDALL-E.

Letters in patterns: d width, h heads, k head size, c query/key/value, f mlp width, v vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from functools import partial

import numpy as np

from clip_jax.errors import InputError
from clip_jax.layers import unstack_layers
from converters.rules import Derived, Rule, Shape, shapes_of
from converters.weights import Weights
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import mask
from rudolph_jax.model import abstract_params

_LAYER = "transformer.layers.{i}"
_SANDWICH = {
    "before_first_addition_layernorm": "attention_out_norm",
    "before_second_addition_layernorm": "mlp_out_norm",
}


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """Hold the names that differ.

    left: the left text's position embedding.
    masks: buffer -> one of `rudolph_jax.masks.MASK_TYPES`.
    """

    left: str
    masks: Mapping[str, str]


RUDOLPH = TensorNames(
    "l_text_pos_embeddings.weight",
    {
        "transformer.row_mask": "row",
        "transformer.col_mask": "column",
        "transformer.conv_mask": "conv",
        "transformer.last_conv_mask": "last_conv",
    },
)
RUDALLE = TensorNames(
    "text_pos_embeddings.weight",
    {
        "transformer.row_mask": "row",
        "transformer.col_mask": "column",
        "transformer.conv_mask": "last_conv",
    },
)
RIGHT = "r_text_pos_embeddings.weight"


def rules(names: TensorNames, config: RudolphConfig) -> tuple[Rule, ...]:
    """Return the table of one model; its rows depend on right text and sandwich norms."""
    attention, mlp = f"{_LAYER}.attention", f"{_LAYER}.mlp"
    norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    norms |= _SANDWICH if config.sandwich_norm else {}
    return (
        Rule("text_embeddings.weight", "text_embedding"),
        Rule("image_embeddings.weight", "image_embedding"),
        Rule(names.left, "left_position_embedding"),
        *([Rule(RIGHT, "right_position_embedding")] if config.right_text_length else []),
        Rule("image_row_embeddings.weight", "image_row_embedding"),
        Rule("image_col_embeddings.weight", "image_column_embedding"),
        *(
            rule
            for source, target in norms.items()
            for rule in _norm(f"{_LAYER}.{source}", f"layers/{{i}}/{target}")
        ),
        Rule(
            f"{attention}.query_key_value.weight",
            "layers/{i}/attention/qkv_kernel",
            "(c h k) d -> d c h k",
        ),
        Rule(
            f"{attention}.query_key_value.bias",
            "layers/{i}/attention/qkv_bias",
            "(c h k) -> c h k",
        ),
        Rule(f"{attention}.dense.weight", "layers/{i}/attention/out_kernel", "d (h k) -> h k d"),
        Rule(f"{attention}.dense.bias", "layers/{i}/attention/out_bias"),
        Rule(f"{mlp}.dense_h_to_4h.weight", "layers/{i}/mlp/in_kernel", "f d -> d f"),
        Rule(f"{mlp}.dense_h_to_4h.bias", "layers/{i}/mlp/in_bias"),
        Rule(f"{mlp}.dense_4h_to_h.weight", "layers/{i}/mlp/out_kernel", "d f -> f d"),
        Rule(f"{mlp}.dense_4h_to_h.bias", "layers/{i}/mlp/out_bias"),
        *_norm("transformer.final_layernorm", "final_norm"),
        *_norm("to_logits.0", "head_norm"),
        Rule("to_logits.1.weight", "head/kernel", "v d -> d v"),
        Rule("to_logits.1.bias", "head/bias"),
    )


def _norm(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")


def derived(names: TensorNames) -> tuple[Derived, ...]:
    """Describe the mask buffers. The originals load strictly, so an export must hold them."""
    return tuple(
        Derived(
            buffer,
            f"the mask of {kind} attention, which follows from the config",
            partial(mask, mask_type=kind),
            export_dtype="bool",
        )
        for buffer, kind in names.masks.items()
    )


@functools.cache
def parameter_shapes(config: RudolphConfig) -> Mapping[str, Shape]:
    """Map path to shape for every parameter, with layers separate."""
    return shapes_of(unstack_layers(abstract_params(config)))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Hold sizes that follow from the shapes of a checkpoint's tensors.

    num_text_ids, num_image_ids: rows of the embeddings.
    """

    width: int
    layers: int
    left_text_length: int
    image_tokens_per_side: int
    right_text_length: int
    num_text_ids: int
    num_image_ids: int
    sandwich_norm: bool

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(self).items())

    def segments(self) -> RudolphConfig:
        """Return a config with these segments; its other fields are placeholders."""
        return RudolphConfig(
            self.left_text_length,
            self.image_tokens_per_side,
            self.right_text_length,
            text_vocab_size=4,
            image_vocab_size=1,
            width=1,
            layers=1,
            heads=1,
        )

    @classmethod
    def of(cls, config: RudolphConfig) -> Sizes:
        layout = Layout(config)
        values = {
            field.name: getattr(layout if field.name.startswith("num_") else config, field.name)
            for field in dataclasses.fields(cls)
        }
        return cls(**values)


def read_sizes(names: TensorNames, shapes: Mapping[str, Shape], where: str) -> Sizes:
    """Infer sizes. shapes: of all tensors, by name. where: the checkpoint in errors."""

    def rows(name: str, least: int = 1) -> tuple[int, int]:
        if name not in shapes:
            raise InputError(f"{where}: tensor {name!r} is missing")
        shape = shapes[name]
        if len(shape) != 2 or shape[0] < least:
            raise InputError(
                f"{where}: tensor {name!r} has shape {list(shape)}; expected 2 axes, {least} or "
                "more rows"
            )
        return shape

    num_text_ids, width = rows("text_embeddings.weight")
    numbers = [re.match(r"transformer\.layers\.([0-9]{1,4})\.", name) for name in shapes]
    layers = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    sandwich = f"{_LAYER}.{next(iter(_SANDWICH))}.weight".replace("{i}", "0")
    return Sizes(
        width=width,
        layers=layers,
        left_text_length=rows(names.left, least=2)[0] - 1,
        image_tokens_per_side=rows("image_row_embeddings.weight")[0],
        right_text_length=rows(RIGHT)[0] - 1 if names is RUDOLPH else 0,
        num_text_ids=num_text_ids,
        num_image_ids=rows("image_embeddings.weight")[0],
        sandwich_norm=sandwich in shapes,
    )


def mask_kernel_size(weights: Weights, buffer: str, config: RudolphConfig) -> int | None:
    """Return the smallest kernel of a checkpoint's convolution mask.

    None where no kernel gives the mask, or the buffer is absent.
    config: for the segments and `conv_edges`; its kernels do not matter.
    """
    d, layout = config.image_tokens_per_side, Layout(config)
    if buffer not in weights.tensors:
        return None
    found = np.asarray(weights.tensors[buffer]) != 0
    if found.shape != (layout.sequence_length, layout.sequence_length):
        return None
    asking, seen = np.nonzero(found[layout.image, layout.image])
    reach = 0
    for a, b in zip(np.divmod(asking, d), np.divmod(seen, d), strict=True):
        distance = np.abs(a - b)
        if config.conv_edges == "wrap":
            distance = np.minimum(distance, d - distance)
        reach = max(reach, int(distance.max(initial=0)))
    kernel = 2 * reach + 1
    same = np.array_equal(found, mask(dataclasses.replace(config, kernel_size=kernel), "conv"))
    return kernel if same else None


def mask_kernel_sizes(
    names: TensorNames, weights: Weights, config: RudolphConfig
) -> dict[str, int]:
    """Map fields of the config to `mask_kernel_size`, for each convolution mask present."""
    fields = {"conv": "kernel_size", "last_conv": "last_kernel_size"}
    found = {
        fields[kind]: mask_kernel_size(weights, buffer, config)
        for buffer, kind in names.masks.items()
        if kind in fields
    }
    return {name: kernel for name, kernel in found.items() if kernel is not None}


def smallest_equivalent_kernel(kernel: int, config: RudolphConfig) -> int:
    """Return the smallest kernel with the same mask: one that spans the image sees all of it."""
    d = config.image_tokens_per_side
    return min(kernel, 2 * (d - 1 if config.conv_edges == "clamp" else d // 2) + 1)
