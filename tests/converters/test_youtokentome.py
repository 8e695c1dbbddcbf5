"""youtokentome models as sentencepiece models: the same ids for every text, or a refusal."""

import io
import json

import hypothesis
import pytest
import sentencepiece
from hypothesis import strategies as st

from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from converters.bpe_file import SEPARATORS, WORD_START, BpeModel, inexact_pieces, parse
from converters.youtokentome import from_sentencepiece, to_sentencepiece, whitespace_charsmap

# bc goes before ab and ab + c, so 'abc' becomes a + bc here, and abc in sentencepiece.
ADVERSARIAL = b"4 3\n9601 4\n97 5\n98 6\n99 7\n6 7 8\n5 6 9\n9 7 10\n1 0 2 3\n"


@pytest.fixture(scope="module")
def golden(goldens):
    content = (goldens / "tokenizer" / "bpe.model").read_bytes()
    model = parse(content, "bpe.model")
    return model, Tokenizer(to_sentencepiece(model, "bpe.model"))


def test_recorded_cases(golden, goldens):
    model, tokenizer = golden
    cases = json.loads((goldens / "tokenizer" / "cases.json").read_text(encoding="utf-8"))
    assert len(cases) > 400
    for case in cases:
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert model.encode(case["text"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_every_emoji_name(golden, goldens):
    """Encode them as CLDR spells them and in lower case; recorded from youtokentome 1.0.6."""
    model, tokenizer = golden
    text = (goldens / "tokenizer" / "emoji_names.json").read_text(encoding="utf-8")
    recorded = json.loads(text)
    assert len(recorded) > 5000
    for name, ids in recorded:
        assert tokenizer.encode(name) == model.encode(name) == ids


@hypothesis.given(st.text())
@hypothesis.settings(deadline=None, max_examples=150)
def test_any_text(golden, text):
    model, tokenizer = golden
    assert tokenizer.encode(text) == model.encode(text)


@hypothesis.given(st.text(alphabet="аеиокптс <>/_\u00a0\u0301x" + SEPARATORS))
@hypothesis.settings(deadline=None, max_examples=500)
def test_text_of_known_letters_and_separators(golden, text):
    model, tokenizer = golden
    assert tokenizer.encode(text) == model.encode(text)


@st.composite
def models(draw):
    """Any merges over three letters: most break the certificate somewhere."""
    characters = {WORD_START: 4, "a": 5, "b": 6, "c": 7}
    rules, ids = [], list(characters.values())
    for _ in range(draw(st.integers(0, 8))):
        pair = draw(st.sampled_from(ids)), draw(st.sampled_from(ids))
        if pair not in [rule[:2] for rule in rules]:
            rules.append((*pair, 8 + len(rules)))
            ids.append(rules[-1][2])
    return BpeModel(characters, tuple(rules), 1, 0, 2, 3)


@hypothesis.given(models(), st.lists(st.text("abcd \t", max_size=12), min_size=5, max_size=5))
@hypothesis.settings(deadline=None, max_examples=250)
def test_the_certificate_is_enough(model, texts):
    assert parse(model.to_text().encode(), "x") == model
    hypothesis.assume(not inexact_pieces(model))
    content = to_sentencepiece(model, "x")
    tokenizer = Tokenizer(content)
    for text in texts:
        assert tokenizer.encode(text) == model.encode(text)
    assert from_sentencepiece(content, "x") == model


def test_the_certificate_refuses_what_differs():
    model = parse(ADVERSARIAL, "adversarial.model")
    assert model.encode("abc") == [4, 5, 8]
    with pytest.raises(InputError) as caught:
        to_sentencepiece(model, "adversarial.model")
    message = str(caught.value)
    assert message.startswith("adversarial.model: ") and "\n" not in message
    assert "piece 10 'abc' encodes as 'a' + 'bc'" in message


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (((5, 6, 8), (8, 7, 9), (6, 7, 10), (5, 10, 11)), "piece 11 and 9 are both 'abc'"),
        (((5, 4, 8),), "piece 8 'a▁' spans the start of a word"),
    ],
)
def test_other_refusals(rules, expected):
    characters = {WORD_START: 4, "a": 5, "b": 6, "c": 7}
    reasons = inexact_pieces(BpeModel(characters, rules, 1, 0, 2, 3))
    assert any(expected in reason for reason in reasons)


def test_a_piece_spelled_like_a_special_one():
    letters = {c: 5 + i for i, c in enumerate("<PAD>")}
    characters = {WORD_START: 4} | letters
    rules = ((5, 6, 10), (10, 7, 11), (11, 8, 12), (12, 9, 13))
    assert any("'<PAD>'" in r for r in inexact_pieces(BpeModel(characters, rules, 1, 0, 2, 3)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"4 3\n", b"", "cut short|line 1"),
        (b"4 3\n", b"4 4\n", "has 9 lines; 4 characters and 4 rules make 10"),
        (b"1 0 2 3\n", b"", "cut short"),
        (b"1 0 2 3", b"1 0 2", "four ids"),
        (b"1 0 2 3", b"1 0 2 2", "one id to two"),
        (b"1 0 2 3", b"1 0 -1 -1", "without some of <UNK>"),
        (b"1 0 2 3", b"1 0 2 30", "has 11 ids, yet one of them is 30"),
        (b"97 5", b"97 6", "line 4 gives id 6, which U\\+0061 has already"),
        (b"97 5", b"97 2", "gives id 2, which <BOS> has already"),
        (b"97 5", b"98 5", "line 4: 98 is no code point or is there twice"),
        (b"97 5", b"55296 5", "55296 is no code point"),
        (b"97 5", b"97 5 5", "line 3 has 3 numbers; expected 2"),
        (b"97 5", b"a 5", "line 3 is not made of numbers"),
        (b"97 5", b"97  5", "line 3 is not made of numbers"),
        (b"9601 4", b"100 4", "has no character U\\+2581"),
        (b"5 6 9", b"5 10 9", "line 7 joins 5 and 10"),
        (b"5 6 9", b"6 7 9", "line 7 joins 6 and 7"),
        (b"5 6 9", b"5 2 9", "line 7 joins 5 and 2"),
        (b"9601", b"\xff", "not plain text"),
    ],
)
def test_damaged_files(old, new, expected):
    assert old in ADVERSARIAL
    with pytest.raises(InputError, match=expected):
        parse(ADVERSARIAL.replace(old, new), "x.model")


def train(tmp_path, texts, **settings):
    table = tmp_path / "spaces.tsv"
    table.write_text("".join(f"{ord(c):X}\t20\n" for c in SEPARATORS if c != " "))
    out = io.BytesIO()
    defaults = {
        "model_type": "bpe",
        "vocab_size": 300,
        "normalization_rule_tsv": str(table),
        "character_coverage": 1.0,
        **{"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3},
        **{"pad_piece": "<PAD>", "unk_piece": "<UNK>", "bos_piece": "<BOS>", "eos_piece": "<EOS>"},
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, **(defaults | settings)
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def texts(goldens):
    cases = json.loads((goldens / "tokenizer" / "cases.json").read_text(encoding="utf-8"))
    return [case["text"] for case in cases if "\0" not in case["text"]]


def test_a_trained_sentencepiece_model_becomes_a_youtokentome_model(tmp_path, texts):
    content = train(tmp_path, texts)
    model, tokenizer = from_sentencepiece(content, "x"), Tokenizer(content)
    assert model.vocab_size == tokenizer.vocab_size == 300
    assert all(model.encode(text) == tokenizer.encode(text) for text in texts)
    assert parse(model.to_text().encode(), "x") == model


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model_type": "unigram"}, "model_type is not bpe"),
        ({"byte_fallback": True, "vocab_size": 600}, "byte_fallback is on"),
        ({"normalization_rule_tsv": "", "normalization_rule_name": "nmt_nfkc"}, "normalisation"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix is off"),
        ({"remove_extra_whitespaces": False}, "remove_extra_whitespaces is off"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix is on"),
        ({"user_defined_symbols": ["<x>"]}, "'<x>' is USER_DEFINED"),
        ({"pad_id": -1}, "has no piece for <PAD>"),
    ],
)
def test_what_youtokentome_cannot_express(tmp_path, texts, settings, expected):
    with pytest.raises(InputError, match=expected):
        from_sentencepiece(train(tmp_path, texts, **settings), "x")


def test_no_sentencepiece_model_at_all():
    with pytest.raises(InputError, match="x: not a sentencepiece model"):
        from_sentencepiece(b"\xff\xff\xff", "x")


def test_the_map_of_separators_is_the_same_each_time():
    first = whitespace_charsmap()
    whitespace_charsmap.cache_clear()
    assert whitespace_charsmap() == first
