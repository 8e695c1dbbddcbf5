"""The web app's functions, without the page."""

import socket
import struct
import sys
import threading
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax.text import escape
from rudolph_jax import InputError, tasks
from rudolph_jax.app.cancellation import CancellationRegistry
from rudolph_jax.app.captions_and_classes import caption, classify
from rudolph_jax.app.image_generation import GenerationRequest, generate_images
from rudolph_jax.app.image_search import SearchTabIndex
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.origins import is_loopback
from rudolph_jax.app.server import check_gradio, listening_socket
from rudolph_jax.generation import sample_batches

LIMITS = Limits(images=8, prompt=30, labels=3, label=6, upload_mb=1, megapixels=2)


@pytest.fixture(scope="module")
def rudolph(folders):
    return rudolph_jax.load(folders / "rudolph", folders / "vqgan")


@pytest.fixture(scope="module")
def predictor(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return clip_jax.Predictor(clip_jax.load(folder), quiet=True)


@pytest.fixture
def steps(rudolph, tmp_path):
    def steps(request, predictor=None, is_cancelled=lambda: False, upscaler=None):
        device = threading.Lock()
        for progress in generate_images(
            rudolph, predictor, request, LIMITS, tmp_path, batch_size=2, is_cancelled=is_cancelled,
            device=device, upscaler=upscaler,
        ):  # fmt: skip
            assert not device.locked()
            yield progress

    return steps


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image)


def assert_alike(found, image):
    """Up to what batches of another size may round otherwise."""
    assert np.abs(found.astype(int) - np.asarray(image, int)).max() <= 1


def test_a_drawing_appears_batch_by_batch_and_ends_ranked(steps, rudolph):
    seen = list(steps(GenerationRequest("лес", count=5.0, seed=3.0)))
    assert [progress.done for progress in seen] == [0, 2, 4, 5, 5]
    assert all(len(p.images) == p.done and p.total == 5 and not p.stopped for p in seen)
    codes = tasks.generate_codebooks(rudolph, "лес", 5, seed=3, quiet=True)
    drawn = rudolph.decode_images(codes)
    for (file, _), image in zip(seen[3].images, drawn, strict=True):
        assert_alike(pixels(file), image)
    *_, scores = tasks.self_reranking_by_text(rudolph, "лес", codes)
    order = np.argsort(scores, kind="stable")
    last = seen[-1]
    assert (last.score, last.truncated) == ("score", "")
    assert [text for _, text in last.images] == [f"{scores[i]:.3f}" for i in order]
    for (file, _), i in zip(last.images, order, strict=True):
        with Image.open(file) as image:
            assert image.text["prompt"] == "лес" and image.text["candidate"] == str(i)
        assert_alike(pixels(file), drawn[i])
    with zipfile.ZipFile(last.archive) as archive:
        names = [f"0{n}.png" for n in range(1, 6)] + ["sheet.png"]
        assert archive.namelist() == names
        assert archive.read("01.png") == last.images[0][0].read_bytes()


@pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
def test_what_of_a_prompt_is_not_read_is_told(steps, rudolph):
    text = "очень длинный текст о лесе"
    truncated = list(steps(GenerationRequest(text, count=1)))[-1].truncated
    tokenizer = rudolph.tokenizer
    room = rudolph.config.left_text_length - 2  # BOS and what it is for
    assert truncated and truncated == tokenizer.decode(tokenizer.encode(text)[room:])


def test_ranked_drawings_are_enlarged_where_it_is_wanted(steps, golden_folder):
    upscaler = rudolph_jax.load_upscaler(golden_folder("real_esrgan_x4", "real-esrgan"))
    plain = list(steps(GenerationRequest("лес", count=3), upscaler=upscaler))[-1]
    small = [pixels(file) for file, _ in plain.images]
    assert plain.upscaled == 1 and small[0].shape == (24, 24, 3)
    for file, _ in plain.images:
        file.unlink()
    (plain.images[0][0].parent / "sheet.png").unlink()
    *before, last = steps(GenerationRequest("лес", count=3, upscale=True), upscaler=upscaler)
    working = [(p.upscaled, p.enlarged) for p in before if p.upscaled > 1]
    assert working == [(4, 0), (4, 1), (4, 2)] and last.upscaled == 4
    for (file, _), expected in zip(last.images, upscaler.upscale(small), strict=True):
        assert_alike(pixels(file), expected)
        with Image.open(file) as image:
            assert image.size == (96, 96) and image.text["upscale"] == "4"


def test_a_stop_while_enlarging_leaves_the_drawings_as_they_are(steps, golden_folder):
    upscaler = rudolph_jax.load_upscaler(golden_folder("real_esrgan_x4", "real-esrgan"))
    stop = threading.Event()
    request = GenerationRequest("лес", count=3, upscale=True)
    for progress in steps(request, is_cancelled=stop.is_set, upscaler=upscaler):
        if progress.enlarged == 1:
            stop.set()
    assert progress.archive and progress.upscaled == 1 and not progress.stopped
    assert {pixels(file).shape for file, _ in progress.images} == {(24, 24, 3)}
    with pytest.raises(InputError, match="start the page with --upscaler"):
        list(steps(request))


def test_ruclip_ranks_where_there_is_one(steps, predictor):
    last = list(steps(GenerationRequest("лес", count=3), predictor))[-1]
    cosines = [float(text) for _, text in last.images]
    assert last.score == "cosine" and cosines == sorted(cosines, reverse=True)


def test_a_stopped_drawing_draws_no_further_batch(steps, rudolph, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "rudolph_jax.text_to_image.sample_batches",
        lambda *how, **more: (decoded.append(1) or part for part in sample_batches(*how, **more)),
    )
    stop = threading.Event()
    seen = []
    for progress in steps(GenerationRequest("лес", count=8), is_cancelled=stop.is_set):
        seen.append(progress)
        if progress.done == 4:
            stop.set()
    assert [p.done for p in seen] == [0, 2, 4, 4] and len(decoded) == 2
    assert seen[-1].stopped and seen[-1].archive and len(seen[-1].images) == 4
    (first, last) = steps(GenerationRequest("лес", count=8), is_cancelled=lambda: True)
    assert (last.stopped, last.done, last.archive) == (True, 0, None) and len(decoded) == 2


def test_borders_are_kept_and_guidance_is_that_of_the_task(steps, rudolph, folders):
    request = GenerationRequest(
        "лес", 2, 1, guidance=0.3, temperature=0.8, top_k=9.0, top_p=0.9,
        image=folders / "red.png", borders={"up": 1.0, "left": 0},
    )  # fmt: skip
    shown = next(p for p in steps(request) if p.done == 2).images
    kept = tasks.keep_borders(rudolph, folders / "red.png", {"up": 1})
    codes = tasks.generate_codebooks_cfg(
        rudolph, "лес", 2, weight_cfg=0.3, image_prompts=kept, temperature=0.8, top_k=9,
        top_p=0.9, seed=1, batch_size=2, quiet=True,
    )  # fmt: skip
    assert (codes[:, :3] == kept[:3]).all()
    for (file, _), image in zip(shown, rudolph.decode_images(codes), strict=True):
        np.testing.assert_array_equal(pixels(file), np.asarray(image))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (GenerationRequest(" "), "the prompt is empty"),
        (GenerationRequest("я" * 31), "has 31 characters; expected 30 at most"),
        (GenerationRequest("лес", count=9), "number of images is 9; expected 1 to 8"),
        (GenerationRequest("лес", count=1.5), "number of images is 1.5"),
        (GenerationRequest("лес", count=None), "number of images is None"),
        (GenerationRequest("лес", seed=-1), "the seed is -1; expected a whole number from 0"),
        (GenerationRequest("лес", temperature=-1.0), "temperature is -1.0"),
        (GenerationRequest("лес", borders={"up": 2}), "without an image"),
        (GenerationRequest("лес", image="red.png"), "no border to keep"),
        (
            GenerationRequest("лес", image="red.png", borders={"up": 4}),
            "the up is 4; expected a whole",
        ),
    ],
)
def test_what_is_wrong_with_a_drawing_is_told(steps, request_, message):
    with pytest.raises(InputError, match=message):
        list(steps(request_))


def header(width, height):
    """A PNG file that says how large it is, and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(chunk))
    begun = struct.pack(">I", 100) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + check + begun


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(60_000, 60_000), "more than 2 megapixels"),
        (header(2000, 1001), "2000x1001 pixels; expected 2 megapixels"),
        (header(2000, 1000), "damaged"),
        (b"words", "not an image; expected a format such as PNG"),
        (b"<svg/>", "not an image; expected a format such as PNG"),
        (bytes(2**20 + 1), "1.0 MB; expected 1 MB at most"),
    ],
    ids=["bomb", "many", "cut", "words", "drawing", "heavy"],
)
def test_uploads_are_measured_before_they_are_decoded(tmp_path, content, message):
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        LIMITS.open_upload(str(tmp_path / "upload"))
    assert "upload" not in str(caught.value)
    with pytest.raises(InputError, match="no image was given"):
        LIMITS.open_upload(None)


def test_labels():
    assert LIMITS.class_names("кот, пёс\n кот\n\nдом,") == ["кот", "пёс", "дом"]
    for text, message in [
        ("кот", "1 different labels were given; expected 2 to 3"),
        ("а,б,в,г", "4 different labels"),
        ("кот,большой", "a label has 7 characters; expected 6"),
    ]:
        with pytest.raises(InputError, match=message):
            LIMITS.class_names(text)


def test_captions_and_classes_are_those_of_the_tasks(rudolph, predictor, folders):
    red = folders / "red.png"
    found = caption(rudolph, red, "лес", 4.0, 2, LIMITS, batch_size=4)
    assert found == tasks.image_captioning(
        rudolph, red, 4, generations_num=4, r_template="лес", seed=2, batch_size=4,
        quiet=True,
    )  # fmt: skip
    assert found[0]["text"].startswith("лес")
    names = ["лес", "дом", "кот"]
    both = classify(rudolph, predictor, red, "лес, дом, кот", "", LIMITS, batch_size=4)
    for shares in (both.ruclip, both.rudolph):
        assert list(shares) == names and sum(shares.values()) == pytest.approx(1)
    best = tasks.zs_clf(rudolph, red, names)["class"]
    assert max(both.rudolph, key=both.rudolph.get) == best
    latents = predictor.get_text_latents(names)
    logits = predictor.clip.logit_scale * (predictor.get_image_latents([red]) @ latents.T)[0]
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose([*both.ruclip.values()], expected / expected.sum(), rtol=1e-4)
    with_template = classify(rudolph, None, red, "лес, дом", "мой {}", LIMITS, batch_size=4)
    perplexities = tasks.class_perplexities(rudolph, [red], ["мой лес", "мой дом"])[0]
    assert with_template.ruclip is None
    assert with_template.rudolph["лес"] / with_template.rudolph["дом"] == pytest.approx(
        perplexities[1] / perplexities[0], rel=1e-4
    )
    with pytest.raises(InputError, match="expected one {} where the label stands"):
        classify(rudolph, None, red, "лес, дом", "мой", LIMITS, batch_size=4)


def test_the_folder_is_encoded_once(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for name, color in (("red", "red"), ("more/blue", "blue"), ("\udcff", "lime")):
        Image.new("RGB", (900, 600), color).save(photos / f"{name}.png")
    search_index = SearchTabIndex(predictor.clip, photos)
    counted = []
    search_index.open(lambda done, of: counted.append((done, of)))
    assert counted == [(3, 3)]
    shown = search_index.search("красный", 2.0, LIMITS)
    expected = clip_jax.search.build_image_index(predictor.clip, photos).search("красный", 2)
    assert [each.caption for each in shown] == [
        f"{each.cosine:.3f}  {escape(str(each.path.relative_to(photos)))}" for each in expected
    ]
    assert shown[0].image.size == (512, 341)
    assert all("\udcff" not in each.caption for each in shown)
    first = expected[0].path
    first.rename(photos / "moved.png")
    assert len(search_index.search("красный", 2, LIMITS)) == 1
    search_index.close()
    monkeypatch.setattr(clip_jax.PretrainedClip, "encode_image", lambda *_: 1 / 0)
    assert "moved.png" in search_index.search("красный", 1, LIMITS)[0].caption
    with pytest.raises(InputError, match="the text is empty"):
        search_index.search(" ", 1, LIMITS)


def test_each_person_has_one_drawing_and_stops_that_one():
    cancellations = CancellationRegistry()
    cancellations.start("a")
    cancellations.start("b")
    with pytest.raises(InputError, match="your previous drawing"):
        cancellations.start("a")
    cancellations.cancel("a")
    assert cancellations.event("a").is_set() and not cancellations.event("b").is_set()
    cancellations.finish("a")
    cancellations.cancel("a")
    cancellations.start("a")
    assert not cancellations.event("a").is_set()
    assert cancellations.event("nobody").is_set()


def test_hosts_and_ports():
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1")] == [True] * 3
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.org")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: .*in use.*name another with"):
            listening_socket("127.0.0.1", port)
    with listening_socket("127.0.0.1", 0) as free:
        assert free.getsockname()[1] > 1023
    with pytest.raises(InputError, match="203.0.113.7:0"):  # of no machine
        listening_socket("203.0.113.7", 0)


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"pip install 'rudolph-jax\[app\]'"):
        check_gradio()
