"""PyTorch checkpoints and TorchScript archives as read-only memory maps, without PyTorch.

Both are zip files of uncompressed records: `NAME/data.pkl` describes tensors, `NAME/data/KEY`
holds the numbers of one storage. Nothing is copied until an array is used.
Format: torch/csrc/jit/docs/serialization.md and torch/serialization.py of PyTorch.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import sys
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.input_files import check_regular
from clip_jax.paths import local_path
from converters.containers import FoundStateDict, find_state_dict
from converters.torch_unpickler import Module, Storage, Tensor, safe_repr, unpickle

# A checkpoint of some thousand tensors has a pickle of less than a megabyte.
MAX_PICKLE_BYTES = 8 << 20
MAX_NESTED_ATTRIBUTES = 20_000
MAX_CODE_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """Hold the tensors of a file.

    tensors: name -> read-only array, in the file's order.
    entry, left_out: see `FoundStateDict`.
    script: the root of a TorchScript archive.
    code: its source, by record name.
    """

    tensors: dict[str, np.ndarray]
    entry: str = ""
    left_out: tuple[str, ...] = ()
    script: Module | None = None
    code: Callable[[str], str] = str


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Return name -> read-only array, in the file's order: the tensors of `open_file`."""
    return open_file(path).tensors


def open_file(path: str | Path, entry: str | None = None) -> TorchFile:
    """Open a state dict, alone or among other entries, or a TorchScript archive.

    entry: name of one of several state dicts (`containers.py`). Names in an archive are its
        attributes,
    joined by dots. bfloat16 is `ml_dtypes.bfloat16`. InputError for anything else or damaged.
    """
    archive = _open(local_path(path, "a checkpoint"))
    content = unpickle(archive.content("data.pkl", limit=MAX_PICKLE_BYTES), str(path))
    if type(content) is Module:
        if entry is not None:
            raise InputError(f"{path}: a TorchScript archive has no entries; leave --entry out")
        found = FoundStateDict("", _flatten(content, str(path)))
    else:
        found = find_state_dict(content, str(path), entry)
    return TorchFile(
        {name: archive.view(name, tensor) for name, tensor in found.tensors.items()},
        found.entry,
        found.left_out,
        content if type(content) is Module else None,
        archive.text,
    )


def _flatten(root: Module, where: str) -> dict[str, Tensor]:
    """Return all tensors below a TorchScript module; other attributes are skipped."""
    tensors: dict[str, Tensor] = {}
    todo: list[tuple[str, Any]] = [("", root)]
    visits = 0
    while todo:
        name, value = todo.pop()
        visits += 1
        # A bag that contains itself, or shared bags that double at each level.
        if visits > MAX_NESTED_ATTRIBUTES:
            raise InputError(f"{where}: its modules nest without end, at {safe_repr(name)}")
        if type(value) is Tensor:
            if name in tensors:
                raise InputError(f"{where}: tensor {safe_repr(name)} is there twice")
            tensors[name] = value
        elif type(value) is Module:
            prefix = name + "." if name else ""
            children = [(f"{prefix}{key}", child) for key, child in value.attributes.items()]
            todo.extend(reversed(children))
    return tensors


@dataclasses.dataclass(frozen=True)
class _Archive:
    path: Path
    map: np.ndarray  # uint8[file size], read-only
    records: dict[str, zipfile.ZipInfo]  # by name below the archive's folder
    ends: dict[str, int]  # by the same names: where the next record or the directory begins
    swapped: bool  # written by a machine of the other byte order

    def content(self, name: str, limit: int) -> bytes:
        offset, size = self.record(name)
        if size > limit:
            raise InputError(f"{self.path}: record {name} has {size} bytes; the limit is {limit}")
        data = self.map[offset : offset + size].tobytes()
        if not self._sound(name, data) and self._has_checksums():
            raise InputError(
                f"{self.path}: record {name} does not have its CRC-32; damaged, download or copy "
                "it again"
            )
        return data

    def _sound(self, name: str, data: bytes) -> bool:
        return zlib.crc32(data) == self.records[name].CRC

    def _has_checksums(self) -> bool:
        """Return whether PyTorch wrote checksums: if not, that of the record `version` is wrong."""
        if "version" not in self.records:
            return True
        offset, size = self.record("version")
        return size < 64 and self._sound("version", self.map[offset : offset + size].tobytes())

    def text(self, name: str) -> str:
        """Return a record of source code, which PyTorch compresses; "" where it is absent."""
        if name not in self.records:
            return ""
        info = self.records[name]
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        offset, size = _locate(self.path, self.map, info, self.ends[name], methods)
        data = self.map[offset : offset + min(size, MAX_CODE_BYTES)].tobytes()
        try:
            if info.compress_type == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_CODE_BYTES)
            return data.decode("utf-8")
        except (zlib.error, UnicodeDecodeError) as error:
            raise InputError(
                f"{self.path}: record {safe_repr(name)} is damaged ({error})"
            ) from error

    def record(self, name: str) -> tuple[int, int]:
        """Return offset and size of its bytes."""
        if name not in self.records:
            raise InputError(
                f"{self.path}: has no record {safe_repr(name)}; not a whole checkpoint"
            )
        return _locate(self.path, self.map, self.records[name], self.ends[name])

    def view(self, name: str, tensor: Tensor) -> np.ndarray:
        """Return the tensor on the map, after checks of its storage and its extents."""
        storage, where = tensor.storage, f"{self.path}: tensor {safe_repr(name)}"
        shape, strides = _sizes(tensor.shape), _sizes(tensor.strides)
        if shape is None or strides is None or _sizes([tensor.offset]) is None:
            raise InputError(f"{where} has sizes, strides or an offset that no tensor can have")
        if len(shape) != len(strides):
            raise InputError(f"{where} has {len(shape)} sizes and {len(strides)} strides")
        if math.prod(n for n in shape if n) * storage.dtype.itemsize >= 1 << 63:
            raise InputError(f"{where} has the impossible shape {safe_repr(list(shape))}")
        offset, size = self._storage(storage, where)
        if 0 in shape:
            return _read_only(np.empty(shape, storage.dtype))
        steps = ((n - 1) * step for n, step in zip(shape, strides, strict=True))
        last = tensor.offset + sum(steps)
        if last >= storage.elements:
            raise InputError(
                f"{where} reaches element {last} of a storage of {storage.elements} elements"
            )
        itemsize = storage.dtype.itemsize
        array = np.ndarray(
            shape,
            np.dtype(f"u{itemsize}").newbyteorder("S") if self.swapped else storage.dtype,
            buffer=self.map[offset : offset + size],
            offset=tensor.offset * itemsize,
            # A lone element's stride is free: torch may leave one that numpy would refuse.
            strides=[s * itemsize if n > 1 else 0 for n, s in zip(shape, strides, strict=True)],
        )
        if self.swapped:
            array = array.astype(f"u{itemsize}").view(storage.dtype)
        return _read_only(array)

    def _storage(self, storage: Storage, where: str) -> tuple[int, int]:
        offset, size = self.record(f"data/{storage.key}")
        expected = storage.elements * storage.dtype.itemsize
        if size != expected:
            raise InputError(
                f"{where}: record {safe_repr(f'data/{storage.key}')} has {size} bytes; "
                f"{storage.elements} x {storage.dtype} are {expected}"
            )
        return offset, size


def _sizes(values: Any) -> tuple[int, ...] | None:
    """Return sizes, strides or offsets as a tuple; None unless all are plausible integers."""
    if type(values) not in (tuple, list) or len(values) > 32:
        return None
    if all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        return tuple(values)
    return None


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _open(path: Path) -> _Archive:
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(512)
            entries, directory = _entries(path, file, head)
        whole = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise InputError(
            f"{path}: a zip file with {len(pickles)} records NAME/data.pkl; expected one, "
            "as torch.save writes it"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    records = {n.removeprefix(prefix): info for n, info in entries.items() if n.startswith(prefix)}
    starts = sorted(info.header_offset for info in entries.values()) + [directory]
    ends = {n: starts[bisect_right(starts, info.header_offset)] for n, info in records.items()
            if info.header_offset < directory}  # fmt: skip
    if len(ends) < len(records):
        raise InputError(f"{path}: a record begins beyond the directory; cut short or damaged")
    archive = _Archive(path, whole, records, ends, swapped=False)
    order = archive.content("byteorder", limit=16) if "byteorder" in records else b"little"
    if order not in (b"little", b"big"):
        raise InputError(f"{path}: record byteorder is {safe_repr(order)}; expected little or big")
    return dataclasses.replace(archive, swapped=order.decode() != sys.byteorder)


def _entries(path: Path, file: Any, head: bytes) -> tuple[dict[str, zipfile.ZipInfo], int]:
    """Return the records by name, and the offset of their directory."""
    if not head.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: {_not_a_zip(head)}")
    try:
        with zipfile.ZipFile(file) as archive:
            infos, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise InputError(
            f"{path}: cut short or damaged ({error}); download or copy it again"
        ) from error
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.filename in entries:
            raise InputError(f"{path}: record {safe_repr(info.filename)} is there twice")
        entries[info.filename] = info
    return entries, directory


def _not_a_zip(head: bytes) -> str:
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        return (
            "saved by a PyTorch before 1.6 or without zip; load it in PyTorch and torch.save it "
            "again (files by people you do not know: with weights_only=True)"
        )
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights; fetch the file itself (git lfs pull)"
    if not head:
        return "empty file; download or copy it again"
    return "not a zip file; expected a checkpoint as torch.save or torch.jit.save writes it"


def _locate(
    path: Path,
    whole: np.ndarray,
    info: zipfile.ZipInfo,
    end: int,
    methods: Collection[int] = (zipfile.ZIP_STORED,),
) -> tuple[int, int]:
    """Return offset and size of a record's bytes: the zip directory knows only its header's offset.

    end: where the next record begins. A header that is not this record's, or whose extra field
    does not fill its length, would shift the bytes unseen.
    """
    where = f"{path}: record {safe_repr(info.filename)}"
    if info.compress_type not in methods or info.flag_bits & 0x1:
        raise InputError(f"{where} is compressed or encrypted; PyTorch stores records as they are")
    start, header_end = info.header_offset, info.header_offset + _LOCAL_HEADER.size
    if start < 0 or header_end > len(whole):
        raise InputError(f"{where} begins outside the file; cut short or damaged")
    fields = _LOCAL_HEADER.unpack(whole[start:header_end].tobytes())
    extra_start = header_end + fields[-2]
    offset = extra_start + fields[-1]
    name = whole[header_end:extra_start].tobytes()
    encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
    stored = info.compress_type == zipfile.ZIP_STORED
    if fields[0] != b"PK\x03\x04" or (stored and info.file_size != info.compress_size):
        raise InputError(f"{where} has a damaged header")
    extra = whole[extra_start:offset].tobytes()
    if name != info.orig_filename.encode(encoding, "replace") or not _is_whole_extra(extra):
        raise InputError(f"{where} has a damaged header")
    if offset + info.compress_size > min(end, len(whole)):
        raise InputError(f"{where} reaches beyond its end; cut short or damaged")
    return offset, info.compress_size


def _is_whole_extra(extra: bytes) -> bool:
    """Return whether fields of (id, length, content) fill it."""
    at = 0
    while at + 4 <= len(extra):
        at += 4 + struct.unpack_from("<H", extra, at + 2)[0]
    return at == len(extra)
