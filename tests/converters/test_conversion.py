"""torch -> ours -> torch: nothing left over, every tensor back bit for bit, files too."""

import json
import math

import jax
import numpy as np
import pytest
from foreign import hf_folder

import clip_jax
from clip_jax import model_folder
from converters import convert, export, hf_clip, safetensors_file, torch_file
from converters.__main__ import main
from converters.weights import open_weights


def assert_bit_equal(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def check_report(folder, tensors):
    """Check that every source tensor has one entry, and every parameter is some entry's target."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [entry["source"] for entry in report["tensors"]] == list(tensors)
    for entry in report["tensors"]:
        source = tensors[entry["source"]]
        assert entry["source_shape"] == list(source.shape)
        assert entry["source_dtype"] == str(source.dtype)
        assert ("skipped" in entry) != ("target" in entry)
    shapes = {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(model_folder.read_params(folder))
    }
    targets = {e["target"]: tuple(e["target_shape"]) for e in report["tensors"] if "target" in e}
    assert targets == shapes
    assert report["parameters"] == sum(math.prod(shape) for shape in shapes.values())


def test_ruclip(tmp_path, goldens, capsys):
    source = goldens / "ruclip"
    tensors = torch_file.read(source / "pytorch_model.bin")
    assert main(["ruclip", str(source), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.startswith("ruclip: 62 tensors, 579,585 parameters")
    check_report(tmp_path / "ours", tensors)
    clip = clip_jax.load(tmp_path / "ours")
    assert clip.config.text.vocab_size == 700 and clip.config.vision.heads == 2
    assert clip.config.image.resample == "bilinear"

    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    back = tmp_path / "back"
    assert {p.name for p in back.iterdir()} == {"bpe.model", "config.json", "pytorch_model.bin"}
    assert_bit_equal(torch_file.read(back / "pytorch_model.bin"), tensors)
    assert json.loads((back / "config.json").read_text()) == json.loads(
        (source / "config.json").read_text()
    )
    old, new = ((folder / "bpe.model").read_text().split("\n") for folder in (source, back))
    assert sorted(new) == sorted(old) and new[50:] == old[50:]  # 49 characters, in any order


def test_openai_clip(tmp_path, goldens):
    tensors = torch_file.read(goldens / "openai_clip_vit" / "model.pt")
    convert("openai-clip", goldens / "openai_clip_vit", tmp_path / "ours")
    check_report(tmp_path / "ours", tensors)
    config = clip_jax.load(tmp_path / "ours").config
    assert (config.bos_id, config.eos_id, config.pad_id) == (148, 149, 0)
    assert (config.image.resample, config.image.crop) == ("bicubic", "resize_then_crop")
    export(tmp_path / "ours", tmp_path / "back")
    assert_bit_equal(torch_file.read(tmp_path / "back" / "model.pt"), tensors)
    # What was written converts again, as a file rather than a folder, and tells its activation.
    convert("openai-clip", tmp_path / "back" / "model.pt", tmp_path / "again")
    once, twice = (model_folder.read_params(tmp_path / name) for name in ("ours", "again"))
    jax.tree.map(np.testing.assert_array_equal, once, twice)


@pytest.mark.parametrize("layout", ["safetensors", "safetensors-sharded", "bin", "bin-sharded"])
def test_hf_clip(tmp_path, small_config, layout):
    source = hf_folder(tmp_path / "hf", small_config, layout)
    tensors = open_weights(source, hf_clip.WEIGHTS).tensors
    convert("hf-clip", source, tmp_path / "ours")
    check_report(tmp_path / "ours", tensors)
    config = clip_jax.load(tmp_path / "ours").config
    assert (config.vision, config.text) == (small_config.vision, small_config.text)
    assert (config.bos_id, config.eos_id, config.pad_id) == (58, 59, 1)
    assert config.image.mean == (0.1, 0.2, 0.3)
    assert (tmp_path / "ours" / "merges.txt").exists()

    export(tmp_path / "ours", tmp_path / "back")
    found = safetensors_file.read(tmp_path / "back" / "model.safetensors")
    assert_bit_equal({name: found[name] for name in tensors}, tensors)
    assert len(found) == len(tensors)
    for name in ("config.json", "preprocessor_config.json", "vocab.json", "merges.txt"):
        old, new = ((folder / name).read_text() for folder in (source, tmp_path / "back"))
        assert new == old or json.loads(new) == json.loads(old)


def test_youtokentome_alone(tmp_path, goldens):
    source = goldens / "tokenizer" / "bpe.model"
    convert("youtokentome", source, tmp_path / "ours")
    assert clip_jax.load_tokenizer(tmp_path / "ours").vocab_size == 700
    assert (tmp_path / "ours" / "report.json").exists()
    export(tmp_path / "ours", tmp_path / "back")
    assert sorted((tmp_path / "back" / "bpe.model").read_text()) == sorted(source.read_text())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_parameter_dtypes(tmp_path, goldens, dtype):
    convert("openai-clip", goldens / "openai_clip_vit", tmp_path / "ours", dtype)
    params = model_folder.read_params(tmp_path / "ours")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {dtype}


def test_provenance_names_the_files(tmp_path, goldens):
    convert("ruclip", goldens / "ruclip", tmp_path / "ours")
    provenance = model_folder.read_config(tmp_path / "ours")["provenance"]
    assert provenance["converted_from"] == "ruclip"
    names = [file["name"] for file in provenance["files"]]
    assert names == ["pytorch_model.bin", "config.json", "bpe.model"]
    assert provenance["files"][0]["bytes"] == 2340993
    assert len(provenance["files"][0]["sha256"]) == 64


def ours(tmp_path, goldens, **changes):
    """The golden ruCLIP as if it had been trained here."""
    convert("ruclip", goldens / "ruclip", tmp_path / "converted")
    about = model_folder.read_config(tmp_path / "converted")
    return model_folder.write_model_folder(
        tmp_path / "trained",
        kind="clip",
        config=about["config"] | changes,
        params=model_folder.read_params(tmp_path / "converted"),
        files={"tokenizer.model": (tmp_path / "converted" / "tokenizer.model").read_bytes()},
        provenance={"trained": "here"},
    )


def test_a_model_trained_here_becomes_ruclip_files(tmp_path, goldens):
    summary = export(ours(tmp_path, goldens), tmp_path / "back")
    assert (summary.kind, summary.tensors) == ("ruclip", 62)
    found = torch_file.read(tmp_path / "back" / "pytorch_model.bin")
    expected = torch_file.read(goldens / "ruclip" / "pytorch_model.bin")
    assert_bit_equal({name: found[name] for name in expected}, expected)
    convert("ruclip", tmp_path / "back", tmp_path / "again")


def test_what_ruclip_cannot_build_is_not_exported(tmp_path, goldens, capsys):
    folder = ours(tmp_path, goldens, activation="gelu")
    assert main(["export", str(folder), str(tmp_path / "back")]) == 2
    assert "activation is gelu, ruclip makes it quick_gelu" in capsys.readouterr().err
    assert not (tmp_path / "back").exists()
