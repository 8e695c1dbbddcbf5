"""Features of whole sets: devices, hosts, what is kept on disk."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError, Predictor
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.clip_model import open_clip
from experiments.evaluation.image_features import FeatureExtractor
from experiments.evaluation.methods.zero_shot import compare, measure
from experiments.evaluation.sets import open_set

CLASSES = ("дом", "кошка", "собака")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """21 images of three classes, no multiple of any number of devices above three."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sets") / "mine"
    for label in CLASSES:
        (folder / "test" / label).mkdir(parents=True)
        for i in range(7):
            pixels = rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "test" / label / f"{i}.png")
    return folder


def test_one_device_and_eight_give_the_same(ruclip, pictures):
    mine, found = open_set(str(pictures), "test"), []
    for devices in (jax.devices()[:1], jax.devices()):
        model = open_clip(ruclip, devices=devices, batch_size=2)
        images = model.set_features(mine).values
        result = compare(images, model.class_latents([[name] for name in CLASSES]), mine.labels)
        found.append((images, measure(result, CLASSES, "accuracy", model.clip.logit_scale)))
    (images, measured), (spread_images, spread_measured) = found
    assert images.shape == (21, 48)
    # Two programs, one of them partitioned: the compiler may order their sums differently.
    np.testing.assert_allclose(images, spread_images, atol=1e-5)
    for a, b in zip(jax.tree.leaves(measured), jax.tree.leaves(spread_measured), strict=True):
        assert a == (pytest.approx(b, rel=1e-4) if isinstance(b, float) else b)
    expected = Predictor(model.clip).get_image_latents([mine.image(i) for i in range(21)])
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert np.linalg.norm(open_clip(ruclip).set_features(mine, "pre").values, axis=1).max() > 2


def test_features_are_kept_by_content(ruclip, pictures, tmp_path, monkeypatch):
    mine = open_set(str(pictures), "test")
    model = open_clip(ruclip, cache=ArrayCache(tmp_path))
    first = model.set_features(mine).values, model.class_latents([["кошка"], ["дом", "фото дома"]])
    assert len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.glob("*.json"))) == 2
    again = open_clip(ruclip, cache=ArrayCache(tmp_path))

    def never(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "_encode", never)
        patch.setattr(type(model), "_encode_texts", never)
        np.testing.assert_array_equal(again.set_features(mine).values, first[0])
        np.testing.assert_array_equal(
            again.class_latents([["кошка"], ["дом", "фото дома"]]), first[1]
        )
        for asked in (
            lambda: again.set_features(mine, "pre"),
            lambda: again.class_latents([["кошка"], ["дом"]]),
            lambda: open_clip(ruclip, average="clip", cache=ArrayCache(tmp_path)).class_latents(
                [["кошка"], ["дом", "фото дома"]]
            ),
        ):
            with pytest.raises(AssertionError, match="computed again"):
                asked()
    for file in tmp_path.glob("*.npy"):  # one bit of the array: computed again
        data = bytearray(file.read_bytes())
        data[200] ^= 1
        file.write_bytes(data)
    np.testing.assert_array_equal(again.set_features(mine).values, first[0])
    for file in tmp_path.glob("*.npy"):  # cut off
        file.write_bytes(file.read_bytes()[:50])
    np.testing.assert_array_equal(again.set_features(mine).values, first[0])


def test_a_broken_picture_is_named(ruclip, pictures, tmp_path):
    broken = tmp_path / "broken" / "test" / "дом"
    broken.mkdir(parents=True)
    (broken / "a.png").write_bytes(b"not a picture")
    model = open_clip(ruclip)
    with pytest.raises(InputError, match="broken test дом/a.png: .*not a readable image"):
        model.set_features(open_set(str(tmp_path / "broken"), "test"))
    with pytest.raises(InputError, match="features are 'middle'"):
        model.set_features(open_set(str(pictures), "test"), "middle")


CHILD = """
import sys
from experiments.evaluate import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_hosts_share_the_pictures(ruclip, pictures, tmp_path):
    """Make one image of either host's share unreadable; both hosts must know of both."""
    pictures = shutil.copytree(pictures, tmp_path / "mine")
    for label in (CLASSES[0], CLASSES[-1]):
        (pictures / "test" / label / "3.png").write_bytes(b"not an image")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}"}

    def arguments(name):
        return [
            "zero-shot", f"--model={ruclip}", f"--sets={pictures}", "--batch-size=2",
            f"--out={tmp_path / name}", f"--cache={tmp_path / name / 'cache'}",
        ]  # fmt: skip

    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments("two"), f"--distributed={address},2,{i}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        for child in children:
            _, told = child.communicate(timeout=400)
            assert child.returncode == 7, told
    finally:
        for child in children:
            child.kill()
    from experiments.evaluate import main

    assert main(arguments("one")) == 7
    one, two = (
        json.loads(next((tmp_path / name).glob("*/zero-shot/mine.json")).read_text())
        for name in ("one", "two")
    )
    assert two.pop("made_with")["hosts"] == 2 and one.pop("made_with")["hosts"] == 1
    assert one == two and len(one["unreadable"]) == 2 and one["examples"] == 19
