import json
import shutil

import jax
import numpy as np
import pytest

import rudolph_jax
from clip_jax import Compute, InputError, jit_apply, model_folder
from rudolph_jax import PretrainedVqgan, VqganConfig
from rudolph_jax.vqgan import abstract_params


@pytest.fixture(scope="module")
def vqgan():
    """Pictures in patches of 4 pixels, 13 codes."""
    config = VqganConfig(
        channels=8,
        channel_multipliers=(1, 2, 2),
        residual_blocks=1,
        attention_levels=(),
        latent_channels=6,
        codebook_size=13,
        norm_groups=4,
    )
    rng = np.random.default_rng(0)
    shapes = abstract_params(config)
    params = jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), shapes
    )
    return PretrainedVqgan(config, params)


@pytest.fixture(scope="module")
def folder(vqgan, tmp_path_factory):
    return vqgan.save(tmp_path_factory.mktemp("models") / "vqgan", note="made by a test")


def test_folder_gives_the_model_back(vqgan, folder, rng):
    loaded = rudolph_jax.load_vqgan(folder)
    assert loaded.config == vqgan.config
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(vqgan.params))
    about = model_folder.read_config(folder)
    assert (about["kind"], about["provenance"]) == ("vqgan", {"note": "made by a test"})
    images = rng.random((3, 8, 8, 3), dtype=np.float32)
    np.testing.assert_array_equal(loaded.encode(images), vqgan.encode(images))
    with pytest.raises(InputError, match="already exists"):
        vqgan.save(folder)


def test_wrong_folders_are_one_line_errors(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RUDOLPH_JAX_VERIFY", "0")  # else each is a file that was changed
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"kind": "clip"}, "holds a model of kind 'clip'; expected 'vqgan'"),
        (
            {"config": {**about["config"], "codebook_size": 14}},
            r"parameter codebook is \[13, 6\]; config",
        ),
        ({"config": {"channels": 8, "colours": 3}}, "unknown colours"),
    ):
        (copy / "config.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(InputError, match=message) as caught:
            rudolph_jax.load_vqgan(copy)
        assert "\n" not in str(caught.value)


def test_shapes_are_squares_unless_said(vqgan, rng):
    ids = vqgan.encode(rng.random((2, 8, 16, 3), dtype=np.float32))
    assert ids.shape == (2, 8)
    wide, tall = vqgan.decode(ids, (2, 4)), vqgan.decode(ids, shape=(4, 2))
    assert (wide.shape, tall.shape) == ((2, 8, 16, 3), (2, 16, 8, 3))
    square = vqgan.decode(np.zeros((1, 9), np.int64))
    assert square.shape == (1, 12, 12, 3)
    with pytest.raises(InputError, match=r"8 ids, not a square .* shape=\(rows, columns\)"):
        vqgan.decode(ids)
    for shape in ((3, 3), (-2, -4), (0, 8)):
        with pytest.raises(InputError, match="does not hold them"):
            vqgan.decode(ids, shape)


def test_a_picture_does_not_depend_on_its_batch(vqgan, rng):
    images = rng.random((3, 8, 8, 3), dtype=np.float32)
    together = vqgan.encode(images)
    np.testing.assert_array_equal(vqgan.encode(images[1:2]), together[1:2])
    # Programs of other shapes may sum in another order.
    np.testing.assert_allclose(vqgan.decode(together[2:]), vqgan.decode(together)[2:], atol=1e-5)
    assert vqgan.encode(images[:0]).shape == (0, 4)
    assert vqgan.decode(together[:0]).shape == (0, 8, 8, 3)


def test_each_shape_compiles_once(vqgan, rng):
    images = rng.random((5, 4, 8, 3), dtype=np.float32)
    ids = vqgan.encode(images)
    vqgan.decode(ids, (1, 2))
    programs = jit_apply._apply._cache_size()
    vqgan.decode(vqgan.encode(1 - images), (1, 2))
    # Not even for another model of the same config.
    other = PretrainedVqgan(vqgan.config, jax.tree.map(lambda x: 0.5 * x, vqgan.params))
    assert (other.decode(other.encode(images), (1, 2)) != vqgan.decode(ids, (1, 2))).any()
    assert jit_apply._apply._cache_size() == programs


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"images are \[8, 8, 3\]; expected \[B, H, W, 3\]"),
        (np.zeros((1, 3, 8, 8), np.float32), "channels last"),
        (np.zeros((1, 8, 8, 3), np.uint8), "uint8; expected float32 .* divide bytes by 255"),
        (np.zeros((1, 8, 10, 3), np.float32), "8x10 pixels; expected multiples of 4"),
        (np.zeros((1, 0, 8, 3), np.float32), "0x8 pixels"),
        (np.full((1, 8, 8, 3), np.nan, np.float32), "not finite"),
        (np.full((1, 8, 8, 3), 1.5, np.float32), "from 1.5 to 1.5; expected 0 to 1"),
        (np.full((1, 8, 8, 3), -0.5, np.float32), "from -0.5"),
    ],
)
def test_wrong_images_are_named(vqgan, images, message):
    with pytest.raises(InputError, match=message) as caught:
        vqgan.encode(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[0, 5, 13, 0]], r"ids\[0, 2\] is 13; expected 0 to 12"),
        ([[0, 0, 0, 0], [-1, 0, 0, 0]], r"ids\[1, 0\] is -1"),
        ([0, 1], r"int64\[2\]; expected int32\[B, n\]"),
        ([[0.5]], "float64"),
        ([[]], r"expected int32\[B, n\]"),
    ],
)
def test_wrong_ids_are_named(vqgan, ids, message):
    with pytest.raises(InputError, match=message):
        vqgan.decode(np.array(ids))


def test_no_ids_at_all_are_no_square(vqgan):
    with pytest.raises(InputError, match="0 ids, not a square"):
        vqgan.decode(np.zeros((2, 0), np.int32))


def test_bfloat16_decodes_alike(vqgan, folder, rng):
    ids = rng.integers(0, 13, (2, 4))
    exact = np.asarray(vqgan.decode(ids))
    near = np.asarray(rudolph_jax.load_vqgan(folder, Compute(dtype="bfloat16")).decode(ids))
    assert 0 < np.abs(near - exact).max() < 0.05
