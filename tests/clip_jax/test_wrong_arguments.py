"""Wrong arguments of the public functions are InputErrors in the caller's words."""

import re

import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
from clip_jax import InputError, Predictor, PretrainedClip, search
from clip_jax.arguments import check_image_list, check_integer, check_number, check_text_list

IMAGE = Image.new("RGB", (9, 9), "red")


@pytest.fixture(scope="module")
def folder(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return folder


@pytest.fixture(scope="module")
def clip(folder):
    return clip_jax.load(folder)


@pytest.fixture(scope="module")
def pixels(clip):
    return clip.processor(images=[IMAGE, IMAGE])["pixel_values"]


@pytest.fixture(scope="module")
def ids(clip):
    return clip.processor(text=["кот", "дом"])["input_ids"]


def test_bytes_are_no_normalised_pixels(clip, ids, pixels):
    """They gave other logits, without a word."""
    for wrong in (pixels.astype(np.uint8), pixels.astype(np.int32)):
        for call in (clip.encode_image, clip.encode_image_features, lambda x: clip.logits(ids, x)):
            with pytest.raises(InputError, match=r"are u?int\d+\[2, .*normalised: clip.processor"):
                call(wrong)
    expected = np.asarray(clip.logits(ids, pixels)[0])
    np.testing.assert_allclose(clip.logits(ids.tolist(), pixels.tolist())[0], expected, rtol=1e-5)


def test_wrong_values_of_every_parameter_are_input_errors(
    clip, folder, ids, pixels, try_wrong_values, tmp_path
):
    try_wrong_values(clip.encode_image, {}, ["pixel_values"])
    try_wrong_values(clip.encode_image_features, {}, ["pixel_values"])
    try_wrong_values(clip.encode_text, {}, ["input_ids"])
    try_wrong_values(clip.logits, {"input_ids": ids, "pixel_values": pixels})
    try_wrong_values(clip.replicate, {})
    try_wrong_values(clip.with_image_size, {})
    try_wrong_values(clip.processor, {"text": "кот"}, ["text", "images", "normalize"])
    predictor = Predictor(clip, quiet=True)
    try_wrong_values(predictor.get_text_latents, {})
    try_wrong_values(predictor.encode_texts, {})
    try_wrong_values(predictor.get_image_latents, {})
    try_wrong_values(predictor.get_image_features, {})
    latents = predictor.get_text_latents(["кот"])
    accepted, _ = try_wrong_values(predictor.run, {"images": [IMAGE], "text_latents": latents})
    assert accepted == {"images": [[]], "text_latents": []}
    accepted, _ = try_wrong_values(Predictor, {"clip": clip})
    assert accepted["templates"] == [None] and accepted["batch_size"] == [5]
    tokenizer = clip.processor.tokenizer
    try_wrong_values(tokenizer.encode, {})
    try_wrong_values(tokenizer.decode, {})
    try_wrong_values(tokenizer.piece, {})
    try_wrong_values(tokenizer.encode_batch, {"texts": ["кот"], "context_length": 8})
    try_wrong_values(clip_jax.Tokenizer, {}, ["model"])
    try_wrong_values(clip_jax.load_tokenizer, {"path": folder})
    try_wrong_values(clip_jax.load, {"folder": folder})
    IMAGE.save(tmp_path / "image.png")
    index = search.build_image_index(clip, tmp_path, quiet=True)
    accepted, _ = try_wrong_values(index.search, {"text": "кот", "count": 1})
    assert accepted == {"text": ["кот"], "count": [5]}
    try_wrong_values(search.list_images, {"folder": tmp_path})
    try_wrong_values(
        search.build_image_index, {"clip": clip, "folder": tmp_path, "quiet": True},
        ["clip", "folder", "store", "batch_size", "quiet"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: search.build_image_index(p.clip, ".", on_progress=5),
            "on_progress is no function; expected one of two numbers, or None",
        ),
        (lambda p: p.run([IMAGE], ["кот", "дом"]), "text_latents are <U3[2]; expected float32["),
        (lambda p: p.run([IMAGE], "кот"), "text_latents are 'кот'; expected float32[classes, "),
        (lambda p: p.run([IMAGE], np.zeros((2, 3), np.float32)), "text_latents are float32[2, 3]"),
        (
            lambda p: p.run([IMAGE], np.zeros((0, p.clip.config.embed_dim), np.float32)),
            "text_latents are empty; expected a row for each class",
        ),
        (
            lambda p: p.run(IMAGE, p.get_text_latents(["кот"])),
            "images are one image (Image); expected a list of images: [image]",
        ),
        (
            # Its rows were read as grey images.
            lambda p: p.get_image_latents(np.zeros((9, 9, 3), np.uint8)),
            "images are one image (ndarray); expected a list of images",
        ),
        (lambda p: p.encode_texts("кот"), "texts are 'кот', one text; expected a list of texts"),
        (lambda p: p.get_text_latents(["кот", None]), "class_labels[1] is None; expected a text"),
        (lambda p: Predictor(p.clip, "фото {}"), "templates are 'фото {}', one text; expected a l"),
        (lambda p: Predictor(p.clip, batch_size=2.5), "batch_size is 2.5; expected an integer, at"),
        (
            lambda p: Predictor("models/ruclip"),
            "clip is 'models/ruclip'; expected a Pretrained",
        ),
        (lambda p: p.clip.processor(text=["кот", 5]), "text[1] is 5; expected a text (str)"),
        (lambda p: p.clip.processor(text=5), "text are 5; expected a list of texts"),
        (lambda p: PretrainedClip({}, {}), "config is of type dict; expected a ClipConfig"),
        (lambda p: p.clip.replicate([]), "devices are []; expected a list of jax.devices()"),
        (
            lambda p: p.clip.processor.tokenizer.decode([1.5]),
            "id is of type float; expected an",
        ),
    ],
)
def test_messages_name_what_was_found_and_expected(clip, call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(Predictor(clip, quiet=True))


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda clip, **how: clip.encode_image(np.zeros(3), **how), "encode_image"),
        (lambda clip, **how: Predictor(clip, **how), "__init__"),
        (lambda clip, **how: Predictor(clip).run([], None, **how), "run"),
        (lambda clip, **how: clip_jax.load("nowhere", **how), "load"),
    ],
)
def test_an_unknown_keyword_is_refused_by_the_function_that_was_called(clip, call, wrong):
    with pytest.raises(TypeError, match=rf"{wrong}\(\) got an unexpected keyword.*'batchsize'"):
        call(clip, batchsize=3)


def test_what_counts_as_a_number_a_list_and_an_integer():
    assert check_integer("n", np.int64(3)) == 3 and type(check_integer("n", np.int64(3))) is int
    assert check_number("x", np.float32(0.5)) == check_number("x", np.array(0.5)) == 0.5
    assert check_text_list("texts", ("а", np.str_("б"))) == ["а", "б"]
    assert check_text_list("texts", (name for name in "аб")) == ["а", "б"]
    several = np.zeros((2, 4, 4, 3), np.uint8)
    assert check_image_list("images", several) is several
    for wrong in (True, np.True_, 2.0, "3", None, np.zeros(2, int)):
        with pytest.raises(InputError, match="^n is .*; expected an integer, at least 1$"):
            check_integer("n", wrong)
    for wrong in (True, "0.5", None, 1j, np.zeros(2), float("inf")):
        with pytest.raises(InputError, match="^x is .*; expected a number"):
            check_number("x", wrong)
    for wrong in ({"а"}, {"а": 1}, b"a", 5, None):
        with pytest.raises(InputError, match="^texts are .*; expected a list of texts$"):
            check_text_list("texts", wrong)
