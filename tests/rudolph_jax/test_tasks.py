"""What the tasks promise beyond the recorded outputs; the original's bugs by name."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

import rudolph_jax
from clip_jax import ClipConfig, InputError, Predictor, PretrainedClip
from rudolph_jax import PretrainedRudolph, tasks
from rudolph_jax.layout import BOS, EOS, PAD
from rudolph_jax.perplexity import combined_scores, mean_token_perplexity
from rudolph_jax.text_encoding import decode_text, encode_left, encode_right

pytestmark = pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
QUIET = {"quiet": True}


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def with_config(api, **changes):
    """The same weights under another config."""
    config = dataclasses.replace(api.config, **changes)
    return PretrainedRudolph(config, api.params, api.tokenizer, api.vqgan)


# ---------------------------------------------------------------- the original's bugs


def test_bug_the_first_special_id_ends_a_text(api):
    """The original compares with >, so that id text_vocab_size survives in a continuation."""
    first = api.config.text_vocab_size
    params = jax.tree.map(np.array, dict(api.params))
    params["head"]["bias"][first] = 100.0
    certain = PretrainedRudolph(api.config, params, api.tokenizer, api.vqgan)
    (found,) = tasks.generate_texts(certain, "кошка", 2, temperature=0.0, **QUIET)
    assert found["text"] == "кошка"


def test_bug_zero_shot_with_a_short_last_chunk(api, picture):
    """The original fails on 5 classes in chunks of 2."""
    classes = ["кот", "дом", "лес", "ёж", "мяч"]
    whole = tasks.zs_clf(api, picture, classes)
    chunks = tasks.zs_clf(api, picture, classes, batch_size=2)
    np.testing.assert_allclose(chunks["scores"], whole["scores"], rtol=1e-5)


def test_bug_zero_shot_with_a_class_in_the_left_text(api, picture):
    """The original reads every class after the first one's left text."""
    classes = ["кот", "дом", "лес"]
    how = {"l_template": "{}", "r_template": "да"}
    together = tasks.zs_clf(api, picture, classes, **how)["scores"]
    assert len(set(together.tolist())) == 3
    reversed_ = tasks.zs_clf(api, picture, classes[::-1], **how)["scores"]
    np.testing.assert_allclose(reversed_[::-1], together, rtol=1e-5)


@pytest.mark.parametrize("late_softmax", [False, True])
@pytest.mark.parametrize("weight", [-0.5, 0.0, 0.2])
def test_bug_guidance_with_image_prompts_any_weight_and_batches_of_one(
    api, picture, late_softmax, weight
):
    """The original's guidance fails with each of the three."""
    prompt = tasks.keep_borders(api, picture, {"up": 2})
    codes = tasks.generate_codebooks_cfg(
        api, "кот", 2, weight_cfg=weight, late_softmax=late_softmax, image_prompts=prompt,
        batch_size=1, **QUIET,
    )  # fmt: skip
    assert codes.shape == (2, 16)
    np.testing.assert_array_equal(codes[:, :8], np.tile(prompt[:8], (2, 1)))


def test_bug_guidance_of_weight_zero_is_no_guidance(api):
    plain = tasks.generate_codebooks(api, "кот", 3, seed=4, **QUIET)
    guided = tasks.generate_codebooks_cfg(api, "кот", 3, weight_cfg=0.0, seed=4, **QUIET)
    np.testing.assert_array_equal(plain, guided)


def test_bug_one_candidate_has_a_score(api):
    """The original divides zero by zero."""
    codes = np.zeros((1, 16), np.int32)
    assert tasks.self_reranking_by_text(api, "кот", codes)[2].tolist() == [0.0]
    pictures, scores = tasks.dream(api, "кот", 1, 1, **QUIET)
    assert len(pictures) == 1 and scores[0]["score"] == 0.0


def test_bug_a_row_of_zeros_has_perplexity_one():
    """The original loses the row, and fails."""
    found = mean_token_perplexity(np.float32([[0, 0, 0], [0, np.log(5), np.log(3)]]))
    np.testing.assert_allclose(found, [1.0, 4.0], rtol=1e-6)


def test_bug_an_empty_caption_has_a_finite_perplexity(api):
    ppl_txt, _, scores = tasks.self_reranking_by_text(api, "", np.zeros((3, 16), np.int32))
    assert np.isfinite(ppl_txt).all() and np.isfinite(scores).all()


def test_bug_pictures_are_read_without_noise(api, picture):
    """The original's fine-tuning draws codes at random; here a picture has one reading."""
    codes = [api.encode_images([picture]) for _ in range(3)]
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes[0], codes[2])


@pytest.mark.parametrize("about", rudolph_jax.image_to_text.QUESTIONS)
def test_bug_the_answer_has_the_token_of_the_question(api, monkeypatch, about):
    """The original trains on RT_TQA and decodes after RT_UNK."""
    prompts = []
    monkeypatch.setattr(
        "rudolph_jax.image_to_text.sample_batches",
        lambda rudolph, config, segment, ids, *_, **__: (
            prompts.append(np.asarray(ids)), iter([np.zeros((1, 1, 4), np.int32)])
        )[1],
    )  # fmt: skip
    tasks.answer(api, "кто?", None, 1, about=about)
    tasks.answer_questions(api, ["кто?"], about=about, quiet=True)
    left, right = (
        api.layout.special_id(name) for name in rudolph_jax.image_to_text.QUESTIONS[about]
    )
    for ids in prompts:
        row = ids[0, 0].tolist()
        assert row[api.layout.right][:2] == [BOS, right]
        assert left in row[api.layout.left] and len({left, right}) == 2
    assert len(prompts) == 2


def test_bug_a_seed_is_what_it_says(api):
    """The original's seed=False seeds with the time."""
    a, b, c = (tasks.generate_codebooks(api, "кот", 2, seed=s, **QUIET) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


# ---------------------------------------------------------------- drawing


def test_dream_returns_the_best_first(api):
    pictures, found = tasks.dream(api, "кот", 3, 8, **QUIET)
    assert len(pictures) == 3 and pictures[0].size == (4, 4)
    scores = [each["score"] for each in found]
    assert scores == sorted(scores)
    codes = tasks.generate_codebooks(api, "кот", 8, **QUIET)
    everything = np.sort(tasks.self_reranking_by_text(api, "кот", codes)[2])
    np.testing.assert_allclose(scores, everything[:3], rtol=1e-5)


def test_the_generator_form_yields_the_same_pictures(api):
    codes = tasks.generate_codebooks(api, "кот", 5, batch_size=2, **QUIET)
    expected = [picture.tobytes() for picture in api.decode_images(codes)]
    stream = tasks.draw_images(api, "кот", 5, batch_size=2, **QUIET)
    first = next(stream)
    assert [first.tobytes(), *(picture.tobytes() for picture in stream)] == expected


def test_image_prompts_keep_what_they_are_told(api, picture):
    whole = api.encode_images([picture])[0].reshape(4, 4)
    prompt = tasks.keep_borders(api, picture, {"left": 1, "down": 2}).reshape(4, 4)
    kept = np.zeros((4, 4), bool)
    kept[:, 0] = kept[2:] = True
    np.testing.assert_array_equal(prompt[kept], whole[kept])
    assert (prompt[~kept] == -1).all()
    np.testing.assert_array_equal(tasks.keep_mask(api, picture, kept), prompt.ravel())
    codes = tasks.generate_codebooks(api, "кот", 3, image_prompts=prompt.ravel(), **QUIET)
    np.testing.assert_array_equal(codes.reshape(3, 4, 4)[:, kept], np.tile(whole[kept], (3, 1)))
    assert (codes.reshape(3, 4, 4)[0][~kept] != codes.reshape(3, 4, 4)[1][~kept]).any()


def test_cropping_first_hides_the_rest_of_the_picture(tiny_config, tiny_params, tiny_vqgan, api):
    """A convolution sees across the border unless the border is cut out before."""
    from clip_jax.layers import unstack_layers

    config = dataclasses.replace(tiny_config, text_vocab_size=700, text_special_tokens=10)
    params = unstack_layers(jax.tree.map(np.asarray, tiny_params(config)))
    model = PretrainedRudolph(config, params, api.tokenizer, tiny_vqgan)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    other = pixels.copy()
    other[8:] = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    cropped = [
        tasks.keep_borders(model, image, {"up": 1}, crop_first=True) for image in (pixels, other)
    ]
    np.testing.assert_array_equal(*cropped)
    alone = np.asarray(tiny_vqgan.encode(pixels[None, :8].astype(np.float32) / 255))
    np.testing.assert_array_equal(cropped[0][:3], alone[0])
    corner = tasks.keep_borders(model, pixels, {"up": 1, "right": 2}, crop_first=True)
    np.testing.assert_array_equal(corner[:3], alone[0])  # up covers right where they meet
    assert (corner.reshape(3, 3)[1:, 0] == -1).all()


@pytest.mark.parametrize(
    ("borders", "message"),
    [
        ({"top": 1}, "borders name 'top'; expected any of up, down, left, right"),
        ({"up": 5}, "border up is 5; expected 0 to 4 tokens"),
        ({"up": 4}, "the image is 20x20 pixels, smaller than its border of 32"),
    ],
)
def test_wrong_borders(api, borders, message):
    small = Image.new("L", (20, 20))
    with pytest.raises(InputError, match=message):
        tasks.keep_borders(api, small, borders)


def test_a_model_without_right_text_draws_and_ranks(api, golden):
    """ruDALL-E: by the image's perplexity alone."""
    params = {k: v for k, v in api.params.items() if k != "right_position_embedding"}
    rudalle = PretrainedRudolph(
        dataclasses.replace(api.config, right_text_length=0), params, api.tokenizer, api.vqgan
    )
    _, found = tasks.dream(rudalle, "кот", 2, 6, **QUIET)
    assert found[0]["ppl_img"] <= found[1]["ppl_img"]
    with pytest.raises(InputError, match="no right text"):
        tasks.generate_captions(rudalle, Image.new("RGB", (9, 9)), 1, **QUIET)


# ---------------------------------------------------------------- reading and writing


def test_captions_begin_with_their_template(api, picture):
    texts, counts = tasks.generate_captions(api, picture, 6, r_template="лес", **QUIET)
    assert counts.sum() <= 6 and len(texts) == len(counts)
    assert all(text.startswith("лес") for text in texts)
    found = tasks.image_captioning(api, picture, 3, generations_num=6, r_template="лес", **QUIET)
    scores = [each["score"] for each in found]
    assert scores == sorted(scores) and {each["text"] for each in found} <= set(texts)


def test_many_pictures_are_captioned_as_one_by_one(api, picture):
    images = [picture, picture.rotate(90), picture.rotate(180)]
    together = tasks.caption_images(api, images, batch_size=2, **QUIET)
    alone = [tasks.caption_images(api, [image], **QUIET)[0] for image in images]
    assert together == alone


def test_texts_respect_early_stop_and_allowed_tokens(api):
    stopped = tasks.generate_texts(api, "лес", 4, early_stop=5, **QUIET)
    size = len(encode_left(api.tokenizer, api.config, "лес", "LT_T2T").nonzero()[0])
    for each in stopped:
        assert len(api.tokenizer.encode(each["text"])) <= max(5, size) - 2
    ids = api.tokenizer.encode("лес")
    only = tasks.generate_texts(api, "", 4, allowed_token_ids=[EOS, *ids], **QUIET)
    for each in only:
        assert set(each["text"]) <= set("лес ")
    with pytest.raises(InputError, match="allowed_token_ids hold 99999"):
        tasks.generate_texts(api, "", 1, allowed_token_ids=[99999], **QUIET)
    with pytest.raises(InputError, match="allowed_token_ids are empty"):
        tasks.generate_texts(api, "", 1, allowed_token_ids=[], **QUIET)


def test_answers(api, picture):
    about_picture = tasks.answer(api, "что это?", picture, 8, **QUIET)
    about_text = tasks.answer(api, "что это?", None, 8, **QUIET)
    assert sum(each["count"] for each in about_picture) <= 8
    assert about_picture != about_text
    counts = [each["count"] for each in about_text]
    assert counts == sorted(counts, reverse=True)
    with pytest.raises(InputError, match="about is 'sums'; expected one of plain, text, math"):
        tasks.answer(api, "?", None, 1, about="sums", **QUIET)


def test_features_are_the_picture_tokens_mean_states(api, picture):
    features = tasks.image_features(api, [picture, picture.rotate(90)], layer=1)
    assert features.shape == (2, api.config.width)
    left = encode_left(api.tokenizer, api.config, "", "LT_I2T")
    ids = np.concatenate([left, api.encode_images([picture])[0]])[None]
    expected = np.asarray(api.hidden_states(ids))[1, 0, 10:].mean(axis=0)
    np.testing.assert_allclose(features[0], expected, atol=1e-5)
    with pytest.raises(InputError, match="layer is 2"):
        tasks.image_features(api, [picture], layer=2)


def test_models_without_special_tokens_read_an_empty_left_text_as_padding(api):
    old = dataclasses.replace(api.config, text_special_tokens=0)
    assert not encode_left(api.tokenizer, old, "  ", "LT_I2T").any()
    assert encode_left(api.tokenizer, api.config, "", "LT_I2T").tolist()[:4] == [2, 703, 3, PAD]
    assert encode_left(api.tokenizer, old, "лес", "LT_I2T")[1] < 700


def test_texts_survive_encoding(api):
    for text in ("лес и река", "кошка", "ёж"):
        ids = encode_left(api.tokenizer, api.config, text, "LT_UNK")
        assert decode_text(api.tokenizer, ids) == text
    assert decode_text(api.tokenizer, encode_right(api.tokenizer, api.config, "", "RT_I2T")) == ""


# ---------------------------------------------------------------- ranking


def test_scores_are_between_least_and_median():
    text, image = np.float32([1, 2, 3, 9]), np.float32([4, 4, 8, 6])
    # Medians 2.5 and 5: (text - 1) / 1.5 and (image - 4) / 1.
    expected = 0.75 * (text - 1) / 1.5 + 0.25 * (image - 4) / 1
    np.testing.assert_allclose(combined_scores(text, image, 0.75), expected, rtol=1e-6)
    equal = combined_scores(np.float32([2, 2]), np.float32([3, 3]), 0.5)
    assert equal.tolist() == [0.0, 0.0]
    # More than half of them the least: the whole range stands in for the median.
    skewed = combined_scores(np.float32([1, 1, 1, 3]), np.zeros(4, np.float32), 1.0)
    assert skewed.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_ruclip_ranks_by_cosine(small_config):
    from clip_jax.model import Clip

    ids = np.zeros((1, small_config.text.context_length), np.int32)
    size = small_config.vision.image_size
    params = jax.jit(Clip(small_config).init)(
        jax.random.key(0), ids, np.zeros((1, size, size, 3), np.float32)
    )["params"]
    assert isinstance(small_config, ClipConfig)
    predictor = Predictor(PretrainedClip(small_config, params), ["{}"], quiet=True)
    predictor.get_text_latents = lambda texts: np.eye(1, small_config.embed_dim, dtype=np.float32)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (9, 9, 3), dtype=np.uint8) for _ in range(6)]
    cosines = predictor.get_image_latents(images)[:, 0]
    order, found = tasks.ruclip_reranking(predictor, "кот", images, 4)
    assert order.tolist() == np.argsort(-cosines).tolist()[:4]
    np.testing.assert_allclose(found, cosines[order], atol=1e-5)
    with pytest.raises(InputError, match="count is 0"):
        tasks.ruclip_reranking(predictor, "кот", images, 0)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 15), np.int32), r"codebooks are int32\[2, 15\]; expected int32\[B, 16\]"),
        (np.full((2, 16), 128, np.int32), "codebooks hold 128; expected codes from 0 to 127"),
    ],
)
def test_wrong_codebooks(api, codes, message):
    with pytest.raises(InputError, match=message):
        tasks.self_reranking_by_text(api, "кот", codes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda api: tasks.dream(api, "кот", 0), "images_num is 0"),
        (lambda api: tasks.generate_codebooks(api, "кот", 0), "images_num is 0; expected"),
        (lambda api: tasks.generate_codebooks(api, 5, 1), "text is 5; expected a text"),
        (lambda api: tasks.generate_codebooks(api, "кот", 1, top_k=-3), "top_k is -3"),
        (lambda api: tasks.zs_clf(api, Image.new("L", (5, 5)), []), "classes are"),
        (
            lambda api: tasks.generate_codebooks(api, "к", 1, image_prompts=np.full(16, 500)),
            "image_prompts hold 500; expected -1",
        ),
        (lambda api: api.encode_images(["nowhere.png"]), "nowhere.png: no such image"),
        (lambda api: api.encode_images([b"\x89PNG broken"]), "not a readable image"),
    ],
)
def test_wrong_calls(api, call, message):
    with pytest.raises(InputError, match=message):
        call(api)


def test_pictures_of_any_mode_and_size_are_read(api):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        codes = api.encode_images([Image.new(mode, (7, 90))])
        assert codes.shape == (1, 16)
