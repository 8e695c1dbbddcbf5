"""Exported functions, run by a process that has JAX and none of our packages."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

import clip_jax
import rudolph_jax
from clip_jax.layers import unstack_layers
from converters import convert, safetensors_file
from converters.__main__ import main
from converters.stablehlo import jax_export
from rudolph_jax.layout import Layout
from rudolph_jax.model import abstract_params
from rudolph_jax.vqgan import abstract_params as abstract_vqgan_params

# folders -> outputs; each folder holds what was exported and `cases.npz`: name/input/i -> array.
STRANGER = """
import json, sys
from pathlib import Path
for name in ("clip_jax", "rudolph_jax", "converters", "experiments", "flax"):
    sys.modules[name] = None
import numpy as np
from jax import export
from safetensors.numpy import load_file

for folder in map(Path, sys.argv[1:]):
    signature = json.loads((folder / "signature.json").read_text())
    params = load_file(folder / signature["params"])
    cases, found = np.load(folder / "cases.npz"), {}
    for case in sorted({name.rpartition("/")[0] for name in cases.files}):
        about = signature["functions"][case.partition("/")[0]]
        function = export.deserialize((folder / about["file"]).read_bytes())
        inputs = [cases[f"{case}/{i}"] for i in range(len(about["inputs"]))]
        outputs = function.call(params, *inputs)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        assert len(outputs) == len(about["outputs"])
        found |= {f"{case}/{i}": np.asarray(array) for i, array in enumerate(outputs)}
    np.savez(folder / "found.npz", **found)
"""


def random(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape)), tree)


@pytest.fixture(scope="module")
def models(tmp_path_factory, goldens):
    home = tmp_path_factory.mktemp("exported")
    convert("ruclip", goldens / "ruclip", home / "clip")
    config = rudolph_jax.RudolphConfig(
        left_text_length=4, image_tokens_per_side=3, right_text_length=4, text_vocab_size=11,
        image_vocab_size=17, width=16, layers=3, heads=2, kernel_size=3, last_kernel_size=3,
    )  # fmt: skip
    params = random(unstack_layers(abstract_params(config)))
    rudolph_jax.PretrainedRudolph(config, params).save(home / "rudolph")
    config = rudolph_jax.VqganConfig(
        channels=8, channel_multipliers=(1, 2), residual_blocks=1, attention_levels=(1,),
        latent_channels=8, codebook_size=17, norm_groups=4,
    )  # fmt: skip
    rudolph_jax.PretrainedVqgan(config, random(abstract_vqgan_params(config))).save(home / "vqgan")
    for kind in ("clip", "rudolph", "vqgan"):
        assert main(["jax-export", str(home / kind), str(home / f"{kind}-export")]) == 0
        assert main(["verify", str(home / f"{kind}-export")]) == 0
    return home


def ask(home, cases):
    """Run the cases in a process without this package: kind -> {FUNCTION/NAME/i: input}."""
    folders = [home / f"{kind}-export" for kind in cases]
    for folder, arrays in zip(folders, cases.values(), strict=True):
        np.savez(folder / "cases.npz", **arrays)
    command = [sys.executable, "-I", "-c", STRANGER, *map(str, folders)]
    subprocess.run(command, cwd=home, check=True)
    return [dict(np.load(folder / "found.npz")) for folder in folders]


def test_a_stranger_runs_them(models, rng):
    clip = clip_jax.load(models / "clip")
    rudolph = rudolph_jax.load(models / "rudolph")
    vqgan = rudolph_jax.load_vqgan(models / "vqgan")
    side, layout = clip.config.vision.image_size, Layout(rudolph.config)
    pixels = np.float32(rng.normal(size=(3, side, side, 3)))
    texts = clip.processor(text=["кошка", "собака на траве"])["input_ids"]
    ids = rng.integers(1, 11, (2, layout.sequence_length), dtype=np.int32)
    codes = rng.integers(0, 17, (2, 6), dtype=np.int32)
    shape = (3, 2, 2, layout.image.stop, 8)
    empty = np.zeros(shape, np.float32)
    clip_found, rudolph_found, vqgan_found = ask(
        models,
        {
            "clip": {"image/one/0": pixels[:1], "image/all/0": pixels, "text/all/0": texts},
            "rudolph": {
                "logits/all/0": ids, "prompt/all/0": ids[:, : layout.left.stop],
                "step/all/0": empty, "step/all/1": empty, "step/all/2": ids[:, 4],
                "step/all/3": np.int32(0),
            },
            "vqgan": {"decode/all/0": codes.reshape(2, 2, 3)},
        },
    )  # fmt: skip

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)

    close(clip_found["image/all/0"], clip.encode_image(pixels))
    close(clip_found["image/one/0"], clip.encode_image(pixels[:1]))
    close(clip_found["text/all/0"], clip.encode_text(texts))
    close(vqgan_found["decode/all/0"], vqgan.decode(codes, (2, 3)))
    whole = np.asarray(rudolph.logits(ids))
    close(rudolph_found["logits/all/0"], whole)
    first = whole[:, layout.left.stop - 1, layout.code_logits]
    close(rudolph_found["prompt/all/0"], first)
    assert rudolph_found["step/all/1"].shape == shape


@pytest.mark.slow  # compiles what the others do anew
def test_steps_with_caches_equal_the_whole(models, rng):
    rudolph = rudolph_jax.load(models / "rudolph")
    home, layout = models / "rudolph-export", Layout(rudolph.config)
    params = safetensors_file.read(home / "params.safetensors")
    prompt, step = (
        export.deserialize((home / f"{name}.stablehlo").read_bytes()) for name in ("prompt", "step")
    )
    assert step.platforms == ("cpu", "cuda", "tpu")
    ids = rng.integers(1, 11, (3, layout.sequence_length), dtype=np.int32)
    expected = np.asarray(rudolph.logits(ids))[:, layout.left.stop - 1 :, layout.code_logits]
    logits, keys, values = prompt.call(params, ids[:, : layout.left.stop])
    found = [logits]
    for place, code in enumerate(ids[:, layout.image].T[:-1]):
        logits, keys, values = step.call(params, keys, values, code, np.int32(place))
        found.append(logits)
    np.testing.assert_allclose(
        np.stack(found, 1), expected[:, : layout.image_length], rtol=1e-5, atol=2e-5
    )


@pytest.mark.slow
def test_the_first_ruclip(tmp_path, goldens, rng):
    convert("ruclip-small", goldens / "ruclip_small", tmp_path / "small")
    clip, out = clip_jax.load(tmp_path / "small"), jax_export(tmp_path / "small", tmp_path / "out")
    params = safetensors_file.read(out / "params.safetensors")
    shape = (2, clip.config.vision.image_size, clip.config.vision.image_size, 3)
    pixels = np.float32(rng.normal(size=shape))
    ids = rng.integers(3, 60, (2, clip.config.prompt_length), dtype=np.int32)
    ids[:, 7:] = clip.config.eos_id
    for name, inputs, expected in (
        ("image", pixels, clip.encode_image(pixels)), ("text", ids, clip.encode_text(ids)),
    ):  # fmt: skip
        function = export.deserialize((out / f"{name}.stablehlo").read_bytes())
        np.testing.assert_allclose(function.call(params, inputs), expected, atol=2e-5)


def test_what_has_no_functions(tmp_path, goldens, capsys):
    convert("youtokentome", goldens / "tokenizer", tmp_path / "words")
    assert main(["jax-export", str(tmp_path / "words"), str(tmp_path / "out")]) == 2
    assert "a model of kind 'tokenizer'; expected clip" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_signature(models):
    signature = json.loads((models / "clip-export" / "signature.json").read_text())
    assert signature["functions"]["text"]["inputs"]["input_ids"]["dtype"] == "int32"
    assert signature["platforms"] == ["cpu", "cuda", "tpu"] and signature["kind"] == "clip"
    with pytest.raises(clip_jax.InputError, match="already exists"):
        jax_export(models / "clip", models / "clip-export")
