"""Write a state dict as `torch.save` would, without PyTorch, one tensor in memory at a time.

`torch.load(path, weights_only=True)` reads it, memory-mapped too: records are aligned to 64 bytes.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from converters.torch_unpickler import STORAGES

ALIGNMENT = 64
_KINDS = {dtype: kind for kind, dtype in STORAGES.items()}
_LOCAL_HEADER_BYTES, _ZIP64_EXTRA_BYTES = 30, 20


class ArrayLike(Protocol):
    """Stand for an array, or an object that `np.asarray` turns into one when it is written."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray: ...


def write(path: str | Path, tensors: Mapping[str, ArrayLike], under: str = "") -> None:
    """Write name -> array, or {under: {name -> array}}.

    The caller moves the file into place: a failure leaves a partial one.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _record(archive, "data.pkl", _state_dict_pickle(tensors, under))
        _record(archive, "byteorder", b"little")
        for key, (name, tensor) in enumerate(tensors.items()):
            array = np.asarray(tensor, order="C")
            if array.shape != tuple(tensor.shape) or array.dtype != tensor.dtype:
                raise ValueError(f"{name}: {array.dtype}{array.shape} is not what it announced")
            _record(archive, f"data/{key}", contiguous_bytes(array))
        _record(archive, "version", b"3\n")


def contiguous_bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of an array, without a copy if contiguous. JAX's hosts are little-endian."""
    array = np.asarray(array, order="C")
    return array.reshape(-1).view(np.uint8).data  # ml_dtypes has no buffer of its own


def _record(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")
    info.file_size = len(content)
    large = len(content) >= 1 << 31
    file: Any = archive.fp  # it is open
    start = file.tell() + _LOCAL_HEADER_BYTES + len(info.filename)
    start += _ZIP64_EXTRA_BYTES if large else 0
    padding = (-start - 4) % ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # PyTorch's own filler
    with archive.open(info, "w", force_zip64=large) as record:
        record.write(content)


def _state_dict_pickle(tensors: Mapping[str, ArrayLike], under: str) -> bytes:
    """Pickle in protocol 2: an OrderedDict of `torch._utils._rebuild_tensor_v2` calls."""
    before, after = (pickle.EMPTY_DICT + _text(under), pickle.SETITEM) if under else (b"", b"")
    out = [pickle.PROTO + b"\x02", before, _ORDERED_DICT, pickle.MARK]
    for key, (name, tensor) in enumerate(tensors.items()):
        shape, elements = tuple(tensor.shape), int(np.prod(tensor.shape, dtype=np.int64))
        if tensor.dtype not in _KINDS:
            raise ValueError(f"{name}: PyTorch has no storage for {tensor.dtype}")
        kind = pickle.GLOBAL + f"torch\n{_KINDS[tensor.dtype]}\n".encode()
        storage = [_text("storage"), kind, _text(str(key)), _text("cpu"), _integer(elements)]
        strides = [int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))]
        out += [
            _text(name),
            pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n",
            pickle.MARK,
            *_tuple(storage),
            pickle.BINPERSID,
            _integer(0),
            *_tuple([_integer(n) for n in shape]),
            *_tuple([_integer(n) for n in strides]),
            pickle.NEWFALSE,
            _ORDERED_DICT,
            pickle.TUPLE,
            pickle.REDUCE,
        ]
    return b"".join([*out, pickle.SETITEMS, after, pickle.STOP])


_ORDERED_DICT = pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE


def _tuple(items: list[bytes]) -> list[bytes]:
    return [pickle.MARK, *items, pickle.TUPLE]


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)
