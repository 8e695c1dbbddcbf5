"""Questions on images and on texts: what the model reads, and answers to many at once."""

import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError
from rudolph_jax import tasks
from rudolph_jax.layout import BOS, EOS, Layout
from rudolph_jax.text_encoding import TruncationWarning, decode_text, encode_left, encode_text

QUESTION, CONTEXT = "кто живёт в лесу?", "в лесу живёт медведь"


def test_a_context_is_read_before_the_question(tokenizer):
    joined, lost = encode_text(tokenizer, f"{CONTEXT} {QUESTION}", 80, 9)
    apart, _ = encode_text(tokenizer, QUESTION, 80, 9, f" {CONTEXT.upper()}\n")
    assert lost == "" and joined[:2].tolist() == [BOS, 9]
    np.testing.assert_array_equal(apart, joined)


def test_a_context_that_is_too_long_leaves_the_question_whole(tokenizer, api):
    pieces = tokenizer.encode(QUESTION)
    before = tokenizer.encode(CONTEXT)
    length = 2 + 3 + len(pieces) + 1
    ids, lost = encode_text(tokenizer, QUESTION, length, 9, CONTEXT)
    assert ids.tolist() == [BOS, 9, *before[:3], *pieces, EOS]
    assert lost == tokenizer.decode(before[3:])
    short, _ = encode_text(tokenizer, QUESTION, 5, 9, CONTEXT)
    assert short.tolist() == [BOS, 9, *pieces[:3]]
    with pytest.warns(TruncationWarning, match="this part of it is truncated"):
        left = encode_left(tokenizer, api.config, "дом", "LT_UNK", "лес " * 20)
    assert decode_text(tokenizer, left).endswith("дом") and len(tokenizer.encode("дом")) == 2
    with pytest.raises(InputError, match="context is 5; expected a text"):
        encode_text(tokenizer, "да?", 9, None, 5)


@pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
def test_many_answers_are_those_of_one_at_a_time(api):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    images = [None, Image.fromarray(pixels), None, None, None]
    questions = ["кто?", "кто?", "да?", "кто?", "где?"]
    contexts = ["", "", "лес", "лес", ""]
    many = tasks.answer_questions(
        api, questions, images, contexts, about="plain", batch_size=2, quiet=True
    )
    one = [
        tasks.answer(api, *asked, 1, context=context, temperature=0.0, quiet=True)
        for *asked, context in zip(questions, images, contexts, strict=True)
    ]
    assert many == [found[0]["text"] if found else "" for found in one]
    assert len(set(many)) > 2
    alone = tasks.answer_questions(api, questions[:1], quiet=True)
    assert alone == many[:1] and tasks.answer_questions(api, [], quiet=True) == []
    with pytest.raises(InputError, match="4 images were given for 5 questions"):
        tasks.answer_questions(api, questions, images[:4])
    with pytest.raises(InputError, match="about is 'sums'; expected one of plain"):
        tasks.answer_questions(api, questions, about="sums")


def test_no_picture_is_zeros_and_no_picture_of_black(api, monkeypatch):
    """The codes of a black image are not what a question on a text was trained with."""
    seen = []
    monkeypatch.setattr(
        "rudolph_jax.image_to_text.sample_batches",
        lambda rudolph, config, segment, prompts, *_, **__: (
            seen.append(prompts), iter([np.zeros((1, 1, 4), np.int32)])
        )[1],
    )  # fmt: skip
    tasks.answer(api, "кто?", None, 1)
    assert not seen[0][0, 0, Layout(api.config).image].any()
