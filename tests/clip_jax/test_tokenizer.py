import json

import numpy as np
import pytest

from clip_jax import InputError, load_tokenizer
from clip_jax.byte_bpe import CLIP, ByteBpe
from clip_jax.digests import write_digests
from clip_jax.tokenizer import Tokenizer, has_tokenizer
from experiments.data.vocabulary import train_tokenizer

WORDS = ["кошка и собака", "собака на траве", "красный круг", "кошка на траве"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS, 60)


def test_special_ids_are_ruclips(tokenizer):
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)
    assert ids == (0, 1, 2, 3)


def test_decode_inverts_encode(tokenizer):
    for text in WORDS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([2, *tokenizer.encode("кошка"), 3, 0]) == "<BOS> кошка<EOS><PAD>"
    assert tokenizer.encode("") == []
    assert 1 in tokenizer.encode("жёлтый")  # letters that the captions lack


def test_whitespace_is_one_space(tokenizer):
    expected = tokenizer.encode("кошка на траве")
    assert tokenizer.encode("\tкошка \n на\v\fтраве\r") == expected


def test_the_same_captions_give_the_same_model(tokenizer):
    assert train_tokenizer(WORDS, 60).model == tokenizer.model
    assert train_tokenizer([word.upper() for word in WORDS], 60).model == tokenizer.model


def test_batches_have_bos_eos_and_padding(tokenizer):
    batch = tokenizer.encode_batch(["кошка", "", "Кошка " * 50], 8)
    assert batch.dtype == np.int32 and batch.shape == (3, 8)
    ids = tokenizer.encode("кошка")
    assert batch[0].tolist() == [2, *ids, 3] + [0] * (6 - len(ids))
    assert batch[1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert batch[2].tolist() == [2, *(ids * 6)[:6], 3]
    upper = tokenizer.encode_batch(texts=["КОШКА"], context_length=8, lowercase=False)
    assert 1 in upper[0] and upper[0].tolist() != batch[0].tolist()


def test_wrong_input_is_named(tokenizer, tmp_path):
    with pytest.raises(InputError, match="id 60 is outside"):
        tokenizer.decode([60])
    with pytest.raises(InputError, match="is 3; expected a text"):
        tokenizer.encode_batch([3], 8)
    with pytest.raises(InputError, match="no tokenizer here"):
        load_tokenizer(tmp_path)
    (tmp_path / "bad.model").write_bytes(b"\x00\x01")
    with pytest.raises(InputError, match="bad.model: not a sentencepiece model"):
        load_tokenizer(tmp_path / "bad.model")
    with pytest.raises(InputError, match="no caption holds any text"):
        train_tokenizer(["", "  "], 60)


def test_file_or_folder(tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        assert load_tokenizer(path).encode("кошка") == tokenizer.encode("кошка")


def test_pieces_are_the_text(tokenizer):
    ids = tokenizer.encode("кошка на траве")
    assert "".join(map(tokenizer.piece, ids)) == " кошка на траве"
    assert tokenizer.decode(ids[:1]) == tokenizer.piece(ids[0]).removeprefix(" ")
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(InputError, match=f"id {wrong} is outside"):
            tokenizer.piece(wrong)
    assert f"{tokenizer.vocab_size} pieces, bos_id=2, eos_id=3" in repr(tokenizer)


def test_a_tokenizer_s_files_make_it_again(tokenizer, tmp_path):
    assert not has_tokenizer(tmp_path)
    for name, content in tokenizer.files.items():
        (tmp_path / name).write_bytes(content)
    assert has_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path).model == tokenizer.model
    with pytest.raises(InputError, match="model is of type str; expected the bytes"):
        Tokenizer("tokenizer.model")


def test_a_byte_level_vocabulary_is_read_where_no_sentencepiece_model_is(
    tokenizer, byte_vocabulary, tmp_path
):
    vocab, merges = byte_vocabulary(CLIP)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
    assert has_tokenizer(tmp_path) and isinstance(load_tokenizer(tmp_path), ByteBpe)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    assert isinstance(load_tokenizer(tmp_path), Tokenizer)
    assert isinstance(load_tokenizer(tmp_path / "tokenizer.model"), Tokenizer)


def test_a_folder_s_vocabulary_is_compared_with_its_digest(tokenizer, tmp_path):
    file, other = tmp_path / "tokenizer.model", train_tokenizer(WORDS[:2], 40)
    file.write_bytes(tokenizer.model)
    write_digests(tmp_path, {})
    assert load_tokenizer(tmp_path, verify=True).model == tokenizer.model
    file.write_bytes(other.model)
    with pytest.raises(InputError, match="tokenizer.model: digest differs"):
        load_tokenizer(tmp_path, verify=True)
    assert load_tokenizer(tmp_path, verify=False).model == other.model
    assert load_tokenizer(file, verify=True).model == other.model  # a file has no digest


def test_a_context_of_two_is_the_shortest(tokenizer):
    assert tokenizer.encode_batch(["кошка"], 2).tolist() == [[2, 3]]
    with pytest.raises(InputError, match="context_length is 1"):
        tokenizer.encode_batch(["кошка"], 1)
