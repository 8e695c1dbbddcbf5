"""RUDOLPH there and back: recorded logits, every tensor bit for bit, the original's files."""

import json
import shutil

import jax
import numpy as np
import pytest
from decoders import change_tensors, copied

import rudolph_jax
from clip_jax import model_folder
from converters import convert, export, safetensors_file, torch_file
from converters.__main__ import main
from rudolph_jax.config import PRESETS, RudolphConfig

NAMES = ("rudolph_v1", "rudolph_v2", "rudolph_plain")
MASKS = [f"transformer.{name}_mask" for name in ("row", "col", "conv", "last_conv")]


def tensors_of(folder):
    return torch_file.read(folder / "pytorch_model.bin")


def assert_bit_equal(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def assert_same_params(one, other):
    both = (model_folder.read_params(folder) for folder in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *both)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_logits(tmp_path, goldens, name):
    summary = convert("rudolph", goldens / name, tmp_path / "ours")
    assert summary.tensors == len(tensors_of(goldens / name))
    recorded = np.load(goldens / name / "outputs.npz")
    logits = rudolph_jax.load(tmp_path / "ours").logits(recorded["input_ids"])
    expected = recorded["logits"]
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(tmp_path, goldens, name, capsys):
    source = goldens / name
    assert main(["rudolph", str(source), str(tmp_path / "ours")]) == 0
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    capsys.readouterr()
    back = tmp_path / "back"
    assert {file.name for file in back.iterdir()} == {"config.json", "pytorch_model.bin"}
    assert_bit_equal(tensors_of(back), tensors_of(source))
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (source, back))
    assert new == old and list(new) == list(old)


def test_the_report_says_what_became_of_each_tensor(tmp_path, goldens):
    source = goldens / "rudolph_v2"
    convert("rudolph", source, tmp_path / "ours")
    report = json.loads((tmp_path / "ours" / "report.json").read_text())
    assert [entry["source"] for entry in report["tensors"]] == list(tensors_of(source))
    assert report["config_from"] == "config.json"
    skipped = {e["source"]: e["skipped"] for e in report["tensors"] if "skipped" in e}
    assert list(skipped) == MASKS
    reason = "the mask of last_conv attention, which follows from the config"
    assert skipped[MASKS[-1]] == reason
    targets = {e["target"] for e in report["tensors"] if "target" in e}
    assert {"left_position_embedding", "layers/7/mlp_out_norm/bias", "head/kernel"} <= targets
    params = model_folder.read_params(tmp_path / "ours")
    assert report["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params)) == 313686


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_masks_of_numbers(tmp_path, goldens, dtype):
    """Make them as `is_bool_mask=False` does and `FP16Module` saves them."""
    source = copied(goldens / "rudolph_plain", tmp_path / "source", is_bool_mask=False)

    def change(tensors):
        tensors |= {name: tensor.astype(dtype) for name, tensor in tensors.items()}

    change_tensors(source, change)
    convert("rudolph", source, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "back")
    assert_bit_equal(tensors_of(tmp_path / "back"), tensors_of(source))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["is_bool_mask"] is False


def test_without_mask_buffers(tmp_path, goldens):
    source = copied(goldens / "rudolph_plain", tmp_path / "source")
    change_tensors(source, lambda tensors: [tensors.pop(name) for name in MASKS])
    convert("rudolph", source, tmp_path / "ours")
    convert("rudolph", goldens / "rudolph_plain", tmp_path / "with")
    assert_same_params(tmp_path / "ours", tmp_path / "with")
    export(tmp_path / "ours", tmp_path / "back")
    assert_bit_equal(tensors_of(tmp_path / "back"), tensors_of(source))


def test_other_files_with_the_same_tensors(tmp_path, goldens):
    """safetensors, shards, a lone file of any name: what lies beside it is read too."""
    convert("rudolph", goldens / "rudolph_v1", tmp_path / "ours")
    tensors = {name: np.array(t) for name, t in tensors_of(goldens / "rudolph_v1").items()}
    for layout in ("model.safetensors", "shards", "rudolph.ckpt"):
        source = copied(goldens / "rudolph_v1", tmp_path / layout, without=["pytorch_model.bin"])
        named = source
        if layout == "shards":
            places = {name: f"{i % 2}.safetensors" for i, name in enumerate(tensors)}
            for shard in ("0.safetensors", "1.safetensors"):
                held = {name: t for name, t in tensors.items() if places[name] == shard}
                safetensors_file.write(source / shard, held)
            index = source / "model.safetensors.index.json"
            index.write_text(json.dumps({"weight_map": places}))
        elif layout == "model.safetensors":
            safetensors_file.write(source / layout, tensors)
        else:
            named = source / layout
            shutil.copy(goldens / "rudolph_v1" / "pytorch_model.bin", named)
        convert("rudolph", named, tmp_path / f"{layout}.ours")
        assert_same_params(tmp_path / f"{layout}.ours", tmp_path / "ours")


def test_the_vocabulary_goes_along(tmp_path, goldens):
    source = copied(goldens / "rudolph_v2", tmp_path / "source")
    shutil.copy(goldens / "tokenizer" / "bpe.model", source)
    convert("rudolph", source, tmp_path / "ours")
    assert rudolph_jax.load(tmp_path / "ours").tokenizer.vocab_size == 700
    export(tmp_path / "ours", tmp_path / "back")
    old, new = ((folder / "bpe.model").read_text() for folder in (source, tmp_path / "back"))
    assert sorted(new) == sorted(old)


@pytest.mark.parametrize("activation", ["gelu", "gelu_jit"])
def test_both_gelus_are_the_same_and_keep_their_name(tmp_path, goldens, activation):
    source = copied(goldens / "rudolph_plain", tmp_path / "source", mlp_activation=activation)
    convert("rudolph", source, tmp_path / "ours")
    assert model_folder.read_config(tmp_path / "ours")["config"]["activation"] == "gelu_tanh"
    export(tmp_path / "ours", tmp_path / "back")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert back["mlp_activation"] == activation


def test_the_constructor_s_other_arguments_and_a_hub_s_keys_are_ignored(tmp_path, goldens):
    extra = {"device": "cuda", "gradient_checkpointing": 6, "architectures": ["x"]}
    source = copied(goldens / "rudolph_v1", tmp_path / "source", **extra)
    convert("rudolph", source, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "back")
    assert extra.items() <= json.loads((tmp_path / "back" / "config.json").read_text()).items()


def test_absent_arguments_are_the_constructor_s_defaults(tmp_path, goldens):
    dropped = ("text_special_tokens", "cogview_pb_relax", "cogview_sandwich_layernorm")
    changes = dict.fromkeys(dropped, "drop")
    source = copied(goldens / "rudolph_v1", tmp_path / "source", **changes)
    convert("rudolph", source, tmp_path / "ours")
    config = rudolph_jax.load(tmp_path / "ours").config
    assert config.text_special_tokens == 0 and config.pb_relax and config.sandwich_norm


def test_an_even_kernel_reaches_as_far_as_the_next_odd_one(tmp_path, goldens):
    source = copied(goldens / "rudolph_v1", tmp_path / "source", kernel_size=2, last_kernel_size=4)
    convert("rudolph", source, tmp_path / "ours")
    config = rudolph_jax.load(tmp_path / "ours").config
    assert (config.kernel_size, config.last_kernel_size) == (3, 5)
    export(tmp_path / "ours", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["kernel_size"] == 2


def test_without_a_config_the_sizes_name_a_published_model(tmp_path, goldens, monkeypatch):
    """The recorded model as if it were the published 350M."""
    convert("rudolph", goldens / "rudolph_v2", tmp_path / "ours")
    about = model_folder.read_config(tmp_path / "ours")
    monkeypatch.setitem(PRESETS, "350M", RudolphConfig.from_dict(about["config"]))
    source = copied(goldens / "rudolph_v2", tmp_path / "source", without=["config.json"])
    for preset in (None, "350M"):
        convert("rudolph", source, tmp_path / f"{preset}", preset=preset)
        assert model_folder.read_config(tmp_path / f"{preset}")["config"] == about["config"]
        assert_same_params(tmp_path / f"{preset}", tmp_path / "ours")
    report = json.loads((tmp_path / "None" / "report.json").read_text())
    assert report["config_from"].startswith("preset 350M, which has the sizes")
    # The way back writes the config that was missing.
    export(tmp_path / "None", tmp_path / "back")
    assert_bit_equal(tensors_of(tmp_path / "back"), tensors_of(source))
    convert("rudolph", tmp_path / "back", tmp_path / "again")
    assert model_folder.read_config(tmp_path / "again")["config"] == about["config"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_parameter_dtypes(tmp_path, goldens, dtype):
    convert("rudolph", goldens / "rudolph_plain", tmp_path / "ours", dtype)
    params = model_folder.read_params(tmp_path / "ours")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {dtype}


def trained_here(tmp_path, golden, kind="rudolph", **changes):
    """A recorded model as if it had been trained here."""
    convert(kind, golden, tmp_path / "converted")
    about = model_folder.read_config(tmp_path / "converted")
    return model_folder.write_model_folder(
        tmp_path / "trained",
        kind="rudolph",
        config=about["config"] | changes,
        params=model_folder.read_params(tmp_path / "converted"),
        provenance={"trained": "here"},
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_trained_here_becomes_rudolph_s_files(tmp_path, goldens, name):
    summary = export(trained_here(tmp_path, goldens / name), tmp_path / "back")
    assert summary.kind == "rudolph"
    expected = tensors_of(goldens / name)
    found = tensors_of(tmp_path / "back")
    # The original loads strictly, so the masks are there, as booleans.
    assert_bit_equal({name: found[name] for name in expected}, expected)
    assert set(found) == set(expected)
    convert("rudolph", tmp_path / "back", tmp_path / "again")
    assert_same_params(tmp_path / "again", tmp_path / "trained")
    configs = [model_folder.read_config(tmp_path / f)["config"] for f in ("again", "trained")]
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"activation": "gelu"}, "activation gelu_tanh, not gelu"),
        ({"embedding_gradient_scale": 1.0}, "embedding_gradient_scale 0.1, not 1.0"),
        ({"conv_edges": "wrap"}, "conv_edges clamp, not wrap"),
    ],
)
def test_what_rudolph_cannot_build_is_not_exported(tmp_path, goldens, capsys, changes, expected):
    folder = trained_here(tmp_path, goldens / "rudolph_plain", **changes)
    assert main(["export", str(folder), str(tmp_path / "back")]) == 2
    assert f"rudolph cannot build this model: its arguments would make it {expected}" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "back").exists()


@pytest.mark.torch
def test_torch_reads_what_is_exported(tmp_path, goldens):
    import torch

    convert("rudolph", goldens / "rudolph_v2", tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "back")
    old, new = (
        torch.load(folder / "pytorch_model.bin", weights_only=True)
        for folder in (goldens / "rudolph_v2", tmp_path / "back")
    )
    assert list(new) == list(old)
    assert all(torch.equal(new[name], old[name]) for name in old)
    assert new[MASKS[0]].dtype == torch.bool
