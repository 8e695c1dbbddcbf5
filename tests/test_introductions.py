"""Loaded objects say what they are, modules list public names, `load` takes names and dtypes."""

import dataclasses
import importlib.metadata
import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

import clip_jax
import converters
import rudolph_jax
from clip_jax import Compute, InputError
from clip_jax.model import Clip
from clip_jax.released import GROUP
from converters import released
from converters.hub_errors import UnreachableError

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
RUCLIP = "ruclip-vit-base-patch32-384"


@pytest.fixture(scope="module")
def folders(goldens, tmp_path_factory):
    """Model folders by kind, of recorded checkpoints."""
    home = tmp_path_factory.mktemp("models")
    for kind, name in (("ruclip", "ruclip"), ("rudolph", "rudolph_v2"), ("vqgan", "vqgan"),
                       ("real-esrgan", "real_esrgan_x4")):  # fmt: skip
        converters.convert(kind, goldens / name, home / kind)
    return home


@pytest.fixture(scope="module")
def clip(folders):
    return clip_jax.load(folders / "ruclip")


@pytest.fixture(scope="module")
def rudolph(folders):
    return rudolph_jax.load(folders / "rudolph")


@pytest.fixture(scope="module")
def vqgan(folders):
    return rudolph_jax.load_vqgan(folders / "vqgan")


def count(params):
    return sum(np.size(leaf) for leaf in jax.tree.leaves(params))


def test_models_introduce_themselves_in_two_lines(clip, rudolph, vqgan):
    pieces = clip.processor.tokenizer.vocab_size
    for model, words in (
        (clip, ("PretrainedClip(", "images of", f"tokenizer of {pieces:,} pieces")),
        (rudolph, ("PretrainedRudolph(", "no tokenizer", "no image tokenizer", "of right text")),
        (vqgan, ("PretrainedVqgan(", "codes, one to", "plain decoder")),
    ):
        said = repr(model)
        assert len(said.splitlines()) == 2 and max(map(len, said.splitlines())) <= 120
        size, device = f"{count(model.params):,} parameters", f"on {jax.devices()[0]}"
        for word in (*words, size, "float32", device):
            assert word in said, (word, said)
        assert "object at" not in said


def test_a_preset_is_named_and_another_size_is_not(clip):
    preset = clip_jax.PRESETS["tiny"]
    ids = np.zeros((1, preset.text.context_length), np.int32)
    pixels = np.zeros((1, 32, 32, 3), np.float32)
    params = jax.jit(Clip(preset).init)(jax.random.key(0), ids, pixels)["params"]
    half = Compute(dtype="bfloat16")
    said = repr(clip_jax.PretrainedClip(preset, params, None, half))
    assert said.startswith(f"PretrainedClip(tiny, {count(params):,} parameters")
    assert "stored as float32, computing in bfloat16" in said and "no tokenizer" in said
    other = dataclasses.replace(preset, lowercase=False)
    assert "tiny" not in repr(clip_jax.PretrainedClip(other, params))


def test_quantized_weights_count_as_the_parameters_they_stand_for(folders, rudolph):
    small = rudolph_jax.load(folders / "rudolph", weights="int8")
    said = repr(small)
    assert f"{count(rudolph.params):,} parameters" in said and "float32 and int8" in said


def test_parts_introduce_themselves_in_one_line(clip):
    tokenizer, predictor = clip.processor.tokenizer, clip_jax.Predictor(clip, ["{}", "фото: {}"])
    for part, words in (
        (tokenizer, ("Tokenizer(", f"{tokenizer.vocab_size:,} pieces", "eos_id=3")),
        (clip.processor, ("Processor(", "pixels", f"tokenizer of {tokenizer.vocab_size:,} pieces")),
        (predictor, ("Predictor(2 templates", "batch_size=8", "PretrainedClip(")),
    ):
        assert "\n" not in repr(part)
        for word in words:
            assert word in repr(part), (word, repr(part))


@pytest.mark.parametrize("module", [clip_jax, rudolph_jax])
def test_dir_lists_public_names_alone(module):
    shown = [name for name in dir(module) if not name.startswith("__")]
    assert shown == sorted(module.__all__)
    assert {"__all__", "__doc__", "__file__", "__name__"} <= set(dir(module))
    for name in shown:
        assert getattr(module, name) is not None
    # Submodules are importable all the same.
    from clip_jax import search
    from rudolph_jax import image_to_text

    assert search.list_images and image_to_text.answer


def test_dtype_is_short_for_compute(folders):
    for load, name in (
        (clip_jax.load, "ruclip"), (rudolph_jax.load, "rudolph"), (rudolph_jax.load_vqgan, "vqgan"),
        (rudolph_jax.load_upscaler, "real-esrgan"),
    ):  # fmt: skip
        folder, half = folders / name, Compute(dtype="bfloat16")
        assert load(folder).compute == Compute()
        assert load(folder, dtype="bfloat16").compute == half
        assert load(folder, compute=half, dtype="bfloat16").compute == half
        remat = Compute(dtype="bfloat16", remat="block")
        assert load(folder, compute=remat, dtype="bfloat16").compute == remat
        with pytest.raises(InputError, match="dtype is 'float32', but compute.dtype is 'bfloat16'"):
            load(folder, compute=half, dtype="float32")
        with pytest.raises(InputError, match="dtype is 'int4'; expected one of float32, bfloat16"):
            load(folder, dtype="int4")
    clip = clip_jax.load(folders / "ruclip", dtype="bfloat16")
    image = np.zeros((1, *[clip.config.vision.image_size] * 2, 3), np.float32)
    assert clip.encode_image(image).shape == (1, clip.config.embed_dim)


@pytest.fixture
def sources(monkeypatch):
    """Installs entry points as pyproject.toml states them; an editable install may be older."""
    stated = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]
    entries = [importlib.metadata.EntryPoint(*item, GROUP) for item in stated.items()]
    monkeypatch.setattr("clip_jax.released.entry_points", lambda group: entries)
    monkeypatch.setattr(released, "newest_cached", lambda name: None)
    return entries


def test_a_released_model_loads_by_its_name(folders, sources, monkeypatch):
    asked = []
    monkeypatch.setattr(
        released, "pretrained", lambda name: asked.append(name) or folders / kind_of(name)
    )
    assert clip_jax.load(RUCLIP).kind == "clip"
    assert repr(rudolph_jax.load("rudolph-350M")).startswith("PretrainedRudolph(")
    assert rudolph_jax.load_vqgan("vqgan-gumbelf8").config.codebook_size
    assert rudolph_jax.load_upscaler("real-esrgan-x4").scale == 4
    assert asked == [RUCLIP, "rudolph-350M", "vqgan-gumbelf8", "real-esrgan-x4"]


def kind_of(name):
    return name.removesuffix("-x4") if name.startswith("real") else name.partition("-")[0]


def test_a_folder_of_that_name_comes_first(folders, sources, monkeypatch, tmp_path):
    monkeypatch.setattr(released, "pretrained", lambda name: pytest.fail("asked the hub"))
    (tmp_path / RUCLIP).symlink_to(folders / "ruclip")
    monkeypatch.chdir(tmp_path)
    assert clip_jax.load(RUCLIP).kind == "clip"
    for path in (f"./{RUCLIP}/absent", "openai/clip", "", "~", Path(RUCLIP + "-absent")):
        with pytest.raises(InputError, match="not a model folder"):
            clip_jax.load(path)


def test_an_unknown_name_says_what_is_known_and_asks_nobody(sources, monkeypatch):
    monkeypatch.setattr(released, "pretrained", lambda name: pytest.fail("asked the hub"))
    near = r"not a model folder; no released model has this name: did you mean ruclip-vit-base-p"
    with pytest.raises(InputError, match=near) as caught:
        clip_jax.load("ruclip-vit-base-patch32-38")
    assert RUCLIP in str(caught.value) and "rudolph-350M" not in str(caught.value)
    with pytest.raises(InputError, match="known are vqgan-gumbelf8, vqgan-gumbelf8-dwt$"):
        rudolph_jax.load_vqgan("nothing of the kind")
    with pytest.raises(InputError, match="is of kind 'rudolph'; expected 'clip'"):
        clip_jax.load("rudolph-350M")


def test_without_a_network_the_error_says_how_to_get_it(sources, monkeypatch):
    def pretrained(name):
        raise UnreachableError("ai-forever/x: HF_HUB_OFFLINE is set, and it is not in the cache")

    monkeypatch.setattr(released, "pretrained", pretrained)
    wanted = f"HF_HUB_OFFLINE is set.*copy the folder that python -m converters pretrained {RUCLIP}"
    with pytest.raises(InputError, match=wanted) as caught:
        clip_jax.load(RUCLIP)
    assert "\n" not in str(caught.value)


def test_without_entry_points_a_name_is_a_missing_folder(monkeypatch):
    monkeypatch.setattr("clip_jax.released.entry_points", lambda group: [])
    with pytest.raises(InputError, match=re.escape(f"{RUCLIP}: not a model folder")):
        clip_jax.load(RUCLIP)


def test_every_published_model_has_a_loader():
    kinds = {model.kind for model in released.PUBLISHED_MODELS.values()}
    assert kinds == set(released.LOADERS)
