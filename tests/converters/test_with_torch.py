"""Against PyTorch and transformers themselves: run by `make test-torch`."""

import numpy as np
import pytest

import clip_jax
from converters import convert, export, torch_file, torch_writer

pytestmark = pytest.mark.torch


def as_numpy(tensor):
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("bfloat16")
    return tensor.numpy()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_we_write(tmp_path, rng, mmap):
    import torch

    kinds = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
    tensors = {k: (rng.normal(size=(3, 5)) * 9).astype(k) for k in kinds.split()}
    tensors |= {"scalar": np.array(2.5), "empty": np.zeros((0, 4))}
    tensors["ё"] = np.arange(6).reshape(2, 3).T
    torch_writer.write(tmp_path / "x.pt", tensors)
    found = torch.load(tmp_path / "x.pt", weights_only=True, mmap=mmap)
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        back = as_numpy(found[name])
        assert back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_we_read_what_torch_writes(tmp_path, protocol):
    import torch

    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(6, 8, generator=generator)
    tensors = {
        "whole": whole,
        "tied": whole,
        "transposed": whole.t(),
        "slice": whole[1::2, 3:],
        "expanded": whole[0].expand(3, 8),
        "column": whole[:, 2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(whole.double()),
        **{
            str(dtype): (whole * 9).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.int32)
        },
        **{str(dtype): (whole * 9).to(dtype) for dtype in (torch.int16, torch.int8, torch.bool)},
    }
    content = {"state_dict": tensors, "epoch": 3, "rate": 0.1, "names": ["a", "b"], "none": None}
    torch.save(content, tmp_path / "x.ckpt", pickle_protocol=protocol)
    found = torch_file.read(tmp_path / "x.ckpt")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = as_numpy(tensor.detach())
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)
    assert np.shares_memory(found["whole"], found["tied"])


def test_scripted_modules(tmp_path):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).half()
    torch.jit.script(model).save(str(tmp_path / "x.pt"))
    found, expected = torch_file.read(tmp_path / "x.pt"), model.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_whole_modules_and_legacy_files_are_refused(tmp_path):
    import torch

    model = torch.nn.Linear(3, 4)
    torch.save(model, tmp_path / "module.pt")
    with pytest.raises(clip_jax.InputError, match="'torch.nn.modules.linear.Linear' is refused"):
        torch_file.read(tmp_path / "module.pt")
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(clip_jax.InputError, match=r"before 1\.6"):
        torch_file.read(tmp_path / "old.pt")


def hf_model(activation, eos):
    import torch
    import transformers

    text = {
        "vocab_size": 60,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "hidden_act": activation,
        **{"bos_token_id": 0, "eos_token_id": eos, "pad_token_id": 1},
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 8,
        "hidden_act": activation,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize(
    ("activation", "eos"), [("quick_gelu", 2), ("gelu", 59), ("gelu", 7), ("gelu_new", 2)]
)
@pytest.mark.parametrize("shards", [False, True])
def test_transformers_clip_model(tmp_path, rng, activation, eos, shards):
    import torch
    import transformers

    model = hf_model(activation, eos)
    model.save_pretrained(tmp_path / "hf", max_shard_size="20KB" if shards else "5GB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == shards
    convert("hf-clip", tmp_path / "hf", tmp_path / "ours")
    clip = clip_jax.load(tmp_path / "ours")
    pixels = rng.normal(size=(3, 24, 24, 3)).astype(np.float32)
    ids = rng.integers(8, 59, size=(4, 12))
    end = 59 if eos == 2 else eos
    for row, length in zip(ids, (3, 11, 5, 7), strict=True):
        row[length:] = end
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(ids), pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2))
        )
    per_image, per_text = clip.logits(ids, pixels)
    for ours, theirs in ((per_image, out.logits_per_image), (per_text, out.logits_per_text)):
        theirs = theirs.numpy()
        assert np.abs(np.asarray(ours) - theirs).max() < 1e-5 * np.abs(theirs).max()

    export(tmp_path / "ours", tmp_path / "back")
    again = transformers.CLIPModel.from_pretrained(tmp_path / "back")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
