"""The tasks give what the original's API recorded (tests/goldens/rudolph_api)."""

import json

import numpy as np
import pytest

from rudolph_jax import tasks
from rudolph_jax.text_encoding import TruncationWarning, encode_text


@pytest.fixture(scope="module")
def recorded(goldens):
    folder = goldens / "rudolph_api"
    return {
        **np.load(folder / "outputs.npz"),
        **{f"greedy_{k}": v for k, v in np.load(folder / "greedy.npz").items()},
        **json.loads((folder / "case.json").read_text(encoding="utf-8")),
        "greedy": json.loads((folder / "greedy.json").read_text(encoding="utf-8")),
        "image": folder / "image.png",
    }


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_pictures_become_the_same_codes(whole_api, recorded):
    found = whole_api.encode_images([recorded["image"]])
    np.testing.assert_array_equal(found, recorded["image_ids"])


def test_texts_become_the_same_ids(whole_api, recorded):
    long = "очень длинная подпись, которая не помещается целиком в окно текста модели"
    texts = [*recorded["texts"], recorded["text"], long]
    # The recorded API marks the special token's place with -1.
    length = whole_api.config.left_text_length
    found = [encode_text(whole_api.tokenizer, text, length, -1)[0] for text in texts]
    np.testing.assert_array_equal(found, recorded["encoded"])


def test_special_tokens_have_the_recorded_ids(whole_api, recorded):
    for name, i in recorded["spc_tokens"].items():
        assert whole_api.layout.special_id(name.strip("<>")) == i


@pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
@pytest.mark.parametrize("batch_size", [4, pytest.param(24, marks=pytest.mark.slow)])
def test_rankings(whole_api, recorded, batch_size):
    how = {"batch_size": batch_size}
    found = tasks.self_reranking_by_text(whole_api, recorded["text"], recorded["codebooks"], **how)
    for name, values in zip(("ppl_txt", "ppl_img", "scores"), found, strict=True):
        close(values, recorded[name])
    found = tasks.self_reranking_by_image(whole_api, recorded["texts"], recorded["image"], **how)
    for name, values in zip(("ppl_txt", "ppl_img", "scores"), found, strict=True):
        close(values, recorded[f"by_image_{name}"])


@pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
def test_zero_shot(whole_api, recorded):
    found = tasks.zs_clf(
        whole_api, recorded["image"], recorded["texts"], r_template=recorded["r_template"]
    )
    close(found["scores"], recorded["zs_scores"])
    assert found["label"] == recorded["zs_label"]
    assert found["class"] == recorded["texts"][found["label"]]


def test_greedy_codebooks(whole_api, recorded):
    greedy = {"top_k": 1, "top_p": 1.0, "quiet": True}
    found = tasks.generate_codebooks(whole_api, recorded["text"], 2, **greedy)
    np.testing.assert_array_equal(found, recorded["greedy_codebooks"])
    found = tasks.generate_codebooks_cfg(
        whole_api, recorded["text"], 2, top_k=128, top_p=1.0, temperature=1e-4, weight_cfg=0.2,
        late_softmax=True, quiet=True,
    )  # fmt: skip
    np.testing.assert_array_equal(found, recorded["greedy_cfg_codebooks"])


def test_greedy_captions_and_texts(whole_api, recorded):
    expected = recorded["greedy"]
    how = {"top_k": 1, "top_p": 1.0, "quiet": True}
    texts, counts = tasks.generate_captions(whole_api, recorded["image"], 2, r_template="на", **how)
    assert (texts, counts.tolist()) == (expected["captions"], expected["counts"])
    (found,) = tasks.generate_texts(whole_api, "красн", 2, **how)
    (original,) = expected["texts"]
    assert (found["text"], found["count"]) == (original["text"], original["count"])
    assert found["ppl_txt"] == pytest.approx(original["ppl_txt"], rel=1e-4)


def test_what_does_not_fit_is_named(api):
    with pytest.warns(TruncationWarning, match="longer than the 10 tokens of the left segment"):
        tasks.generate_texts(api, "очень длинная подпись с концом: ёжик", 1, quiet=True)
