"""Super-resolution networks there and back; sizes are read off the tensors."""

import json

import jax
import numpy as np
import pytest
from archives import tensor, write_archive

import rudolph_jax
from clip_jax import InputError
from converters import convert, export, torch_file, torch_writer
from converters.__main__ import main
from converters.real_esrgan import SIGNATURE
from rudolph_jax import PretrainedUpscaler, UpscalerConfig
from rudolph_jax.upscaler.rrdb import abstract_params

SCALES = (1, 2, 4, 8)
UNDER = {1: "", 2: "params_ema", 4: "params_ema", 8: "params"}  # as the goldens nest their tensors


def file_of(goldens, scale):
    return goldens / f"real_esrgan_x{scale}/RealESRGAN_x{scale}.pth"


def random_params(config):
    rng = np.random.default_rng(0)
    shapes = abstract_params(config)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("scale", SCALES)
def test_there_and_back(tmp_path, goldens, scale):
    source = file_of(goldens, scale)
    assert main(["real-esrgan", str(source), str(tmp_path / "ours")]) == 0
    config = rudolph_jax.load_upscaler(tmp_path / "ours").config
    assert config == UpscalerConfig(scale=scale, features=6, blocks=2, growth=4)
    report = json.loads((tmp_path / "ours/report.json").read_text(encoding="utf-8"))
    tensors = dict(torch_file.read(source))
    assert [entry["source"] for entry in report["tensors"]] == list(tensors)
    assert all("target" in entry for entry in report["tensors"])
    assert report["names"]["entry"] == UNDER[scale]

    export(tmp_path / "ours", tmp_path / "back")
    (written,) = (tmp_path / "back").iterdir()
    assert written.name == f"RealESRGAN_x{scale}.pth"
    assert torch_file.open_file(written).entry == "params"
    found = dict(torch_file.read(written))
    assert list(found) == list(tensors)
    for name, expected in tensors.items():
        assert found[name].dtype == expected.dtype and found[name].tobytes() == expected.tobytes()


def test_the_published_names_and_sizes(tmp_path):
    """All 702 tensors of a published x4 file, by shape; their sum is what the authors state."""
    shapes = {
        f"{'/'.join(key.key for key in path)}": leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(UpscalerConfig()))
    }
    assert len(shapes) == 702
    assert sum(map(np.prod, shapes.values())) == 16_697_987
    config = UpscalerConfig(scale=2, features=3, blocks=11, growth=2)
    PretrainedUpscaler(config, random_params(config)).save(tmp_path / "trained")
    export(tmp_path / "trained", tmp_path / "back")
    tensors = dict(torch_file.read(tmp_path / "back/RealESRGAN_x2.pth"))
    assert {name: tensors[name].shape for name in (
        "conv_first.weight", "body.10.rdb3.conv5.weight", "body.10.rdb3.conv4.weight",
        "conv_up2.bias", "conv_last.weight",
    )} == {
        "conv_first.weight": (3, 12, 3, 3), "body.10.rdb3.conv5.weight": (3, 11, 3, 3),
        "body.10.rdb3.conv4.weight": (2, 9, 3, 3), "conv_up2.bias": (3,),
        "conv_last.weight": (3, 3, 3, 3),
    }  # fmt: skip
    convert("real-esrgan", tmp_path / "back", tmp_path / "again")
    again = rudolph_jax.load_upscaler(tmp_path / "again")
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), random_params(config))


def test_of_two_state_dicts_one_is_named(tmp_path, goldens):
    average = {SIGNATURE: tensor(), "conv_first.weight": tensor()}
    both = {"params": {SIGNATURE: tensor()}, "params_ema": average}
    file = write_archive(tmp_path / "x.pth", both)
    with pytest.raises(InputError, match="'params', 'params_ema'.*add --entry=params_ema"):
        convert("real-esrgan", file, tmp_path / "ours")
    for entry, missing in (("params", "'conv_first.weight' is missing"), ("params_ema", "4 axes")):
        with pytest.raises(InputError, match=missing):
            convert("real-esrgan", file, tmp_path / "ours", entry=entry)


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, *shape):
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


@pytest.mark.parametrize(
    ("scale", "change", "message"),
    [
        (4, put("extra.weight", 2), "tensor 'extra.weight' is surplus"),
        (4, drop("conv_first.weight"), "'conv_first.weight' is missing; a Real-ESRGAN has it"),
        (4, drop("conv_hr.bias"), "'conv_hr.bias' is missing"),
        (4, drop("body.1.rdb2.conv3.weight"), "'body.1.rdb2.conv3.weight' is missing"),
        (4, put("body.3.rdb1.conv1.bias", 4), "'body.2.rdb1.conv1.bias' is missing"),
        (4, put("conv_first.weight", 6, 5, 3, 3), "takes 5 channels; expected 3"),
        (4, put("conv_first.weight", 6), "expected 4 axes"),
        (2, put("conv_up3.weight", 6, 6, 3, 3), "takes 12 channels and has a third upsampling"),
        (8, drop("conv_up3.bias"), "'conv_up3.bias' is missing"),
        (8, drop("conv_up3.weight"), "'conv_up3.bias' is surplus"),
        (4, put("conv_body.weight", 6, 6, 1, 1), r"asks for \[6, 6, 3, 3\]"),
        (4, put("conv_last.weight", 1, 6, 3, 3), r"asks for \[3, 6, 3, 3\]"),
        (4, drop("body.0.rdb1.conv1.weight"), "no tensor 'body.0.rdb1.conv1.weight'"),
        (4, put("body.63.rdb1.conv1.bias", 4), "is missing"),
        (4, put("body.999.rdb1.conv1.bias", 4), "blocks is 1000; expected"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, goldens, scale, change, message):
    tensors = dict(torch_file.read(file_of(goldens, scale)))
    change(tensors)
    torch_writer.write(tmp_path / "changed.pth", tensors, under="params")
    with pytest.raises(InputError, match=message) as caught:
        convert("real-esrgan", tmp_path / "changed.pth", tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_other_kinds_are_told_apart(tmp_path, goldens):
    with pytest.raises(InputError, match=r"not vqgan: .* a Real-ESRGAN \(real-esrgan\)"):
        convert("vqgan", file_of(goldens, 4), tmp_path / "ours")
    with pytest.raises(InputError, match="not real-esrgan: .* looks like a VQGAN"):
        convert("real-esrgan", goldens / "vqgan/vqgan.model.ckpt", tmp_path / "ours")


@pytest.mark.torch
@pytest.mark.parametrize("scale", SCALES)
def test_converted_from_torch_it_computes_the_same(tmp_path, scale):
    """Networks of the published sizes, in float32 of both programs."""
    import torch
    from rrdb_in_torch import random_network

    network = random_network(scale, seed=7)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "x.pth")
    convert("real-esrgan", tmp_path / "x.pth", tmp_path / "ours")
    images = np.random.default_rng(0).random((2, 3, 16, 24), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.tensor(images)).numpy().transpose(0, 2, 3, 1)
    found = rudolph_jax.load_upscaler(tmp_path / "ours").network(images.transpose(0, 2, 3, 1))
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() <= 1e-4

    export(tmp_path / "ours", tmp_path / "back")
    back = torch.load(tmp_path / f"back/RealESRGAN_x{scale}.pth", weights_only=True)["params"]
    network.load_state_dict(back, strict=True)
