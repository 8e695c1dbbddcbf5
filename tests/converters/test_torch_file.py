"""Reading and writing PyTorch's zip checkpoints: what must work. Hostile files have their own."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from archives import call, new, tensor, write_archive

from converters import torch_file, torch_writer

DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def on_the_file(array: np.ndarray) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("order", ["little", "big"])
def test_storage_kinds_and_byte_order(tmp_path, kind, order):
    numbers = np.array([[1, 0, 3], [0, 1, 2]]).astype(DTYPES[kind])
    width = numbers.itemsize
    raw = numbers.tobytes()
    if order == "big":
        raw = b"".join(raw[i : i + width][::-1] for i in range(0, len(raw), width))
    content = {"a": tensor(elements=6, shape=(2, 3), strides=(3, 1), kind=kind)}
    path = write_archive(tmp_path / "x.pt", content, **{"data/0": raw, "byteorder": order.encode()})
    found = torch_file.read(path)["a"]
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers)


def test_arrays_are_read_only_views_of_the_file(tmp_path):
    found = torch_file.read(write_archive(tmp_path / "x.pt", {"a": tensor()}))["a"]
    assert on_the_file(found)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((2, 2), (1, 2), 0, [[0, 2], [1, 3]]),  # a transposed matrix
        ((2,), (2,), 1, [1, 3]),  # a strided slice
        ((3, 2), (0, 1), 2, [[2, 3]] * 3),  # an expanded row
        ((), (), 3, 3),
        ((0, 5), (5, 1), 0, np.zeros((0, 5))),
        ((1, 2), (10**9, 1), 0, [[0, 1]]),  # one row: its stride reaches nothing
    ],
)
def test_strides_and_offsets(tmp_path, shape, strides, offset, expected):
    content = {"a": tensor(shape=shape, strides=strides, offset=offset)}
    found = torch_file.read(write_archive(tmp_path / "x.pt", content))["a"]
    assert found.shape == shape
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


def test_wrappers_and_tied_tensors(tmp_path):
    parameter = call("torch._utils", "_rebuild_parameter", tensor(), True, {})
    content = {"state_dict": {"a": parameter, "b": tensor(shape=(2,))}, "epoch": 3}
    found = torch_file.read(write_archive(tmp_path / "x.ckpt", content))
    assert list(found) == ["a", "b"]
    assert np.shares_memory(found["a"], found["b"])


def test_a_tensor_named_state_dict_is_not_unwrapped(tmp_path):
    path = write_archive(tmp_path / "x.pt", {"state_dict": tensor(), "b": tensor()})
    found = torch_file.read(path)
    assert list(found) == ["state_dict", "b"]


def test_torchscript_names_are_joined_by_dots(tmp_path):
    block = new("__torch__.a.___torch_mangle_1", "Block", {"weight": tensor(), "training": False})
    root = new("__torch__.a", "Net", {"blocks": new("__torch__", "L", {"0": block}), "n": 3})
    assert list(torch_file.read(write_archive(tmp_path / "x.pt", root))) == ["blocks.0.weight"]


def test_compressed_code_does_not_disturb(tmp_path):
    path = write_archive(tmp_path / "x.pt", {"a": tensor()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/code/a.py", "pass\n" * 99, zipfile.ZIP_DEFLATED)
    assert list(torch_file.read(path)) == ["a"]


def test_written_files_read_back_aligned(tmp_path, rng):
    tensors = {
        "слой.weight": rng.normal(size=(3, 5)).astype(np.float32),
        "half": rng.normal(size=7).astype(np.float16),
        "brain": rng.normal(size=(2, 2)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(6).reshape(2, 3).T,
        "mask": np.array([True, False]),
    }
    path = tmp_path / "x.pt"
    torch_writer.write(path, tensors)
    found = torch_file.read(path)
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].size == 0 or found[name].ctypes.data % 64 == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_writer_refuses_what_pytorch_has_no_storage_for(tmp_path):
    with pytest.raises(ValueError, match="a: PyTorch has no storage for uint32"):
        torch_writer.write(tmp_path / "x.pt", {"a": np.zeros(2, np.uint32)})
