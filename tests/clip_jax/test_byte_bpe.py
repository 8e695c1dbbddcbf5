"""Byte-level BPE: ids equal transformers', and untrusted vocabularies raise InputError."""

import json

import numpy as np
import pytest

from clip_jax import InputError, load_tokenizer
from clip_jax.byte_bpe import CLIP, RUGPT3, ByteBpe, load_byte_bpe

TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "  Two\tTABS and\nlines  \u00a0\u2009 here ",
    "it's they're I'VE don't we'll 'tis o'neill's",
    "Ёжик в тумане, щука — и №5",
    "café cafe\u0301 ﬁ Ａ ß İ ΟΔΟΣ",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 emoji❤️",
    "1234 3.14 2022г. x²",
    "a &amp; b &lt;c&gt; “quoted” ...!!! ---",
    "日本語 한국어 العربية",
    "<|endoftext|> inside <|startoftext|>and <|ENDOFTEXT|>",
    "\x00\x07\ufeff\u200bcontrol",
    "word " * 300,
    "w" * 5000,
]


@pytest.fixture(scope="module")
def clip(byte_vocabulary):
    return ByteBpe(*byte_vocabulary(CLIP))


@pytest.fixture(scope="module")
def rugpt3(byte_vocabulary):
    return ByteBpe(*byte_vocabulary(RUGPT3))


def write(folder, vocab, merges):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
    return folder


def test_clip_lowercases_and_normalizes_white_space(clip):
    assert clip.encode("A  Photo\n") == clip.encode("a photo") != []
    assert clip.encode("") == clip.encode(" \t") == []
    assert clip.encode("cafe\u0301") == clip.encode("café")
    # What is not mended: OpenAI's own code would make these alike.
    assert clip.encode("a &amp; b") != clip.encode("a & b")


def test_rugpt3_keeps_case_and_joins_white_space(rugpt3):
    assert rugpt3.encode("Кошка") != rugpt3.encode("кошка")
    assert rugpt3.encode(" кошка\n\tи  дом ") == rugpt3.encode("кошка и дом")
    assert (rugpt3.pad_id, rugpt3.bos_id, rugpt3.eos_id) == (0, 1, 2)


def test_words_are_merged_in_order(byte_vocabulary):
    vocab, _ = byte_vocabulary(CLIP, merges=0)
    merges = [("a", "b"), ("c", "d</w>"), ("ab", "cd</w>"), ("b", "c")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = ByteBpe(vocab, merges)
    assert tokenizer.encode("abcd") == [vocab["abcd</w>"]]
    assert tokenizer.encode("ABC") == [vocab["ab"], vocab["c</w>"]]
    assert tokenizer.encode("bc d") == [vocab["b"], vocab["c</w>"], vocab["d</w>"]]


@pytest.mark.parametrize("text", ["кошка и собака", "a photo of a cat 🙂", "ёж"])
def test_decode_inverts_encode(clip, rugpt3, text):
    assert clip.decode(clip.encode(text)) == rugpt3.decode(rugpt3.encode(text)) == text
    with pytest.raises(InputError, match="id 9999 is outside the vocabulary"):
        clip.decode([9999])


def test_truncated_rows_keep_their_eos(clip):
    rows = clip.encode_batch(["a cat", "word " * 300, ""], 8)
    assert rows.dtype == np.int32 and rows.shape == (3, 8)
    ids = clip.encode("word " * 300)
    assert rows[1].tolist() == [clip.bos_id, *ids[:6], clip.eos_id]
    assert rows[2].tolist() == [clip.bos_id, clip.eos_id, 0, 0, 0, 0, 0, 0]
    with pytest.raises(InputError, match="is 3; expected a text"):
        clip.encode_batch([3], 8)


def test_saved_tokenizer_round_trip(clip, rugpt3, tmp_path):
    for tokenizer in (clip, rugpt3):
        for name, content in tokenizer.files.items():
            (tmp_path / name).write_bytes(content)
        again = load_tokenizer(tmp_path)
        assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(t) for t in TEXTS]
        assert again.files == tokenizer.files


def test_padding_piece_from_transformers_settings(byte_vocabulary, tmp_path):
    vocab, merges = byte_vocabulary(CLIP)
    folder = write(tmp_path / "clip", vocab, merges)
    assert load_byte_bpe(folder).pad_id == 0
    (folder / "special_tokens_map.json").write_text('{"pad_token": "<|endoftext|>"}')
    assert load_byte_bpe(folder).pad_id == vocab["<|endoftext|>"]
    (folder / "tokenizer_config.json").write_text('{"pad_token": {"content": "!"}}')
    assert load_byte_bpe(folder).pad_id == vocab["!"]
    for name, content in load_byte_bpe(folder).files.items():
        (tmp_path / name).write_bytes(content)
    assert load_tokenizer(tmp_path).pad_id == vocab["!"]
    (folder / "tokenizer_config.json").write_text('{"pad_token": "absent"}')
    with pytest.raises(InputError, match="has no piece 'absent', which is the padding piece"):
        load_byte_bpe(folder)


@pytest.mark.parametrize("joined", [False, True])
def test_tokenizer_json_has_vocabulary_and_merges(byte_vocabulary, clip, tmp_path, joined):
    vocab, merges = byte_vocabulary(CLIP)
    special = {"<|startoftext|>", "<|endoftext|>"}
    added = [{"id": vocab[piece], "content": piece, "special": True} for piece in special]
    model = {
        "type": "BPE",
        "vocab": {piece: i for piece, i in vocab.items() if piece not in special},
        "merges": [" ".join(pair) if joined else list(pair) for pair in merges],
    }
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": model, "added_tokens": added}))
    for path in (file, tmp_path):
        assert load_tokenizer(path).encode(TEXTS[2]) == clip.encode(TEXTS[2])


def test_malformed_vocabularies_raise_input_error(byte_vocabulary, tmp_path):
    whole, merges = byte_vocabulary(CLIP)

    def expect(message, vocab=whole, lines=None):
        folder = write(tmp_path / "stranger", vocab, merges)
        if lines is not None:
            (folder / "merges.txt").write_bytes(lines)
        with pytest.raises(InputError, match=message) as caught:
            load_tokenizer(folder)
        assert "\n" not in str(caught.value) and "stranger" in str(caught.value)

    expect("line 2 is 'a b c'; expected two pieces", lines=b"#version\na b c\n")
    expect("line 1 is 'a '; expected two pieces", lines=b"a \n")
    expect("merges.txt: is not UTF-8 text", lines=b"\xc3(\n")
    expect("merges.txt: is UTF-16 text; save it as UTF-8", lines=b"\xff\xfe\n")
    expect("merge 1, 'щ' and 'щ', needs 'щ', which is not in", lines="щ щ\n".encode())
    expect("merge 1, '!' and '#', needs '!#'", lines=b"! #\n")
    expect("holds a list", [])
    expect("holds no vocabulary", {})
    expect("piece 'a' has id '3'", whole | {"a": "3"})
    expect("piece 'a' has id -1", whole | {"a": -1})
    expect("piece 'a' has id True", whole | {"a": True})
    expect(f"id {whole['b']} belongs to more than one piece", whole | {"a": whole["b"]})
    expect("neither CLIP's", {"a": 0}, b"")
    expect("cannot be used", whole | {"\ud800": len(whole)})


def test_malformed_tokenizer_json_raises_input_error(byte_vocabulary, tmp_path):
    vocab, _ = byte_vocabulary(CLIP, merges=1)
    file = tmp_path / "tokenizer.json"
    for content, message in (
        ("[" * 100_000, "not JSON"),
        ("{}", "its model is 'NoneType'; expected BPE"),
        ({"model": {"type": "Unigram"}}, "its model is 'Unigram'"),
        ({"model": {"vocab": vocab}}, "no vocab, merges"),
        ({"model": {"vocab": vocab, "merges": ["a b c"]}}, "not of two pieces"),
        ({"model": {"vocab": vocab, "merges": [["a", 3]]}}, "not of two pieces"),
        ({"model": {"vocab": vocab, "merges": []}, "added_tokens": [3]}, "added_tokens are not"),
    ):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError, match=message) as caught:
            load_tokenizer(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.torch
@pytest.mark.parametrize("seed", [0, 1])
def test_ids_are_those_of_transformers_clip_tokenizer(byte_vocabulary, tmp_path, seed):
    import transformers

    folder = write(tmp_path / "clip", *byte_vocabulary(CLIP, merges=900, seed=seed))
    theirs, ours = transformers.CLIPTokenizer.from_pretrained(folder), load_tokenizer(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"][1:-1], text
        assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text)), text
    theirs.save_pretrained(tmp_path / "saved")  # tokenizer.json and tokenizer_config.json
    saved = load_tokenizer(tmp_path / "saved")
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=20)["input_ids"]
    assert saved.encode_batch(TEXTS, 20).tolist() == expected


@pytest.mark.torch
def test_ids_are_those_of_transformers_gpt2_tokenizer(byte_vocabulary, tmp_path):
    import transformers

    folder = write(tmp_path / "gpt", *byte_vocabulary(RUGPT3, merges=900))
    theirs = transformers.GPT2Tokenizer.from_pretrained(
        folder, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<s>"
    )
    ours = load_tokenizer(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs(" ".join(text.split()))["input_ids"], text
    for text in TEXTS:  # as the first ruCLIP makes its rows
        ids = theirs(" ".join(text.split()), padding="max_length", max_length=20, truncation=True)
        row = [1, *ids["input_ids"]][:20]
        row[row.index(0) if 0 in row else -1] = 2
        assert ours.encode_batch([text], 20, lowercase=False)[0].tolist() == row
