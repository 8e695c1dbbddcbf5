"""The special tokens that each task reads and answers after, and the case of texts."""

import numpy as np
import pytest
from PIL import Image

from rudolph_jax import tasks
from rudolph_jax.text_encoding import encode_text

RED = Image.new("RGB", (40, 40), "red")
# The tokens of FBC2's fine-tuning: before the question, and before the answer.
PAIRS = {
    "plain": ("LT_UNK", "RT_UNK"),
    "text": ("LT_TQA", "RT_TQA"),
    "math": ("LT_MQA", "RT_MQA"),
    "image": ("LT_VQA", "RT_VQA"),
    "caption": ("LT_CAP", "RT_CAP"),
    "recognition": ("LT_REC", "RT_REC"),
}


@pytest.fixture
def asked(monkeypatch):
    """Notes the names of the left token and of the right one of each call."""
    calls = []
    monkeypatch.setattr(
        "rudolph_jax.image_to_text.encode_left",
        lambda tokenizer, config, text, token, context="": calls.append(token)
        or np.zeros(config.left_text_length, np.int32),
    )

    def sample(rudolph, generation, left, codes, template, token, *rest):
        calls.append(token)
        return [["да"]] * len(left)

    monkeypatch.setattr("rudolph_jax.image_to_text.right_texts", sample)
    return calls


@pytest.mark.parametrize(("about", "tokens"), PAIRS.items())
def test_answers_follow_the_token_of_their_question(api, asked, about, tokens):
    tasks.answer(api, "кто?", RED, 1, about=about, quiet=True)
    assert tuple(asked) == tokens
    asked.clear()
    tasks.answer_questions(api, ["кто?"], [RED], about=about, quiet=True)
    assert tuple(asked) == tokens


def test_captions_follow_the_token_of_images(api, asked):
    tasks.caption_images(api, [RED], quiet=True)
    assert asked == ["LT_I2T", "RT_I2T"]
    asked.clear()
    tasks.generate_captions(api, RED, 1, quiet=True)
    assert asked == ["LT_I2T", "RT_I2T"]


def test_texts_are_made_lower_case(tokenizer):
    upper, _ = encode_text(tokenizer, " КОТ и Дом ", 20, 9, "ЛЕС")
    lower, _ = encode_text(tokenizer, "кот и дом", 20, 9, "лес")
    np.testing.assert_array_equal(upper, lower)
    assert tokenizer.encode("КОТ") != tokenizer.encode("кот")
