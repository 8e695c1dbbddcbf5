"""Memory of a process that draws and encodes for long: flat after the first few."""

import ctypes
import gc
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from rudolph_jax.app.image_generation import GenerationRequest, generate_images
from rudolph_jax.app.limits import Limits

STATUS = Path("/proc/self/statm")
PAGE = 4096
MOST = 8.0  # MB; one leaked image a step would be more by far, of a large model as of these
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="reads Linux's /proc")


def resident():
    """Megabytes of this process in memory, without what glibc holds back of freed ones."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return int(STATUS.read_text().split()[1]) * PAGE / 2**20


def grown(work, first, count):
    """Megabytes that `count` calls add to those of the first ones, and objects that they leave."""
    for _ in range(first):
        work()
    before = resident()
    objects = len(gc.get_objects())
    for _ in range(count):
        work()
    after = resident()
    print(f"{first} calls: {before:.1f} MB, {count} more: {after:.1f} MB")
    return after - before, len(gc.get_objects()) - objects


@pytest.fixture(scope="module")
def clip(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return clip_jax.load(folder)


LONG = pytest.mark.slow


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=LONG)])
def test_drawings(folders, clip, count):
    rudolph = rudolph_jax.load(folders / "rudolph", folders / "vqgan")
    predictor = clip_jax.Predictor(clip, quiet=True)
    device, seeds = threading.Lock(), iter(range(10_000))

    def work():
        with tempfile.TemporaryDirectory() as folder:
            request = GenerationRequest("лес", count=2, seed=next(seeds))
            *_, last = generate_images(
                rudolph, predictor, request, Limits(), Path(folder), batch_size=2, device=device
            )
            assert len(last.images) == 2

    megabytes, objects = grown(work, 3, count)
    assert megabytes < MOST and objects < 10 * count


class Photos:
    """Images that are made when they are asked for; `len` of them."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, some):
        shades = range(*some.indices(self.count))
        return [Image.new("RGB", (400, 300), (n % 256, 0, n // 256)) for n in shades]


@pytest.mark.parametrize("count", [120, pytest.param(5000, marks=LONG)])
def test_a_predictor_over_many_images(clip, count):
    predictor = clip_jax.Predictor(clip, quiet=True, batch_size=8)
    found = []
    megabytes, objects = grown(
        lambda: found.append(predictor.get_image_latents(Photos(count // 2))), 1, 1
    )
    assert found[1].shape[0] == count // 2
    assert megabytes < MOST and objects < count


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=LONG)])
def test_encodes(clip, count):
    pixels = np.zeros((2, *[clip.config.vision.image_size] * 2, 3), np.float32)

    def work():
        np.asarray(clip.encode_image(pixels))
        clip_jax.Predictor(clip, quiet=True).encode_texts(["лес", "дом"])

    megabytes, objects = grown(work, 10, count)
    assert megabytes < MOST and objects < 5 * count


@pytest.mark.parametrize("count", [3, pytest.param(65, marks=LONG)])
def test_damaged_loads(clip, tmp_path, count):
    folder = clip.save(tmp_path / "clip")
    largest = max((folder / "params").rglob("d/*"), key=lambda file: file.stat().st_size)
    data, numbers = largest.read_bytes(), iter(range(10_000))

    def work():
        copy = shutil.copytree(folder, tmp_path / "copy")
        file = copy / largest.relative_to(folder)
        file.write_bytes(data[: len(data) * (next(numbers) % 8) // 8])
        with pytest.raises(clip_jax.InputError):
            clip_jax.load(copy)
        shutil.rmtree(copy)

    # Python's objects are flat; outside of them 300 loads grew by 0.16 MB each, ever less
    # (266 MB, after 100: 297, 200: 309, 300: 314), which no object of ours holds.
    megabytes, objects = grown(work, 3, count)
    assert megabytes < MOST + 0.8 * count and objects < 50 + 5 * count
