"""OpenAI's vocabulary file and transformers' ones, for CLIPs that have to read texts."""

import gzip
import json

import numpy as np
import pytest
from foreign import hf_folder, openai_checkpoint

import clip_jax
from clip_jax.byte_bpe import CLIP, ByteBpe
from converters import convert, export
from converters.__main__ import main

NAME = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 60
TEXTS = ["A photo of a cat", "it's  the   end", "ёж & 🙂", "", "tea " * 40]


@pytest.fixture(scope="module")
def tokenizer(byte_vocabulary):
    return ByteBpe(*byte_vocabulary(CLIP, merges=MERGES))


@pytest.fixture
def openai_file(tmp_path, byte_vocabulary):
    """Write a file as OpenAI's: a line about itself, and more merges than the model uses."""
    _, merges = byte_vocabulary(CLIP, merges=MERGES)
    lines = ['"bpe_simple_vocab_16e6.txt#version: 0.2', *(" ".join(pair) for pair in merges)]
    lines += ["zz z</w>", "q q", "not even a merge"]
    folder = tmp_path / "openai"
    folder.mkdir()
    (folder / NAME).write_bytes(gzip.compress(("\n".join(lines) + "\n").encode("utf-8")))
    return folder / NAME


@pytest.mark.parametrize("place", ["beside", "named", "unpacked", "transformers"])
def test_openai_clip_reads_texts(tmp_path, tokenizer, openai_file, place):
    folder = openai_file.parent if place == "beside" else tmp_path
    checkpoint = openai_checkpoint(folder / "model.pt", tokenizer.vocab_size)
    named = openai_file
    if place == "unpacked":
        named = tmp_path / "vocabulary.txt"
        named.write_bytes(gzip.decompress(openai_file.read_bytes()))
    elif place == "transformers":
        named = tmp_path / "hf"
        named.mkdir()
        for name, content in tokenizer.files.items():
            (named / name).write_bytes(content)
    option = [] if place == "beside" else ["--vocabulary", str(named)]
    option.append("--activation=quick_gelu")
    assert main(["openai-clip", str(checkpoint), str(tmp_path / "ours"), *option]) == 0
    assert clip_jax.load_tokenizer(tmp_path / "ours").files == tokenizer.files
    report = json.loads((tmp_path / "ours" / "report.json").read_text())
    names = {"transformers": ["vocab.json", "merges.txt"], "unpacked": ["vocabulary.txt"]}
    assert [file["name"] for file in report["files"]] == ["model.pt", *names.get(place, [NAME])]
    if place == "beside":
        clip, expected = clip_jax.load(tmp_path / "ours"), tokenizer.encode_batch(TEXTS, 12)
        np.testing.assert_array_equal(clip.processor(text=TEXTS)["input_ids"], expected)
        assert clip.encode_text(expected).shape == (len(TEXTS), 20)
        export(tmp_path / "ours", tmp_path / "back")
        written = {path.name for path in (tmp_path / "back").iterdir()}
        assert written == {"model.pt", "open_clip_config.json"}


def test_transformers_clip_reads_texts(tmp_path, small_config):
    convert("hf-clip", hf_folder(tmp_path / "hf", small_config), tmp_path / "ours")
    clip = clip_jax.load(tmp_path / "ours")
    ids = clip.processor(text=["ABCD ef"])["input_ids"]
    assert ids.tolist() == [[58, 54, 4, 31, 59, 0, 0, 0, 0, 0, 0, 0]]


def test_wrong_vocabularies_are_one_line_errors(tmp_path, openai_file, tokenizer, capsys):
    checkpoint = openai_checkpoint(tmp_path / "model.pt", tokenizer.vocab_size)
    content = openai_file.read_bytes()
    text = gzip.decompress(content)

    def attempt(written, *expected, checkpoint=checkpoint):
        openai_file.write_bytes(written)
        arguments = ["openai-clip", str(checkpoint), str(tmp_path / "out" / "model")]
        arguments.append("--activation=quick_gelu")
        assert main([*arguments, "--vocabulary", str(openai_file)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        for part in (str(openai_file), *expected):
            assert part in error
        assert not (tmp_path / "out").exists()

    attempt(content[:-20], "cannot be unpacked")
    attempt(b"\x1f\x8b" + b"x" * 40, "cannot be unpacked")
    attempt(gzip.compress(b"\xff\xfe"), "cannot be unpacked")
    attempt(gzip.compress(bytes(20 << 20)), "is larger than 16777216 bytes")
    attempt(gzip.compress(b"about\na b"), "has 1 merges; a vocabulary of 574 pieces takes 60")
    lines = text.decode().split("\n")
    attempt("\n".join([lines[0], "a b c", *lines[1:]]).encode(), "line 2 is 'a b c'")
    attempt("\n".join([lines[0], lines[1], *lines[1:]]).encode(), "twice among the first 60")
    attempt("\n".join([lines[0], "щ щ", *lines[1:]]).encode(), "needs 'щ', which is not in")
    small = openai_checkpoint(tmp_path / "small.pt", 150)
    attempt(content, "a vocabulary of 150 pieces takes -364", checkpoint=small)


def test_kinds_with_their_own_vocabulary_take_no_other(goldens, tmp_path):
    with pytest.raises(clip_jax.InputError, match="ruclip has its own next to the checkpoint"):
        convert("ruclip", goldens / "ruclip", tmp_path / "x", vocabulary=goldens / "tokenizer")


@pytest.mark.parametrize("damage", ["vocab", "merges"])
def test_a_broken_vocabulary_stops_the_conversion(tmp_path, small_config, damage, capsys):
    folder = hf_folder(tmp_path / "hf", small_config)
    if damage == "vocab":
        (folder / "vocab.json").write_text('{"a": 0}')
        message = "has neither CLIP's <|startoftext|>"
    else:
        (folder / "merges.txt").write_text("q q\n")
        message = "merge 1, 'q' and 'q', needs 'qq'"
    assert main(["hf-clip", str(folder), str(tmp_path / "ours")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()
