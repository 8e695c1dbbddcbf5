"""safetensors files as read-only memory maps, bfloat16 included, and their writer.

Format: eight bytes of header length, a JSON header, then the tensors' bytes without holes.
The safetensors package's numpy side knows no bfloat16, and copies.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from clip_jax.errors import InputError
from clip_jax.input_files import check_regular
from clip_jax.paths import local_path
from clip_jax.text import parse_json
from converters.torch_unpickler import safe_repr
from converters.torch_writer import ArrayLike, contiguous_bytes

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Map name to a read-only array on the file. InputError for anything damaged or unknown."""
    path = local_path(path, "a safetensors file")
    try:
        size = check_regular(path)
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise InputError(f"{path}: cut short, damaged or not a safetensors file")
            header = _header(path, file.read(length))
        whole = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    header.pop("__metadata__", None)
    data, end, tensors = whole[8 + length :], 0, {}
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    # The format allows neither holes nor overlaps, so each span begins where the last one ended.
    for name, (dtype, shape, begin, stop) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != end or stop > len(data):
            raise InputError(
                f"{path}: tensor {safe_repr(name)} is at bytes {begin} to {stop}; expected a "
                "start "
                f"at {end} and {len(data)} bytes in all: cut short or damaged"
            )
        tensors[name] = data[begin:stop].view(np.ndarray).view(dtype).reshape(shape)
        end = stop
    if end != len(data):
        raise InputError(f"{path}: {len(data) - end} bytes at its end belong to no tensor")
    return {name: tensors[name] for name in header}


def write(path: str | Path, tensors: Mapping[str, ArrayLike]) -> None:
    """Write name -> array, one in memory at a time; metadata as transformers expects it."""
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": _CODES[np.dtype(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            array = np.asarray(tensors[name])
            if array.shape != tuple(tensors[name].shape) or array.dtype != tensors[name].dtype:
                raise ValueError(f"{name}: {array.dtype}{array.shape} is not what it announced")
            file.write(contiguous_bytes(array))


def _header(path: Path, text: bytes) -> dict[str, Any]:
    header = parse_json(text, f"{path}: damaged header")
    if not isinstance(header, dict):
        raise InputError(f"{path}: damaged header, a {type(header).__name__}")
    return header


def _span(path: Path, name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(begin), int(stop)]}:
            pass
        case _:
            raise InputError(f"{path}: tensor {safe_repr(name)} lacks dtype, shape or data_offsets")
    if code not in DTYPES:
        known = ", ".join(DTYPES)
        raise InputError(
            f"{path}: tensor {safe_repr(name)} has dtype {safe_repr(code)}; known: {known}"
        )
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32 or begin < 0:
        raise InputError(f"{path}: tensor {safe_repr(name)} has the shape {safe_repr(shape)}")
    dtype = DTYPES[code]
    # numpy computes sizes in 64 bits, also where an axis of 0 makes the product small.
    if math.prod(n for n in shape if n) * dtype.itemsize >= 1 << 63:
        raise InputError(
            f"{path}: tensor {safe_repr(name)} has the impossible shape {safe_repr(shape)}"
        )
    if math.prod(shape) * dtype.itemsize != stop - begin:
        raise InputError(
            f"{path}: tensor {safe_repr(name)} has {stop - begin} bytes; {safe_repr(shape)} x "
            f"{dtype} "
            f"are {math.prod(shape) * dtype.itemsize}"
        )
    return dtype, tuple(shape), begin, stop
