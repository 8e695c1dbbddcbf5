"""Small files that ask for much work, and what is no file at all: a line, and no work done."""

import io
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from archives import tensor, write_archive
from sentencepiece import sentencepiece_model_pb2

from clip_jax import InputError, byte_bpe, load, load_tokenizer
from clip_jax.errors import one_line
from clip_jax.input_files import MAX_JSON_BYTES, MAX_VOCABULARY_BYTES, read_limited
from clip_jax.text import parse_json, read_json
from converters import bpe_file, convert, safetensors_file, torch_file, torch_unpickler
from converters.__main__ import main
from converters.youtokentome import from_sentencepiece, read, whitespace_charsmap


def doubling(count):
    """A vocabulary of one letter, whose every rule joins the last piece to itself."""
    rules = [f"{5 + i} {5 + i} {6 + i}" for i in range(count)]
    return "\n".join([f"2 {count}", "9601 4", "97 5", *rules, "1 0 2 3", ""]).encode()


@pytest.mark.parametrize("count", [9, 12, 36, 60])
def test_doubling_rules(count):
    with pytest.raises(InputError, match="x: line 12 makes a piece of 512 characters"):
        bpe_file.parse(doubling(count), "x")
    assert max(map(len, bpe_file.parse(doubling(8), "x").pieces.values())) == 256


def test_many_long_pieces(monkeypatch):
    """Bound the sum of squares of pieces that are each short enough, before any is made."""
    count = 1 << 10
    letters = [f"{0x4E00 + i} {5 + i}" for i in range(count)]
    start, rules = 5 + count, []
    for i in range(count - 1):  # piece i has i + 2 letters, up to 200
        left = start + i - 1 if i % 199 else 5
        rules.append(f"{left} {5 + i + 1 - (i % 199 == 0)} {start + i}")
    text = "\n".join([f"{count + 1} {len(rules)}", "9601 4", *letters, *rules, "1 0 2 3", ""])
    monkeypatch.setattr(bpe_file, "MAX_SQUARES", 1 << 20)
    with pytest.raises(InputError, match="squares of lengths .* expected at most 256 and 1048576"):
        bpe_file.parse(text.encode(), "x")


def test_a_sentencepiece_model_of_long_pieces():
    proto = sentencepiece_model_pb2.ModelProto()
    for i, piece in enumerate(("<PAD>", "<UNK>", "<BOS>", "<EOS>", "\u2581", "a", "a" * 5000)):
        proto.pieces.add(piece=piece, type=2 if i == 1 else 3 if i < 4 else 1)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.pad_id, trainer.unk_id = 2, 0, 1
    trainer.bos_id, trainer.eos_id = 2, 3
    normalizer.precompiled_charsmap = whitespace_charsmap()
    with pytest.raises(InputError, match="x: id 6 is a piece of 5000 characters"):
        from_sentencepiece(proto.SerializeToString(), "x")


@pytest.mark.parametrize(
    "shape", [[0, 1 << 63], [0, 1 << 40, 1 << 40], [1 << 62, 0], [0] + [9] * 40]
)
def test_shapes_whose_product_overflows(tmp_path, shape):
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(InputError, match="tensor 'a' has the"):
        safetensors_file.read(path)
    there = tensor(shape=tuple(shape), strides=(1,) * len(shape))
    path = write_archive(tmp_path / "x.pt", {"a": there})
    with pytest.raises(InputError, match="tensor 'a'"):
        torch_file.read(path)


def test_a_pickle_of_millions_of_opcodes():
    done = []
    data = pickle.PROTO + b"\x02" + pickle.EMPTY_TUPLE * (4 << 20)
    with pytest.raises(InputError, match="x: its pickle has more than 1000000 opcodes"):
        torch_unpickler.unpickle(data, "x")
    for operation in torch_unpickler._operations(data[:1000] + b"."):
        done.append(operation)
    assert len(done) == 1000


def test_nested_tuples_are_no_recursion():
    data = pickle.PROTO + b"\x02" + pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000 + pickle.STOP
    assert type(torch_unpickler.unpickle(data, "x")) is tuple


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


READERS = {
    "weights": torch_file.read,
    "safetensors": safetensors_file.read,
    "json": read_json,
    "tokenizer": load_tokenizer,
    "bpe": read,
    "limited": lambda path: read_limited(path, 10),
    "merges": byte_bpe._bytes,
}


@pytest.mark.parametrize("name", READERS)
def test_a_named_pipe_is_refused_before_it_is_opened(name, pipe, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(InputError, match="is a named pipe; expected a regular file"):
        READERS[name](pipe)


@pytest.mark.parametrize("name", READERS)
def test_a_device_and_a_folder(name, tmp_path):
    with pytest.raises(InputError, match="is a device; expected a regular file"):
        READERS[name](Path("/dev/zero"))
    if name != "limited":
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError):
            READERS[name](tmp_path / "folder")


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def test_a_sparse_config_is_not_read(tmp_path, goldens, capsys):
    sparse(tmp_path / "config.json", 5 << 30)
    expected = f"has {5 << 30} bytes; the limit for such a file is {MAX_JSON_BYTES}"
    with pytest.raises(InputError, match=expected):
        load(tmp_path)
    with pytest.raises(InputError, match="the limit for JSON"):
        read_json(tmp_path / "config.json")
    folder = shutil.copytree(goldens / "ruclip", tmp_path / "ruclip")
    sparse(folder / "config.json", 5 << 30)
    assert main(["ruclip", str(folder), str(tmp_path / "out")]) == 2
    assert expected in capsys.readouterr().err
    shutil.copy(goldens / "ruclip" / "config.json", folder)
    sparse(folder / "bpe.model", 1 << 33)
    with pytest.raises(InputError, match=f"the limit for such a file is {MAX_VOCABULARY_BYTES}"):
        convert("ruclip", folder, tmp_path / "out")
    with pytest.raises(InputError, match="the limit"):
        load_tokenizer(sparse(tmp_path / "tokenizer.model", 1 << 33))


def test_pipes_in_folders(tmp_path, goldens):
    folder = shutil.copytree(goldens / "ruclip", tmp_path / "ruclip")
    for name in ("pytorch_model.bin", "config.json", "bpe.model"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(InputError, match=f"{name}: is a named pipe"):
            convert("ruclip", folder, tmp_path / "out")
        (folder / name).unlink()
        shutil.copy(goldens / "ruclip" / name, folder)


def test_many_keys_of_which_one_is_there_twice():
    text = json.dumps(dict.fromkeys(map(str, range(200_000))))[:-1] + ', "199999": 1}'
    with pytest.raises(InputError, match="key '199999' is there twice"):
        parse_json(text, "x")


HOSTILE = "a\x1b]0;x\x07\r\n\x9b31m\u202e\u2066b\u2028\udce9"


def test_messages_are_printable(tmp_path, capsys):
    shown = r"a\x1b]0;x\x07\r\n\x9b31m\u202e\u2066b\u2028\udce9"
    assert one_line(HOSTILE) == shown == str(InputError(HOSTILE))
    assert one_line("кошка 👩\u200d🚀 café") == "кошка 👩\u200d🚀 café"
    again = pickle.loads(pickle.dumps(InputError(HOSTILE)))
    assert str(again) == shown
    folder = tmp_path / "x\x1b[31m\u202ey"
    folder.mkdir()
    for name, content in (
        ("config.json", {"kind": "\x1b[2J\u202e", "config": {"\x1b": 1}, "provenance": {}}),
        ("config.json", {"kind": "clip", "config": {"\x1b[2J\u202e": 1}, "provenance": {}}),
        ("config.json", {"\x1b[2J": 1, "\u202e": 2}),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
        with pytest.raises(InputError) as caught:
            load(folder)
        assert str(caught.value).isprintable()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    for kind in ("ruclip", "rudolph", "hf-clip", "openai-clip", "vqgan"):
        assert main([kind, str(folder), str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_tensor_names_are_printable(tmp_path):
    header = {HOSTILE[:-1]: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + np.zeros(1, np.float32).tobytes())
    with pytest.raises(InputError) as caught:
        convert("openai-clip", path, tmp_path / "out")
    assert str(caught.value).isprintable()
