"""Image tokenizers there and back: both published layouts, sizes read off the tensors."""

import json
import shutil

import jax
import numpy as np
import pytest

import rudolph_jax
from clip_jax import InputError, model_folder
from converters import convert, export, torch_file, torch_writer
from converters.__main__ import main
from rudolph_jax import VqganConfig
from rudolph_jax.image_tokenizer import PretrainedVqgan
from rudolph_jax.vqgan import abstract_params

NAMES = ("vqgan", "vqgan_dwt")
WRITTEN = {
    "vqgan": "vqgan.gumbelf8-sber.model.ckpt",
    "vqgan_dwt": "vqgan.gumbelf8-sber-dwt.model.ckpt",
}
UNUSED = ("model.post_quant_conv.weight", "model.post_quant_conv.bias")


def tensors_of(folder):
    (file,) = folder.glob("*.ckpt")
    return dict(torch_file.read(file))


def changed(tmp_path, source, change, config=None):
    """A folder with the source's tensors after `change(tensors)`."""
    folder = tmp_path / "changed"
    folder.mkdir()
    tensors = tensors_of(source)
    change(tensors)
    torch_writer.write(folder / "vqgan.model.ckpt", tensors, under="state_dict")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_bit_equal(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    shapes = abstract_params(config)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(tmp_path, goldens, name, capsys):
    source = goldens / name
    assert main(["vqgan", str(source), str(tmp_path / "ours")]) == 0
    tensors = tensors_of(source)
    assert f"{len(tensors)} tensors, " in capsys.readouterr().out
    report = json.loads((tmp_path / "ours" / "report.json").read_text(encoding="utf-8"))
    assert [entry["source"] for entry in report["tensors"]] == list(tensors)
    assert all(("skipped" in entry) != ("target" in entry) for entry in report["tensors"])

    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    back = tmp_path / "back"
    assert {file.name for file in back.iterdir()} == {WRITTEN[name], "config.json"}
    if name == "vqgan_dwt":
        # A strict load asks for the unused one too; its own values were not kept.
        for unused in UNUSED:
            tensors[unused] = tensors[unused.replace("model.", "model.decoder.")]
    assert_bit_equal(tensors_of(back), tensors)
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (source, back))
    assert new == old


@pytest.mark.parametrize("name", NAMES)
def test_sizes_come_from_the_tensors_alone(tmp_path, goldens, name):
    """A file without config.json beside it."""
    file = tmp_path / "a.ckpt"
    shutil.copy(goldens / name / "vqgan.model.ckpt", file)
    convert("vqgan", file, tmp_path / "ours")
    config = rudolph_jax.load_vqgan(tmp_path / "ours").config
    assert config == VqganConfig(
        channels=32,
        channel_multipliers=(1, 1, 1, 1),
        residual_blocks=1,
        attention_levels=(3,),
        latent_channels=32,
        codebook_size=96,
        wavelet=name == "vqgan_dwt",
    )
    export(tmp_path / "ours", tmp_path / "back")
    assert [file.name for file in (tmp_path / "back").iterdir()] == [WRITTEN[name]]


@pytest.mark.parametrize("wavelet", [False, True])
def test_other_sizes_and_a_model_trained_here(tmp_path, wavelet):
    config = VqganConfig(
        channels=32,
        channel_multipliers=(1, 3, 2),
        residual_blocks=2,
        attention_levels=(0, 2),
        latent_channels=20,
        codebook_size=50,
        wavelet=wavelet,
    )
    params = random_params(config)
    PretrainedVqgan(config, params).save(tmp_path / "trained", trained="here")
    summary = export(tmp_path / "trained", tmp_path / "back")
    assert summary.kind == "vqgan"
    names = set(tensors_of(tmp_path / "back"))
    assert "encoder.down.1.block.0.nin_shortcut.weight" in names or wavelet
    assert wavelet == ("model.decoder.idwt.g0_col" in names) == (set(UNUSED) <= names)
    convert("vqgan", tmp_path / "back", tmp_path / "again")
    again = rudolph_jax.load_vqgan(tmp_path / "again")
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), params)


def test_training_tensors_are_skipped_by_name_with_a_reason(tmp_path, goldens):
    extra = {
        "loss.discriminator.main.3.num_batches_tracked": np.array(7),
        "loss.perceptual_loss.lin0.model.1.weight": np.ones((1, 4, 1, 1), np.float32),
    }
    folder = changed(tmp_path, goldens / "vqgan", lambda tensors: tensors.update(extra))
    convert("vqgan", folder, tmp_path / "ours")
    report = json.loads((tmp_path / "ours" / "report.json").read_text(encoding="utf-8"))
    skipped = [entry for entry in report["tensors"] if "skipped" in entry]
    assert {entry["source"] for entry in skipped} == set(extra)
    assert all("training loss" in entry["skipped"] for entry in skipped)
    export(tmp_path / "ours", tmp_path / "back")
    assert_bit_equal(tensors_of(tmp_path / "back"), tensors_of(goldens / "vqgan"))
    convert("vqgan", goldens / "vqgan", tmp_path / "plain")
    both = (model_folder.read_params(tmp_path / name) for name in ("ours", "plain"))
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_only_the_wavelet_layout_has_an_unused_post_quant_conv(tmp_path, goldens):
    convert("vqgan", goldens / "vqgan_dwt", tmp_path / "ours")
    report = json.loads((tmp_path / "ours" / "report.json").read_text(encoding="utf-8"))
    skipped = {entry["source"] for entry in report["tensors"] if "skipped" in entry}
    filters = {f"model.decoder.idwt.{g}_{way}" for g in ("g0", "g1") for way in ("col", "row")}
    assert skipped == filters | set(UNUSED)
    params = model_folder.read_params(tmp_path / "ours")
    used = tensors_of(goldens / "vqgan_dwt")["model.decoder.post_quant_conv.weight"]
    np.testing.assert_array_equal(params["post_quant_conv"]["kernel"], used[:, :, 0, 0].T)


def test_whole_plain_model_keeps_its_prefix(tmp_path, goldens):
    """The state dict of VQGanGumbelVAE rather than of the model inside it."""

    def change(tensors):
        for name in list(tensors):
            tensors[f"model.{name}"] = tensors.pop(name)

    folder = changed(tmp_path, goldens / "vqgan", change)
    convert("vqgan", folder, tmp_path / "ours")
    assert not rudolph_jax.load_vqgan(tmp_path / "ours").config.wavelet
    export(tmp_path / "ours", tmp_path / "back")
    assert_bit_equal(tensors_of(tmp_path / "back"), tensors_of(folder))


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, *shape):
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vqgan", put("ema.decay"), "tensor 'ema.decay' is surplus"),
        ("vqgan", put("quantize.temperature", 1), "tensor 'quantize.temperature' is surplus"),
        ("vqgan", drop("quantize.embed.weight"), "'quantize.embed.weight' is missing"),
        ("vqgan", drop("decoder.up.2.block.1.conv2.bias"), "conv2.bias' is missing"),
        ("vqgan", drop("decoder.up.3.attn.1.q.weight"), "attn.1.q.weight' is missing"),
        ("vqgan", drop("encoder.down.1.block.0.conv1.weight"), "conv1.weight' is missing"),
        ("vqgan", put("encoder.down.1.block.1.norm1.weight", 32), r"\[1, 2\] blocks at a level"),
        ("vqgan", put("decoder.up.0.attn.0.norm.weight", 32), "attn.0.norm.weight' is surplus"),
        ("vqgan", put("encoder.conv_in.weight", 48, 3, 3, 3), "multiple of 48"),
        ("vqgan", put("encoder.conv_in.weight", 16, 3, 3, 3), r"16 channels; .* norm_groups"),
        ("vqgan", put("encoder.conv_in.weight", 0, 3, 3, 3), "encoder has 0 channels"),
        ("vqgan", put("encoder.conv_in.weight", 32, 1, 3, 3), r"asks for \[32, 3, 3, 3\]"),
        ("vqgan", put("encoder.conv_in.weight", 32), "expected 4 axes"),
        ("vqgan", put("quantize.embed.weight", 96, 33), r"asks for"),
        ("vqgan", drop("encoder.conv_in.weight"), "no tensor 'encoder.conv_in.weight'"),
        ("vqgan_dwt", put("model.decoder.idwt.g0_col", 1, 1, 2, 1), "idwt.g0_col'"),
        ("vqgan_dwt", put("model.decoder.conv_in.weight", 1), "conv_in.weight' is surplus"),
        ("vqgan_dwt", put("model.decoder.decoder.conv_out.weight", 3, 32, 3, 3), r"\[12, 32"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, goldens, name, change, message):
    folder = changed(tmp_path, goldens / name, change)
    with pytest.raises(InputError, match=message) as caught:
        convert("vqgan", folder, tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("params", "n_embed", 128, "n_embed is 128; the tensors say 96"),
        ("params", "embed_dim", None, "has no embed_dim"),
        ("ddconfig", "ch_mult", [1, 1, 1, 2], r"ch_mult is \[1, 1, 1, 2\]; the tensors say \[1, 1"),
        ("ddconfig", "attn_resolutions", [16], r"attention at levels \[2\]; the tensors say \[3\]"),
        ("ddconfig", "attn_resolutions", 8, "not a number and a list"),
        ("ddconfig", "double_z", True, "double_z is True"),
        ("model", "params", None, "no object 'params'"),
        ("top", "model", None, "no object 'model'; .* move the file away"),
    ],
)
def test_a_config_that_contradicts_the_tensors(tmp_path, goldens, where, key, value, message):
    config = json.loads((goldens / "vqgan" / "config.json").read_text())
    params = config["model"]["params"]
    part = {"top": config, "model": config["model"], "params": params}
    (part | {"ddconfig": params["ddconfig"]})[where][key] = value
    folder = changed(tmp_path, goldens / "vqgan", lambda tensors: None, config)
    with pytest.raises(InputError, match=message) as caught:
        convert("vqgan", folder, tmp_path / "ours")
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_other_kinds_are_told_apart(tmp_path, goldens):
    with pytest.raises(InputError, match="not vqgan: .* it looks like"):
        convert("vqgan", goldens / "rudolph_v2" / "pytorch_model.bin", tmp_path / "ours")
    with pytest.raises(InputError, match=r"it looks like a VQGAN \(vqgan\)"):
        convert("openai-clip", goldens / "vqgan" / "vqgan.model.ckpt", tmp_path / "ours")


def test_other_group_norms_have_no_original(tmp_path):
    config = VqganConfig(
        channels=8, channel_multipliers=(1,), residual_blocks=1, attention_levels=(),
        latent_channels=8, codebook_size=4, norm_groups=8,
    )  # fmt: skip
    PretrainedVqgan(config, random_params(config)).save(tmp_path / "trained")
    with pytest.raises(InputError, match="8 groups; rudalle's always have 32"):
        export(tmp_path / "trained", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_torch_loads_an_export(tmp_path, goldens, name):
    import torch

    convert("vqgan", goldens / name, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "back")
    found = torch.load(tmp_path / "back" / WRITTEN[name], weights_only=True)
    original = torch.load(goldens / name / "vqgan.model.ckpt", weights_only=True)
    assert list(found) == ["state_dict"]
    for key, tensor in original["state_dict"].items():
        assert key in UNUSED or torch.equal(found["state_dict"][key], tensor)
