"""Super-resolution: recorded outputs, tiles that equal the whole, images of every kind."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import rudolph_jax
from clip_jax import Compute, InputError, model_folder
from rudolph_jax import PretrainedUpscaler, RrdbNet, UpscalerConfig, tasks
from rudolph_jax.upscaler.rrdb import abstract_params, init_params, pixel_unshuffle
from rudolph_jax.upscaler.tiles import TileGrid, reflected, run_tiles, tile_side

SCALES = (1, 2, 4, 8)


def sizes_and_scales(sizes, size, scale):
    """All pairs, of which those with neither this size nor this scale are slow."""
    return [
        pytest.param(s, x, marks=[] if s == size or x == scale else [pytest.mark.slow])
        for s in sizes
        for x in SCALES
    ]


@pytest.fixture(scope="module")
def upscaler(golden_folder):
    """Recorded networks of 6 features, 2 blocks and a growth of 4, by scale."""
    return lambda scale: rudolph_jax.load_upscaler(
        golden_folder(f"real_esrgan_x{scale}", "real-esrgan")
    )


@pytest.fixture(scope="module")
def tame():
    """A network whose outputs stay between 0 and 1, so that nothing is clipped."""

    def make(scale, **sizes):
        config = UpscalerConfig(scale=scale, **{"features": 6, "blocks": 1, "growth": 4, **sizes})
        params = jax.tree.map(np.array, init_params(config, jax.random.key(scale)))
        params["conv_last"]["kernel"] *= 0.5 / np.abs(params["conv_last"]["kernel"]).max()
        params["conv_last"]["bias"][:] = 0.5
        return PretrainedUpscaler(config, params)

    return make


@pytest.mark.parametrize("scale", SCALES)
def test_recorded_pytorch(upscaler, goldens, scale):
    recorded = np.load(goldens / f"real_esrgan_x{scale}/outputs.npz")
    images, expected = (recorded[n].transpose(0, 2, 3, 1) for n in ("images", "enlarged"))
    found = np.asarray(upscaler(scale).network(images))
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert found.shape[1:3] == (12 * scale, 8 * scale)
    assert np.abs(found - expected).max() <= 1e-4


def test_unshuffled_channels_are_in_pytorchs_order():
    x = np.arange(2 * 4 * 3).reshape(1, 2, 4, 3)
    found = np.asarray(pixel_unshuffle(x, 2))
    # Colour 0 of the square's four pixels, row by row, then colour 1.
    assert found[0, 0, 0].tolist() == [0, 3, 12, 15, 1, 4, 13, 16, 2, 5, 14, 17]
    assert found[0, 0, 1, :4].tolist() == [6, 9, 18, 21]


def test_a_line_is_reflected_at_both_ends():
    assert reflected(-2, 8, 4).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    assert reflected(-5, 4, 2).tolist() == [1, 0, 1, 0]
    assert reflected(-3, 5, 1).tolist() == [0] * 5
    for length in (2, 3, 7):
        line = np.arange(length)
        padded = np.pad(line, (17, 30), mode="reflect")
        assert reflected(-17, length + 47, length).tolist() == padded.tolist()


def plane(upscaler, image, margin):
    """The network on the reflected plane as far as `margin`, in one piece; cropped."""
    height, width = image.shape[:2]
    side = upscaler.config.unshuffle
    extra = ((margin, margin + -height % side), (margin, margin + -width % side), (0, 0))
    padded = np.pad(image, extra, mode="reflect")
    out = np.asarray(upscaler.network(padded[None].astype(np.float32)))[0]
    top, s = margin * upscaler.scale, upscaler.scale
    return out[top : top + height * s, top : top + width * s]


@pytest.mark.parametrize(
    ("size", "scale"), sizes_and_scales([(37, 50), (16, 16), (5, 33)], (37, 50), 2)
)
def test_tiles_equal_the_whole(upscaler, rng, scale, size):
    """With an overlap of the receptive radius: to 1e-4, with outputs of several units."""
    model = upscaler(scale)
    radius = model.config.receptive_radius
    image = rng.random((*size, 3), dtype=np.float32)
    run = lambda windows: np.asarray(model.network(windows))  # noqa: E731
    (found,) = run_tiles(run, [image], scale, tile=16, overlap=radius, batch_size=3)
    expected = plane(model, image, radius)
    assert found.shape == expected.shape == (size[0] * scale, size[1] * scale, 3)
    assert np.abs(found - expected).max() <= 1e-4
    if size == (37, 50):  # without an overlap the tiles show
        (bare,) = run_tiles(run, [image], scale, tile=16, overlap=0, batch_size=3)
        assert np.abs(bare - expected).max() > 1e-2


@pytest.mark.parametrize(
    "scale", [1, 4, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (2, 8))]
)
def test_the_receptive_radius_by_gradients(tame, scale):
    """Pixels further away than the radius have no part in one of the output; near it some do."""
    model = tame(scale)
    radius, side = model.config.receptive_radius, model.config.unshuffle
    centre = radius + 2 * side

    def pixel(line):
        x = line[None, None, :, None] * np.ones((1, side, 1, 3), np.float32)
        out = RrdbNet(model.config).apply({"params": model.params}, x)
        return out[0, 0, centre * scale].sum()

    line = np.linspace(0, 1, 2 * centre, dtype=np.float32)
    reached = np.flatnonzero(jax.jit(jax.grad(pixel))(line))
    assert centre - radius <= reached.min() <= centre - radius + 4 * side
    assert centre + radius - 4 * side <= reached.max() <= centre + radius + side


@pytest.mark.parametrize(
    ("size", "scale"), sizes_and_scales([(1, 1), (3, 2), (40, 23), (64, 20)], (40, 23), 4)
)
def test_images_of_any_size(tame, rng, scale, size):
    model = tame(scale)
    radius = model.config.receptive_radius
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    (found,) = model.upscale([pixels], tile=32, overlap=radius)
    assert found.mode == "RGB" and found.size == (size[1] * scale, size[0] * scale)
    expected = plane(model, pixels / np.float32(255), radius) if min(size) > 1 else None
    if expected is not None:
        expected = np.rint(expected.clip(0, 1) * 255)
        assert np.abs(np.asarray(found, int) - expected).max() <= 1  # a rounded half


def test_grey_transparent_and_files(tame, rng, tmp_path):
    model = tame(2)
    grey = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    clear = np.dstack([np.zeros((9, 7, 3), np.uint8), np.zeros((9, 7), np.uint8)])
    white = np.full((9, 7, 3), 255, np.uint8)
    sources = [tmp_path / "grey.png", np.dstack([grey] * 3), clear, white]
    a, b, c, d = map(np.asarray, model.upscale(sources))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(c, d)
    (red,) = model.upscale([clear], background=(255, 0, 0))
    (plain,) = model.upscale([np.zeros_like(white) + np.array([255, 0, 0], np.uint8)])
    np.testing.assert_array_equal(np.asarray(red), np.asarray(plain))


def test_images_of_several_sizes_share_batches_and_keep_their_order(tame, rng):
    model = tame(4)
    sizes = [(20, 20), (16, 12), (50, 40), (3, 3), (70, 20), (32, 32)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    together = model.upscale(images, tile=32, overlap=8, batch_size=3)
    assert [each.size for each in together] == [(w * 4, h * 4) for h, w in sizes]
    for image, found in zip(images, together, strict=True):
        (alone,) = model.upscale([image], tile=32, overlap=8, batch_size=1)
        assert np.abs(np.asarray(alone, int) - np.asarray(found, int)).max() <= 1
    assert model.upscale([]) == []


def test_tiles_of_small_images_are_small():
    assert [tile_side(h, w, 128) for h, w in ((1, 1), (8, 8), (17, 3), (65, 2), (500, 9))] == [
        16, 16, 32, 128, 128,
    ]  # fmt: skip
    grid = TileGrid(37, 50, 16, 4)
    assert (grid.rows, grid.columns, grid.count) == (3, 4, 12)


def test_one_program_for_a_size_of_tiles(tame, rng, compilations):
    model = tame(2, features=5)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((90, 70), (80, 75))]
    compilations.clear()
    model.upscale(images, tile=32, overlap=4, batch_size=4)  # 9 tiles each: four batches and two
    assert compilations == ["jit(_apply)"]
    model.upscale([rng.integers(0, 256, (200, 64, 3), dtype=np.uint8)], tile=32, overlap=4)
    assert compilations == ["jit(_apply)"]


def test_memory_is_bounded_by_a_batch():
    """Windows of one batch at a time, and each image leaves as soon as it is whole."""
    largest, opened = 0, []

    def run(windows):
        nonlocal largest
        largest = max(largest, len(windows))
        return windows.repeat(2, axis=1).repeat(2, axis=2)

    def images():
        for i in range(6):
            opened.append(i)
            yield np.full((40, 40, 3), i, np.uint8)

    seen = []
    for number, image in enumerate(run_tiles(run, images(), 2, 32, 8, 4)):
        assert (image == number).all() and image.shape == (80, 80, 3)
        seen.append(len(opened) - number)
    assert largest == 4 and max(seen) <= 2 and len(seen) == 6


def test_progress_counts_tiles():
    steps = []
    image = np.zeros((40, 40, 3), np.uint8)
    list(run_tiles(lambda w: w, [image, image], 1, 32, 0, 3, lambda *at: steps.append(at)))
    assert steps == [(3, 4), (6, 8), (8, 8)]


def test_folder_gives_the_model_back(tame, tmp_path, rng):
    model = tame(8)
    folder = model.save(tmp_path / "x8", note="made by a test")
    again = rudolph_jax.load_upscaler(folder)
    assert again.config == model.config and again.scale == 8
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), dict(model.params))
    assert model_folder.read_config(folder)["kind"] == "upscaler"
    with pytest.raises(InputError, match="already exists"):
        model.save(folder)
    half = rudolph_jax.load_upscaler(folder, dtype="bfloat16")
    assert half.compute == Compute(dtype="bfloat16")
    image = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
    exact, rough = (np.asarray(m.upscale([image])[0], int) for m in (again, half))
    assert 0 < np.abs(exact - rough).max() <= 12
    words = repr(again)
    assert "8 times their sides" in words and len(words.splitlines()) == 2


def test_wrong_folders_are_one_line_errors(tame, tmp_path, monkeypatch):
    folder = tame(4).save(tmp_path / "x4")
    monkeypatch.setenv("RUDOLPH_JAX_VERIFY", "0")
    file = folder / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    for change, message in (
        ({"kind": "vqgan"}, "holds a model of kind 'vqgan'; expected 'upscaler'"),
        ({"config": whole["config"] | {"features": 7}}, r"conv_body/bias is \[6\]; .* \[7\]"),
        ({"config": whole["config"] | {"blocks": 2}}, "block_1/dense_3/conv_4/bias is absent"),
        ({"config": whole["config"] | {"scale": 8}}, "conv_up_3/bias is absent"),
        ({"config": whole["config"] | {"scale": 2}}, r"conv_first/kernel is \[3, 3, 3, 6\]"),
        ({"config": whole["config"] | {"scale": 3}}, "scale is 3; expected one of 1, 2, 4, 8"),
    ):
        file.write_text(json.dumps(whole | change), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            rudolph_jax.load_upscaler(folder)


def test_wrong_arguments_are_named(tame, try_wrong_values):
    model = tame(2)
    image = np.zeros((4, 4, 3), np.uint8)
    accepted, _ = try_wrong_values(
        model.upscale, {"images": [image]}, ["images", "tile", "overlap", "batch_size", "quiet"]
    )
    assert accepted == {
        "images": [[]], "tile": [], "overlap": [0], "batch_size": [5], "quiet": [True],
    }  # fmt: skip
    try_wrong_values(model.network, {})
    for arguments, message in (
        ({"tile": 33}, "tile is 33; expected a multiple of 2"),
        ({"overlap": 5}, "overlap is 5; expected a multiple of 2"),
        ({"tile": 8}, "tile is 8; expected"),
    ):
        with pytest.raises(InputError, match=message):
            model.upscale([image], **arguments)
    with pytest.raises(InputError, match="3x4; expected multiples of 2; upscale"):
        model.network(np.zeros((1, 3, 4, 3), np.float32))
    with pytest.raises(InputError, match="would become 40000x20000; expected at most 536,870,912"):
        model.upscale([Image.new("1", (20000, 10000))])


def test_super_resolution_is_ruDALLEs_name_for_it(tame, rng):
    model = tame(4)
    images = [Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))] * 2
    for found, expected in zip(
        tasks.super_resolution(images, model), model.upscale(images), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    with pytest.raises(InputError, match=r"realesrgan is None; .*load_upscaler\(folder\)"):
        tasks.super_resolution(images, None)


def test_parameters_are_float32_and_counted():
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract_params(UpscalerConfig()))} == {
        np.dtype("float32")
    }
