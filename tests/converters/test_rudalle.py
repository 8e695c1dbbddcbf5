"""ruDALL-E, versions v2 and v3: recorded logits and losses, there and back, which is which."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from decoders import change_tensors, copied

import rudolph_jax
from clip_jax import model_folder
from clip_jax.errors import InputError
from converters import convert, export, torch_file
from rudolph_jax.config import PRESETS, RudolphConfig
from rudolph_jax.loss import rudolph_loss
from rudolph_jax.masks import mask

VERSIONS = {"v2": ("wrap", True), "v3": ("clamp", False)}
every_version = pytest.mark.parametrize("version", VERSIONS)


def golden(goldens, version):
    return goldens / f"rudalle_{version}"


def assert_close(found, expected):
    """Largest difference over largest magnitude of the array."""
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@every_version
def test_recorded_outputs(tmp_path, goldens, version):
    convert("rudalle", golden(goldens, version), tmp_path / "ours")
    model = rudolph_jax.load(tmp_path / "ours")
    recorded = np.load(golden(goldens, version) / "outputs.npz")
    ids, left = recorded["input_ids"], model.config.left_text_length
    logits = model.logits(ids)
    assert_close(logits, recorded["logits"])
    # v2's BOS before the text makes one logit more, until the whole length is reached.
    half = left + model.config.image_tokens_per_side**2 // 2
    assert_close(model.logits(ids[:, :left]), recorded["logits_text_only"])
    assert_close(model.logits(ids[:, :half]), recorded["logits_text_and_half_image"])
    loss, parts = rudolph_loss(
        logits, jnp.asarray(ids), model.config, legacy_boundary_label=True, right_weight=0
    )
    assert_close(loss, recorded["loss"])
    assert_close(parts["left_text_loss"], recorded["text_loss"])
    assert_close(parts["image_loss"], recorded["image_loss"])


@every_version
def test_recorded_masks(tmp_path, goldens, version):
    convert("rudalle", golden(goldens, version), tmp_path / "ours")
    config = RudolphConfig.from_dict(model_folder.read_config(tmp_path / "ours")["config"])
    assert (config.conv_edges, config.bos_prefix) == VERSIONS[version]
    recorded = np.load(golden(goldens, version) / "outputs.npz")
    for kind, name in (("row", "row_mask"), ("column", "col_mask"), ("last_conv", "conv_mask")):
        np.testing.assert_array_equal(mask(config, kind), recorded[name])


@every_version
@pytest.mark.parametrize("trained", [False, True])
def test_there_and_back(tmp_path, goldens, version, trained):
    """Converted, and as if trained here from it: then with masks of booleans."""
    source = golden(goldens, version)
    convert("rudalle", source, tmp_path / "ours")
    folder = tmp_path / "ours"
    if trained:
        about = model_folder.read_config(folder)
        folder = model_folder.write_model_folder(
            tmp_path / "trained",
            kind="rudolph",
            config=about["config"],
            params=model_folder.read_params(folder),
        )
    assert export(folder, tmp_path / "back").kind == "rudalle"
    old, new = (torch_file.read(f / "pytorch_model.bin") for f in (source, tmp_path / "back"))
    assert set(new) == set(old)
    for name, tensor in old.items():
        dtype = bool if trained and name.endswith("_mask") else tensor.dtype
        assert new[name].dtype == dtype, name
        assert new[name].tobytes() == tensor.astype(dtype).tobytes(), name
    arguments = json.loads((tmp_path / "back" / "config.json").read_text())
    assert arguments["hf_version"] == version
    convert("rudalle", tmp_path / "back", tmp_path / "again")
    configs = [model_folder.read_config(tmp_path / f)["config"] for f in ("again", "ours")]
    assert configs[0] == configs[1]


def as_published(goldens, tmp_path, monkeypatch):
    """The recorded sizes as if they were Malevich's."""
    for version, name in (("v2", "malevich_v2"), ("v3", "malevich")):
        convert("rudalle", golden(goldens, version), tmp_path / name)
        config = model_folder.read_config(tmp_path / name)["config"]
        monkeypatch.setitem(PRESETS, name, RudolphConfig.from_dict(config))


@every_version
def test_the_mask_buffer_tells_the_version(tmp_path, goldens, monkeypatch, version):
    as_published(goldens, tmp_path, monkeypatch)
    source = copied(golden(goldens, version), tmp_path / "source", without=["config.json"])
    convert("rudalle", source, tmp_path / "ours")
    config = rudolph_jax.load(tmp_path / "ours").config
    assert (config.conv_edges, config.bos_prefix) == VERSIONS[version]


def test_without_the_buffer_the_version_must_be_named(tmp_path, goldens, monkeypatch):
    as_published(goldens, tmp_path, monkeypatch)
    source = copied(golden(goldens, "v2"), tmp_path / "source", without=["config.json"])
    change_tensors(source, lambda tensors: tensors.pop("transformer.conv_mask"))
    with pytest.raises(InputError, match="fit malevich, malevich_v2 alike.* --preset malevich, m"):
        convert("rudalle", source, tmp_path / "ours")
    convert("rudalle", source, tmp_path / "ours", preset="malevich_v2")
    assert rudolph_jax.load(tmp_path / "ours").config.bos_prefix


def test_a_version_that_contradicts_the_buffer(tmp_path, goldens, monkeypatch):
    source = copied(golden(goldens, "v2"), tmp_path / "source", hf_version="drop")
    expected = "its mask buffers contradict config.json: they say conv_edges wrap, not clamp"
    with pytest.raises(InputError, match=expected):
        convert("rudalle", source, tmp_path / "ours")
    as_published(goldens, tmp_path, monkeypatch)
    (source / "config.json").unlink()
    expected = "its mask buffers contradict --preset malevich: they say conv_edges wrap, not clamp"
    with pytest.raises(InputError, match=expected):
        convert("rudalle", source, tmp_path / "ours", preset="malevich")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hf_version": "v1"}, "hf_version is 'v1'; expected one of v2, v3"),
        ({"r_text_seq_length": 5}, "unknown 'r_text_seq_length'"),
        ({"text_seq_length": 8}, "'text_pos_embeddings.weight' has shape [8, 32]"),
        ({"cogview_sandwich_layernorm": "drop"}, "layernorm.weight' is surplus"),
    ],
)
def test_config(tmp_path, goldens, changes, expected):
    source = copied(golden(goldens, "v3"), tmp_path / "source", **changes)
    with pytest.raises(InputError) as caught:
        convert("rudalle", source, tmp_path / "ours")
    assert expected in str(caught.value)


def test_one_for_the_other(tmp_path, goldens):
    with pytest.raises(InputError, match=r"not rudalle.* looks like RUDOLPH \(rudolph\)"):
        convert("rudalle", goldens / "rudolph_v1", tmp_path / "ours")
    with pytest.raises(InputError, match=r"not rudolph.* looks like ruDALL-E \(rudalle\)"):
        convert("rudolph", golden(goldens, "v3"), tmp_path / "ours")
