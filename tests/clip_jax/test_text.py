"""Text files: byte order marks, encodings, normal forms, invisible characters."""

import json
import os
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
from clip_jax import InputError, Predictor
from clip_jax.__main__ import main
from clip_jax.byte_bpe import CLIP, RUGPT3, ByteBpe
from clip_jax.text import (
    InvisibleCharacterWarning,
    check_encodable,
    decode_text,
    escape,
    invisible_characters,
    normalize_name,
    parse_json,
    read_json,
    read_text,
)

NFC = "йод"
NFD = unicodedata.normalize("NFD", NFC)
UNDECODABLE = os.fsdecode("кот".encode("cp1251"))


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffкот\ufeff".encode())
    assert read_text(tmp_path / "a.txt") == "кот\ufeff"  # inside it is a character
    (tmp_path / "a.json").write_bytes('\ufeff{"a": 1}'.encode())
    assert read_json(tmp_path / "a.json") == {"a": 1} == parse_json('\ufeff{"a": 1}', "x")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be", "cp1251"])
def test_other_encodings_are_named(encoding):
    data = ("\ufeffкот" if encoding.endswith("be") else "кот").encode(encoding)
    found = encoding[:6].upper() if encoding.startswith("utf") else "not UTF-8"
    with pytest.raises(InputError, match=f"file.txt: is {found}.*; save it as UTF-8"):
        decode_text(data, "file.txt")


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent", tmp_path, "a\0b", tmp_path / UNDECODABLE):
        with pytest.raises(InputError, match=r"cannot be read \(.+\)") as caught:
            read_text(path)
        str(caught.value).encode()


def test_json_with_duplicate_keys_is_refused():
    with pytest.raises(InputError, match="x: not JSON .key 'a' is there twice"):
        parse_json('{"b": {"a": 1, "a": 2}}', "x")
    for wrong in ("", "{", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"):
        with pytest.raises(InputError, match="x: not JSON"):
            parse_json(wrong, "x")


def test_invisible_characters():
    assert invisible_characters("кош\u00adка") == ["U+00AD SOFT HYPHEN"]
    assert invisible_characters("\u200bкошка\u200b\u00a0и") == [
        "U+200B ZERO WIDTH SPACE", "U+00A0 NO-BREAK SPACE",
    ]  # fmt: skip
    for hidden in "\ufeff\u2060\u200e\u202e\u3164\ufe0f\u200d\x00\t\u2028\u061c":
        assert invisible_characters(f"кош{hidden}ка"), hex(ord(hidden))
    for visible in ("кошка на окне", "йод", NFD, "naïve café", "❤️‍🔥", "👩🏽‍🚀", "日本", "«ё»—№"):
        assert not invisible_characters(visible), visible


def test_names_are_compared_in_one_form():
    assert NFC != NFD and normalize_name(NFD) == NFC == normalize_name(NFC)


def test_surrogates_are_shown_by_escapes():
    assert escape(f"{UNDECODABLE} и ё") == "\\udcea\\udcee\\udcf2 и ё"
    check_encodable("кот 🐈")
    with pytest.raises(InputError, match=r"text 'a\\udcff' is not Unicode .character 1"):
        check_encodable("a\udcff")
    line = escape(json.dumps({"a": UNDECODABLE}, ensure_ascii=False))
    assert json.loads(line) == {"a": UNDECODABLE}


def test_tokenizers_refuse_undecodable_text(ruclip, byte_tokenizers):
    """sentencepiece raised RuntimeError, and tokenizers TypeError."""
    for tokenizer in (ruclip.processor.tokenizer, *byte_tokenizers):
        for call in (tokenizer.encode, lambda text, t=tokenizer: t.encode_batch([text], 8)):
            with pytest.raises(InputError, match=r"text '\\udcea\\udcee\\udcf2' is not Unicode"):
                call(UNDECODABLE)


def test_labels_are_names_and_texts_keep_their_form(ruclip):
    predictor = Predictor(ruclip, quiet=True)
    np.testing.assert_array_equal(
        predictor.get_text_latents([NFD]), predictor.get_text_latents([NFC])
    )
    as_given = [ruclip.processor(text=text)["input_ids"].tolist() for text in (NFC, NFD)]
    assert as_given[0] != as_given[1]  # as the original
    asked = ruclip.processor(text=NFD, normalize=True)["input_ids"]
    assert asked.tolist() == as_given[0]


def test_invisible_characters_in_labels_are_warned_of(ruclip):
    predictor = Predictor(ruclip, quiet=True)
    with pytest.warns(InvisibleCharacterWarning, match=r"'ко\\xadшка'.*U\+00AD SOFT HYPHEN"):
        predictor.get_text_latents(["дом", "ко\u00adшка"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.get_text_latents(["дом", "кошка"])


def test_an_undecodable_argument_is_one_line(ruclip_folder, tmp_path, capsys):
    assert main(["search", UNDECODABLE, str(tmp_path), f"--model={ruclip_folder}"]) == 2
    assert "error: text '\\udcea\\udcee\\udcf2' is not Unicode" in capsys.readouterr().err


def test_undecodable_file_names_are_searched_and_printed(ruclip_folder, tmp_path, capsysbinary):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / f"{UNDECODABLE}.png")
    (folder / f"{UNDECODABLE}2.png").write_bytes(b"none")
    arguments = ["search", "кот", str(folder), f"--model={ruclip_folder}", "--no-cache"]
    assert main(arguments) == 7
    printed = capsysbinary.readouterr()
    assert b"\\udcea\\udcee\\udcf2.png\n" in printed.out
    assert b"1 of 2 images could not be read" in printed.err
    assert main([*arguments, "--json"]) == 7
    row = json.loads(capsysbinary.readouterr().out)
    assert row["image"] == str(folder / f"{UNDECODABLE}.png")


@pytest.fixture(scope="module")
def byte_tokenizers(byte_vocabulary):
    return [ByteBpe(*byte_vocabulary(family)) for family in (CLIP, RUGPT3)]


@pytest.fixture(scope="module")
def ruclip_folder(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return folder


@pytest.fixture(scope="module")
def ruclip(ruclip_folder):
    return clip_jax.load(ruclip_folder)
