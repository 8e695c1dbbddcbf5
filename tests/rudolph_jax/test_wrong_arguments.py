"""Wrong arguments of the public functions are InputErrors in the caller's words."""

import inspect
import re

import jax
import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax import InputError, Predictor
from rudolph_jax import tasks

pytestmark = pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
IMAGE = Image.new("RGB", (9, 9), "red")
CODES = np.zeros((2, 16), np.int32)
# What a call needs besides the model; the rest are defaults.
CALLS = {
    "answer": {"question": "что это", "answers_num": 1},
    "answer_questions": {"questions": ["что это"]},
    "caption_images": {"images": [IMAGE]},
    "class_perplexities": {"images": [IMAGE], "captions": ["кот"]},
    "draw_images": {"text": "кот", "images_num": 1},
    "draw_in_batches": {"text": "кот", "images_num": 1},
    "draw_texts": {"texts": ["кот"]},
    "dream": {"text": "кот", "images_num": 1, "codebooks_num": 1},
    "generate_captions": {"image": IMAGE, "captions_num": 1},
    "generate_codebooks": {"text": "кот", "images_num": 1},
    "generate_codebooks_cfg": {"text": "кот", "images_num": 1},
    "generate_texts": {"texts_num": 1},
    "image_captioning": {"image": IMAGE, "captions_num": 1, "generations_num": 1},
    "image_features": {"images": [IMAGE]},
    "keep_borders": {"image": IMAGE, "borders": {"up": 1}},
    "keep_mask": {"image": IMAGE, "kept": np.ones((4, 4), bool)},
    "rank_images": {"text": "кот", "codes": CODES},
    "ruclip_reranking": {"text": "кот", "images": [IMAGE]},
    "self_reranking_by_image": {"texts": ["кот"], "image": IMAGE},
    "self_reranking_by_text": {"text": "кот", "codebooks": CODES},
    "super_resolution": {"pil_images": [IMAGE]},
    "text_perplexities": {"texts": ["кот"]},
    "zs_clf": {"image": IMAGE, "classes": ["кот", "дом"]},
}


@pytest.fixture(scope="module")
def predictor(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return Predictor(clip_jax.load(folder), ["{}"], quiet=True)


@pytest.fixture(scope="module")
def upscaler(golden_folder):
    return rudolph_jax.load_upscaler(golden_folder("real_esrgan_x2", "real-esrgan"))


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    def generate(sampler, params, inputs):
        N = sampler.target_slice.stop - sampler.target_slice.start
        return np.zeros((len(inputs.keys), N), np.int32)

    def judge(config, compute, start, segments, params, past, rest):
        return {segment: np.ones(len(rest), np.float32) for segment in segments}

    monkeypatch.setattr("rudolph_jax.generation.generate_on_device", generate)
    monkeypatch.setattr("rudolph_jax.perplexity._perplexities", judge)
    monkeypatch.setattr("rudolph_jax.perplexity._prefill", lambda *_: None)


@pytest.mark.parametrize("name", tasks.__all__)
def test_wrong_arguments_of_tasks_are_input_errors_that_name_them(
    api, predictor, upscaler, try_wrong_values, name
):
    function = getattr(tasks, name)
    others = {"ruclip_reranking": predictor, "super_resolution": upscaler}
    parameters = {"ruclip_reranking": "predictor", "super_resolution": "realesrgan"}
    first = {parameters.get(name, "rudolph"): others.get(name, api)}
    # crop_first: the stand-in for an image tokenizer reads whole images alone.
    names = [each for each in inspect.signature(function).parameters if each != "crop_first"]
    accepted, messages = try_wrong_values(function, first | CALLS[name], names)
    for parameter in names:
        # "texts[1] is 5", "special_token is 5" for l_special_token, "image is NoneType" for one of
        # pil_images
        word = parameter.removesuffix("s")
        for prefix in ("l_", "r_", "pil_"):
            word = word.removeprefix(prefix)
        assert messages[parameter] and all(word in each for each in messages[parameter])
        # No array, object or bytes is right anywhere, and no parameter takes most of the values.
        assert len(accepted[parameter]) <= 6
        assert not any(isinstance(each, bytes | np.ndarray) for each in accepted[parameter])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda api: tasks.dream(api, "кот", 9, 4), "images_num is 9, more than codebooks_num, 4"),
        (lambda api: tasks.dream(api, "кот", 1, 4.0), "codebooks_num is 4.0; expected an integer"),
        (lambda api: tasks.dream(api, "кот", template="лес"), "template is 'лес'; expected {text}"),
        (lambda api: tasks.dream(api, "кот", seed=-1), "seed is -1; expected 0 to 4294967295"),
        (lambda api: tasks.dream("models/350M", "кот"), "rudolph is 'models/350M'; expected a Pre"),
        # Not when the first image is taken.
        (lambda api: tasks.draw_images(api, "кот", -2), "images_num is -2; expected at least 1"),
        (lambda api: tasks.draw_in_batches(api, "кот", 1, top_k=-1), "top_k is -1"),
        (
            lambda api: tasks.zs_clf(api, IMAGE, ["кот", "дом"], r_template="фото"),
            "r_template is 'фото'; expected {} where the class's name stands",
        ),
        (
            lambda api: tasks.draw_texts(api, "кот"),
            "texts are 'кот', one text; expected a list of texts",
        ),
        (
            lambda api: tasks.answer_questions(api, ["что", None]),
            "questions[1] is None; expected a text",
        ),
        (
            lambda api: tasks.caption_images(api, "photo.jpg"),
            "images are one image (str); expected a list of images",
        ),
        (
            lambda api: tasks.generate_texts(api, allowed_token_ids=[3, 4.5]),
            "allowed_token_ids hold 4.5; expected 0 to",
        ),
        (
            lambda api: tasks.generate_codebooks(api, "кот", 1, mesh="data"),
            "mesh is 'data'; expected a jax.sharding.Mesh",
        ),
        (
            lambda api: tasks.generate_codebooks(
                api, "кот", 3, mesh=jax.make_mesh((8,), ("data",))
            ),
            "4 samples at once do not divide among 8 devices",
        ),
    ],
)
def test_messages_name_what_was_found_and_expected(api, call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(api)


def test_numbers_of_numpy_are_numbers(api):
    images, scores = tasks.dream(
        api, "кот", np.int64(1), np.int32(2), temperature=np.float32(1), top_k=np.int64(3),
        seed=np.uint8(1), batch_size=np.int64(2), quiet=True,
    )  # fmt: skip
    assert len(images) == len(scores) == 1


@pytest.mark.parametrize(
    ("name", "wrong"), [("dream", "image_num"), ("draw_images", "temprature"), ("zs_clf", "seed")]
)
def test_an_unknown_keyword_is_refused_by_the_function_that_was_called(api, name, wrong):
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword.*'{wrong}'"):
        getattr(tasks, name)(api, **CALLS[name], **{wrong: 4})


def test_wrong_arguments_of_models_are_input_errors(
    api, tiny_vqgan, folders, try_wrong_values, tmp_path
):
    try_wrong_values(api.logits, {})
    try_wrong_values(api.hidden_states, {})
    try_wrong_values(api.loss, {"input_ids": np.ones((1, 8), np.int32)})
    try_wrong_values(api.encode_images, {})
    try_wrong_values(api.pixels, {})
    try_wrong_values(api.decode_images, {}, ["codes"])
    try_wrong_values(tiny_vqgan.encode, {})
    try_wrong_values(tiny_vqgan.decode, {"ids": np.zeros((1, 4), np.int32)})
    for value in (None, 5, 2.5, [], {}, object()):
        for function in (rudolph_jax.load, rudolph_jax.load_vqgan, tiny_vqgan.save, api.save):
            with pytest.raises(InputError, match="folder is .*; expected a path"):
                function(value)
    rudolph, vqgan = folders / "rudolph", folders / "vqgan"
    for name in ("compute", "weights", "verify"):
        try_wrong_values(rudolph_jax.load, {"folder": rudolph}, [name])
    try_wrong_values(rudolph_jax.load_vqgan, {"folder": vqgan}, ["compute", "verify"])
    with pytest.raises(InputError, match="vqgan is 5; expected a path"):
        rudolph_jax.load(rudolph, vqgan=5)
    with pytest.raises(InputError, match="config is None; expected a RudolphConfig"):
        rudolph_jax.PretrainedRudolph(None, {})
    with pytest.raises(InputError, match="config is None; expected a VqganConfig"):
        rudolph_jax.PretrainedVqgan(None, {})
