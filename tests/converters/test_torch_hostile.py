"""Damaged and hostile PyTorch files: one line that names the file, nothing run, nothing mapped."""

import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from archives import FOUR, Raw, build, call, name, new, pickled, tensor, value, write_archive

from clip_jax.errors import InputError
from converters import torch_file, torch_unpickler


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        torch_file.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message and len(message) < 600
    return message


def refused_content(tmp_path, content, **records) -> str:
    return refused(write_archive(tmp_path / "x.pt", content, **records))


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_call_is_not_made(tmp_path, protocol):
    trace = tmp_path / "trace"
    data = pickle.dumps({"a": Runs(f"touch {trace}")}, protocol)
    assert "global 'posix.system' is refused" in refused_content(tmp_path, data)
    assert not trace.exists()


@pytest.mark.parametrize(
    "hostile",
    [
        call("builtins", "eval", "1"),
        call("torch", "load", "x"),
        call("numpy.core.multiarray", "_reconstruct"),
        call("torch._utils", "_rebuild_tensor_v3"),
        name("clip.model", "CLIP"),
        name("__torch__x", "y"),
    ],
    ids=lambda raw: raw.split(b"\n")[1].decode(),
)
def test_other_globals_are_refused_by_name(tmp_path, hostile):
    wanted = ".".join(hostile[1:].decode("latin1").split("\n")[:2])
    assert f"global '{wanted}' is refused" in refused_content(tmp_path, {"a": hostile})


def test_globals_cannot_be_changed(tmp_path):
    for target in (
        name("torch._utils", "_rebuild_tensor_v2"),
        name("torch", "FloatStorage"),
        name("__torch__.a", "B"),
        tensor(),
    ):
        message = refused_content(tmp_path, build(target, {"module": "os", "name": "system"}))
        assert "attributes set on" in message
    assert torch_file.read(write_archive(tmp_path / "y.pt", {"a": tensor()}))["a"].sum() == 6
    with pytest.raises((AttributeError, TypeError)):  # which, depends on Python's version
        torch_unpickler.Global("a", "b").anything = 1


@pytest.mark.parametrize(
    "hostile",
    [
        call("torch", "FloatStorage"),
        call("__torch__.a", "B"),
        new("collections", "OrderedDict", {}),
        call("torch._utils", "_rebuild_tensor_v2"),
        call("torch._utils", "_rebuild_tensor_v2", "no storage", 0, (4,), (1,)),
        call("torch._utils", "_rebuild_parameter"),
        call("collections", "OrderedDict", (("a", 1),)),
        Raw(value(("storage", name("torch", "FloatStorage"), 0, "cpu", 4)) + pickle.BINPERSID),
        Raw(value(("storage", name("torch", "Size"), "0", "cpu", 4)) + pickle.BINPERSID),
        Raw(value(("storage", name("torch", "FloatStorage"), "0", "cpu", -4)) + pickle.BINPERSID),
        {(1, 2): tensor()},
        Raw(b"(lp0\n"),  # protocol 0's LIST
        Raw(b"(i__main__\nA\n"),
        Raw(pickle.BINGET + b"\x07"),
        Raw(pickle.REDUCE),
        Raw(pickle.TUPLE),
        Raw(pickle.MARK + pickle.SETITEMS),
        Raw(pickle.EMPTY_DICT + pickle.MARK + value("a") + pickle.SETITEMS),
        Raw(pickle.BINUNICODE + b"\xff\xff\xff\xff"),
        Raw(b"\xfe"),
        Raw(b"L" + b"9" * 9999 + b"L\n"),
        Raw(b""),
        "text",
        {"a": 3},
        {"a": {"b": tensor()}},
        {3: tensor()},
        (tensor(),),
    ],
    ids=repr,
)
def test_anything_but_tensors_is_refused(tmp_path, hostile):
    refused_content(tmp_path, hostile)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2,), (4,), 0),
        ((2,), (10**18,), 0),
        ((2,), (1 << 80,), 0),
        ((1 << 80,), (0,), 0),
        ((1 << 40, 1 << 40), (0, 0), 0),
        ((2,), (-1,), 3),
        ((-2,), (1,), 0),
        ((2,), (1,), -1),
        ((2,), (1,), 1 << 80),
        ((2, 2), (1,), 0),
        ((True,), (1,), 0),
        (("2",), (1,), 0),
        (2, (1,), 0),
        ((2,), None, 0),
        ((2,), (1,), None),
        ((1,) * 40, (1,) * 40, 0),
    ],
)
def test_windows_stay_inside_their_storage(tmp_path, shape, strides, offset):
    content = {"layer.weight": tensor(shape=shape, strides=strides, offset=offset)}
    assert "tensor 'layer.weight'" in refused_content(tmp_path, content)


def test_storages_are_whole(tmp_path):
    assert "record 'data/0' has 12 bytes; 4 x float32 are 16" in refused_content(
        tmp_path, {"a": tensor()}, **{"data/0": FOUR[:12]}
    )
    assert "has no record 'data/7'" in refused_content(tmp_path, {"a": tensor(key="7")})
    assert "has no record 'data/../data.pkl'" in refused_content(
        tmp_path, {"a": tensor(key="../data.pkl")}
    )


def test_a_name_given_twice(tmp_path):
    twice = value("a") + value(tensor()) + pickle.SETITEM
    content = Raw(pickle.EMPTY_DICT + twice + twice)
    assert "'a' is there twice" in refused_content(tmp_path, content)
    inner = new("__torch__", "C", {"y": tensor()})
    modules = new("__torch__.a", "B", {"x.y": tensor(), "x": inner})
    assert "tensor 'x.y' is there twice" in refused_content(tmp_path, modules)


def test_nesting_without_end(tmp_path):
    deep = b"(" * 200_000 + b"t" * 200_000
    assert "holds a tuple" in refused_content(tmp_path, Raw(deep))
    itself = Raw(
        name("__torch__", "A")
        + pickle.EMPTY_TUPLE
        + pickle.NEWOBJ
        + (pickle.BINPUT + b"\x00")
        + value({"x": Raw(pickle.BINGET + b"\x00")})
        + pickle.BUILD
    )
    assert "nest without end" in refused_content(tmp_path, itself)
    doubling = value(new("__torch__", "A", {}))
    for i in range(64):
        doubling += pickle.BINPUT + bytes([i])
        again = Raw(pickle.BINGET + bytes([i]))
        doubling += value(new("__torch__", "A", {"x": again, "y": again}))
    assert "nest without end" in refused_content(tmp_path, Raw(doubling))


def test_names_cannot_break_the_line(tmp_path):
    refused_content(tmp_path, {"a\nerror: all is well\n" + "x" * 9999: 3})


def test_oversize_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 10)
    assert "the limit is 10" in refused_content(tmp_path, {"a": tensor()})


@pytest.mark.parametrize("cut", [1, 5, 40, 300, 700, 900, -1, -10, -22, -60])
def test_truncated(tmp_path, cut):
    path = write_archive(tmp_path / "x.pt", {"a": tensor()}, **{"data/1": bytes(500)})
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    assert "cut short" in refused(path) or cut < 4


def test_damaged_anywhere_gives_an_input_error_or_tensors(tmp_path):
    good = {"a": tensor(), "b": tensor(shape=(2, 2), strides=(2, 1))}
    path = write_archive(tmp_path / "x.pt", good)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    failures = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = torch_file.read(path)
        except InputError as error:
            assert "\n" not in str(error)
            failures += 1
        else:
            assert all(array.size < 99 and array.sum() is not None for array in found.values())
    assert failures > 30


def test_other_files(tmp_path):
    path = tmp_path / "x.pt"
    for content, expected in [
        (b"", "empty file"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "before 1.6"),
        (bytes(257) + b"ustar" + bytes(300), "before 1.6"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"<html>", "not a zip file"),
    ]:
        path.write_bytes(content)
        assert expected in refused(path)
    assert "cannot be read" in refused(tmp_path / "absent.pt")
    assert "cannot be read" in refused(tmp_path)


def test_odd_archives(tmp_path):
    good = {"a": tensor()}
    assert "is compressed" in refused(
        write_archive(tmp_path / "a.pt", good, compression=zipfile.ZIP_DEFLATED)
    )
    assert "0 records NAME/data.pkl" in refused(
        write_archive(tmp_path / "b.pt", good, pkl="archive/other.pkl")
    )
    assert "2 records NAME/data.pkl" in refused(
        write_archive(tmp_path / "c.pt", good, pkl="second/data.pkl", **{"data.pkl": pickled({})})
    )
    assert "byteorder is b'middle'" in refused(
        write_archive(tmp_path / "d.pt", good, byteorder=b"middle")
    )
    path = write_archive(tmp_path / "e.pt", good)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", FOUR)
    assert "record 'archive/data/0' is there twice" in refused(path)


def flipped(path, old, new):
    """The file with one byte changed, at the only place where `old` stands."""
    content = path.read_bytes()
    assert content.count(old) == 1 and sum(a != b for a, b in zip(old, new, strict=True)) == 1
    path.write_bytes(content.replace(old, new))
    return path


def two_tensors(path, *, checksums=True):
    # The name of `b` makes its key's place in the pickle the only one.
    content = {"a": tensor(key="5"), "b": tensor(key="7")}
    records = {"data/5": FOUR, "data/7": bytes(16), "version": b"3\n"}
    write_archive(path, content, **records)
    if not checksums:  # as PyTorch with set_crc32_options(False)
        raw = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                raw = raw.replace(struct.pack("<L", info.CRC), b"none")
        path.write_bytes(raw)
    return path


def test_a_key_that_became_another_tensor_s_is_found(tmp_path):
    """Its storage has the size of the right one, so that only the checksum tells."""
    key = value("7") + value("cpu")
    path = flipped(two_tensors(tmp_path / "x.pt"), key, key.replace(b"7", b"5"))
    assert "record data.pkl does not have its CRC-32" in refused(path)


def test_an_archive_without_checksums_is_read(tmp_path):
    path = two_tensors(tmp_path / "x.pt", checksums=False)
    assert torch_file.read(path)["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("length", [0, 4])
def test_a_header_that_shifts_its_record_is_found(tmp_path, length):
    """Zeros look like the fields of a header's extra part; the record ends too late then."""
    path = two_tensors(tmp_path / "x.pt")
    header = struct.pack("<HH", len("archive/data/7"), length)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("archive/data/7").header_offset + 26
    raw[start : start + 4] = header
    path.write_bytes(raw)
    if length:
        assert "record 'archive/data/7' reaches beyond its end" in refused(path)
    else:
        torch_file.read(path)


def test_a_directory_that_points_to_another_record_is_found(tmp_path):
    path = two_tensors(tmp_path / "x.pt")
    with zipfile.ZipFile(path) as archive:
        five, seven = (archive.getinfo(f"archive/data/{key}").header_offset for key in "57")
    raw = path.read_bytes()
    at = raw.rindex(struct.pack("<L", seven))  # in the directory, which is at the end
    path.write_bytes(raw[:at] + struct.pack("<L", five) + raw[at + 4 :])
    assert "record 'archive/data/7' has a damaged header" in refused(path)
