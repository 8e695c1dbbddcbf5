"""Our safetensors reader and writer against the safetensors package, and damaged files."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from clip_jax.errors import InputError
from converters import safetensors_file


def some_tensors(rng):
    return {
        "слой": rng.normal(size=(3, 4)).astype(np.float32),
        "half": rng.normal(size=5).astype(np.float16),
        "ids": np.arange(7),
        "scalar": np.array(2.5),
        "mask": np.array([True, False, True]),
        "empty": np.zeros((0, 3), np.float32),
    }


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_reads_the_package_s_files_as_views(tmp_path, rng):
    tensors = some_tensors(rng)
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = safetensors_file.read(tmp_path / "x.safetensors")
    assert_same(found, tensors)
    assert not any(array.flags.writeable or array.flags.owndata for array in found.values())


def test_the_package_reads_ours(tmp_path, rng):
    tensors = some_tensors(rng)
    safetensors_file.write(tmp_path / "x.safetensors", tensors)
    assert_same(safetensors.numpy.load_file(tmp_path / "x.safetensors"), tensors)


def test_bfloat16_there_and_back(tmp_path, rng):
    tensors = {"a": rng.normal(size=(3, 2)).astype(ml_dtypes.bfloat16).T, "b": np.ones(3, np.int8)}
    safetensors_file.write(tmp_path / "x.safetensors", tensors)
    assert_same(safetensors_file.read(tmp_path / "x.safetensors"), tensors)


def file_with(tmp_path, header, data=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape=(4,), begin=0, stop=16, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, stop]}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"a": entry(stop=12)}, "tensor 'a' has 12 bytes"),
        ({"a": entry(shape=(8,), stop=32)}, "tensor 'a' is at bytes 0 to 32"),
        ({"a": entry(shape=(3,), begin=4)}, "tensor 'a' is at bytes 4 to 16"),
        ({"a": entry(), "b": entry()}, "tensor 'b' is at bytes 0 to 16"),
        ({"a": entry(shape=(2,), stop=8)}, "8 bytes at its end belong to no tensor"),
        ({"a": entry(dtype="F4")}, "tensor 'a' has dtype 'F4'"),
        ({"a": entry(shape=(-2, -2))}, "tensor 'a' has the shape [-2, -2]"),
        ({"a": entry(shape=(2.0, 2))}, "tensor 'a' has the shape"),
        ({"a": entry(shape=(4,), begin=-16, stop=0)}, "tensor 'a' has the shape"),
        ({"a": {"dtype": "F32"}}, "tensor 'a' lacks"),
        ({"a": [1]}, "tensor 'a' lacks"),
        (b'{"a":1,"a":2}', "'a' is there twice"),
        (b"[1, 2]", "damaged header, a list"),
        (b"{" * 5000, "damaged header"),
        (b'{"a": ' + b"[" * 100_000, "damaged header"),
        (b"\xff\xff", "damaged header"),
    ],
)
def test_damaged_headers(tmp_path, header, expected):
    path = file_with(tmp_path, header)
    with pytest.raises(InputError) as caught:
        safetensors_file.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 5, 8, 30, -1, -16])
def test_truncated(tmp_path, cut):
    path = file_with(tmp_path, {"a": entry()})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="cut short"):
        safetensors_file.read(path)
