"""Which activation weights under OpenAI's names were trained with: read where it is written."""

import json
import shutil

import jax
import numpy as np
import pytest
from archives import new, tensor, write_archive
from test_hub import contents

import clip_jax
from clip_jax import InputError, model_folder
from converters import (
    convert,
    export,
    open_clip_config,
    pretrained,
    scripted_activation,
    torch_file,
    torch_writer,
)
from converters.__main__ import main

NAME = "open_clip_config.json"


@pytest.fixture
def plain(tmp_path, goldens):
    """The golden as a plain state dict, which tells nothing, in a folder of its own."""
    folder = tmp_path / "plain"
    folder.mkdir()
    tensors = torch_file.read(goldens / "openai_clip_vit" / "model.pt")
    tensors = {n: np.array(t) for n, t in tensors.items() if t.ndim or n == "logit_scale"}
    torch_writer.write(folder / "model.pt", tensors)
    return folder


def model_cfg(**changes):
    cfg = {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
        "text_cfg": {
            **{"context_length": 20, "vocab_size": 150},
            **{"width": 128, "heads": 2, "layers": 2},
        },
    }
    for key, value in changes.items():
        tower = cfg.get(key)
        cfg[key] = tower | value if isinstance(tower, dict) and isinstance(value, dict) else value
    return cfg


def write_config(folder, preprocess=None, **changes):
    content = {"model_cfg": model_cfg(**changes)}
    if preprocess is not None:
        content["preprocess_cfg"] = preprocess
    (folder / NAME).write_text(json.dumps(content))
    return folder


def config_of(folder):
    return clip_jax.load(folder).config


def told(folder):
    return json.loads((folder / "report.json").read_text())["activation"]


def test_an_archive_s_classes_tell_quick_gelu(tmp_path, goldens, capsys):
    source = str(goldens / "openai_clip_vit")
    assert main(["openai-clip", source, str(tmp_path / "ours")]) == 0
    assert "activation quick_gelu, by the classes of the TorchScript" in capsys.readouterr().out
    assert told(tmp_path / "ours")["is"] == config_of(tmp_path / "ours").activation == "quick_gelu"
    assert main(["openai-clip", source, str(tmp_path / "x"), "--activation=gelu"]) == 2
    line = capsys.readouterr().err
    assert "quick_gelu by the classes of the TorchScript archive, gelu by --activation" in line
    assert not (tmp_path / "x").exists()


def test_a_plain_state_dict_asks(tmp_path, plain, capsys):
    assert main(["openai-clip", str(plain), str(tmp_path / "ours")]) == 2
    line = capsys.readouterr().err
    assert "--activation=quick_gelu" in line and "--activation=gelu" in line
    for name in ("quick_gelu", "gelu"):
        convert("openai-clip", plain, tmp_path / name, activation=name)
        assert config_of(tmp_path / name).activation == name
        assert told(tmp_path / name) == {"is": name, "told_by": "--activation"}
    pixels = np.ones((1, 32, 32, 3), np.float32)
    a, b = (clip_jax.load(tmp_path / n).encode_image(pixels) for n in ("quick_gelu", "gelu"))
    assert np.abs(a - b).max() > 1e-3  # which of the two is no matter of rounding
    with pytest.raises(InputError, match="'relu'; expected one of quick_gelu, gelu"):
        convert("openai-clip", plain, tmp_path / "x", activation="relu")
    with pytest.raises(InputError, match="'gelu'; expected one of none, for files of ruclip name"):
        convert("ruclip", plain, tmp_path / "x", activation="gelu")


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
def test_an_export_tells_its_activation(tmp_path, plain, activation):
    convert("openai-clip", plain, tmp_path / "ours", activation=activation)
    export(tmp_path / "ours", tmp_path / "back")
    convert("openai-clip", tmp_path / "back", tmp_path / "again")
    assert told(tmp_path / "again") == {"is": activation, "told_by": NAME}
    assert config_of(tmp_path / "again") == config_of(tmp_path / "ours")
    export(tmp_path / "again", tmp_path / "twice")
    for name in ("model.pt", NAME):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()


ACTIVATION = "__torch__.torch.nn.modules.activation"
CODE = "class GELU(Module):\n  def forward(self, input):\n    return torch.gelu(input{})\n"


@pytest.mark.parametrize(
    ("kinds", "argument", "expected"),
    [
        ([("__torch__.clip.model.___torch_mangle_7", "QuickGELU")] * 2, "", "quick_gelu"),
        ([(ACTIVATION, "GELU")], "", "gelu"),
        ([(ACTIVATION, "GELU")], ', approximate="none"', "gelu"),
        ([(ACTIVATION, "GELU")], ', approximate="tanh"', "gelu_tanh"),
        ([], "", None),
        ([(ACTIVATION, "SiLU")], "", "activation of its blocks is of class 'SiLU'"),
        ([(ACTIVATION, "GELU"), ("__torch__.a", "QuickGELU")], "", "gelu, quick_gelu; expected"),
    ],
)
def test_classes_of_archives(tmp_path, kinds, argument, expected):
    blocks = {
        str(i): new("__torch__.a", "Sequential", {"gelu": new(*kind, {"training": False})})
        for i, kind in enumerate(kinds)
    }
    root = new("__torch__.a", "CLIP", {"blocks": new("__torch__.b", "L", blocks), "a": tensor()})
    record = "code/" + ACTIVATION.replace(".", "/") + ".py"
    code = {record: CODE.format(argument).encode()} if argument else {}
    file = torch_file.open_file(write_archive(tmp_path / "x.pt", root, **code))
    if expected in ("quick_gelu", "gelu", "gelu_tanh", None):
        assert scripted_activation.read(file, "x.pt") == expected
    else:
        with pytest.raises(InputError, match=expected):
            scripted_activation.read(file, "x.pt")


def test_open_clip_s_config_tells_all_that_tensors_do_not(tmp_path, plain):
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": None, "interpolation": "bilinear", "size": 32}
    write_config(plain, preprocess, vision_cfg={"head_width": 32}, quick_gelu=None)
    convert("openai-clip", plain, tmp_path / "ours")
    config = config_of(tmp_path / "ours")
    assert (config.activation, config.vision.heads, config.text.heads) == ("gelu", 4, 2)
    assert config.image.mean == (0.1, 0.2, 0.3) and config.image.std == clip_jax.config.OPENAI_STD
    assert (config.image.resample, config.image.crop) == ("bilinear", "resize_then_crop")
    export(tmp_path / "ours", tmp_path / "back")
    written = json.loads((tmp_path / "back" / NAME).read_text())
    assert written == json.loads((plain / NAME).read_text())
    files = json.loads((tmp_path / "ours" / "report.json").read_text())["files"]
    assert [file["name"] for file in files] == ["model.pt", NAME]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quick_gelu": True}, ("quick_gelu", 1e-5)),
        ({"quick_gelu": False}, ("gelu", 1e-5)),
        ({}, ("gelu", 1e-5)),
        ({"quick_gelu": "yes"}, "quick_gelu is 'yes'; expected true or false"),
        ({"custom_text": True}, "custom_text is True"),
        ({"custom_text": 0}, "custom_text is 0"),
        ({"init_logit_bias": -10}, "init_logit_bias is -10"),
        ({"multimodal_cfg": {}}, "multimodal_cfg is"),
        ({"new_key": 1}, "'new_key' is unknown"),
        ({"vision_cfg": {"timm_model_name": "vit_base"}}, "timm_model_name is 'vit_base'"),
        ({"vision_cfg": {"ls_init_value": 0.1}}, "ls_init_value is 0.1"),
        ({"vision_cfg": {"pool_type": "avg"}}, "pool_type is 'avg'"),
        ({"vision_cfg": {"width": 100}}, "width 100 is no multiple of head_width 64"),
        ({"vision_cfg": {"layers": 3}}, "vision_cfg.layers is 3; the tensors say 2"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "layers is [3, 4, 6, 3]; expected a positive"),
        ({"vision_cfg": {"mlp_ratio": float("nan")}}, "mlp_ratio is nan"),
        ({"vision_cfg": {"mlp_ratio": 5}}, f"has shape [512]; {NAME} asks for [640]"),
        ({"vision_cfg": None}, "vision_cfg is None; expected an object"),
        ({"text_cfg": {"hf_model_name": "roberta"}}, "hf_model_name is 'roberta'"),
        ({"text_cfg": {"pool_type": "last"}}, "pool_type is 'last'"),
        ({"text_cfg": {"no_causal_mask": True}}, "no_causal_mask is True"),
        ({"text_cfg": {"heads": 5}}, "not a multiple of text.heads"),
        ({"embed_dim": 50}, "embed_dim is 50; the tensors say 48"),
        ({"text_cfg": {"act_kwargs": {"approximate": "tanh"}}}, "act_kwargs differ"),
        ({"text_cfg": {"act_kwargs": {"alpha": 1}}}, "act_kwargs is"),
        ({"text_cfg": {"norm_kwargs": {"eps": 1e-6}}}, "norm_kwargs differ"),
        ({name: {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6}}
          for name in ("vision_cfg", "text_cfg")}, ("gelu_tanh", 1e-6)),
    ],
)  # fmt: skip
def test_model_cfg(tmp_path, plain, changes, expected):
    write_config(plain, **changes)
    if isinstance(expected, tuple):
        convert("openai-clip", plain, tmp_path / "ours")
        config = config_of(tmp_path / "ours")
        assert (config.activation, config.layer_norm_epsilon) == expected
        return
    with pytest.raises(InputError) as caught:
        convert("openai-clip", plain, tmp_path / "ours")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        ({"resize_mode": "squash"}, "resize_mode is 'squash'"),
        ({"resize_mode": "longest"}, "resize_mode is 'longest'"),
        ({"interpolation": "random"}, "interpolation is 'random'; expected bicubic or bilinear"),
        ({"mean": 0.5}, "mean is 0.5; expected three numbers"),
        ({"std": [1, 0, 1]}, "std is [1, 0, 1]; expected three positive numbers"),
        ({"mode": "L"}, "mode is 'L'"),
        ([], "preprocess_cfg: is []; expected an object"),
    ],
)
def test_preprocess_cfg(tmp_path, plain, preprocess, expected):
    write_config(plain, preprocess)
    with pytest.raises(InputError) as caught:
        convert("openai-clip", plain, tmp_path / "ours")
    assert f"{NAME}: " in str(caught.value) and expected in str(caught.value)


def test_archive_option_and_config_must_agree(tmp_path, goldens, plain):
    write_config(plain)
    with pytest.raises(InputError, match=f"gelu by {NAME}, quick_gelu by --activation"):
        convert("openai-clip", plain, tmp_path / "ours", activation="quick_gelu")
    shutil.copy(goldens / "openai_clip_vit" / "model.pt", plain)
    with pytest.raises(InputError, match=f"quick_gelu by the classes .*, gelu by {NAME}"):
        convert("openai-clip", plain, tmp_path / "ours")


def test_a_wide_tower_s_heads_are_not_guessed(tmp_path, plain):
    tensors = {n: np.array(t) for n, t in torch_file.read(plain / "model.pt").items()}
    tensors["visual.conv1.weight"] = np.zeros((1280, 3, 8, 8), np.float16)
    torch_writer.write(plain / "model.pt", tensors)
    with pytest.raises(InputError, match=f"1280 wide.*put the model's {NAME} next to"):
        convert("openai-clip", plain, tmp_path / "ours", activation="gelu")


def test_the_ratio_of_any_mlp_is_written_exactly():
    for width, mlp_width in ((1664, 8192), (1408, 6144), (96, 385), (7, 3)):
        (ratio,) = open_clip_config._ratio(mlp_width, width).values()
        assert int(width * ratio) == mlp_width


def test_a_repository_of_open_clip(hub, plain):
    write_config(plain, quick_gelu=True)
    held = contents(plain)
    held["open_clip_pytorch_model.bin"] = held.pop("model.pt")
    hub.put("someone/open", held | {"README.md": b"", "model.onnx": bytes(99)})
    folder = pretrained("someone/open")
    assert told(folder) == {"is": "quick_gelu", "told_by": NAME}
    assert not [line for line in hub.log if "onnx" in line]


def test_a_byte_order_mark_before_json_is_dropped(tmp_path, plain, goldens):
    write_config(plain)
    content = (plain / NAME).read_bytes()
    (plain / NAME).write_bytes(b"\xef\xbb\xbf" + content)
    convert("openai-clip", plain, tmp_path / "ours")
    source = shutil.copytree(goldens / "ruclip", tmp_path / "ruclip")
    for name in ("config.json", "bpe.model"):
        (source / name).write_bytes(b"\xef\xbb\xbf" + (source / name).read_bytes())
    convert("ruclip", source, tmp_path / "marked")
    convert("ruclip", goldens / "ruclip", tmp_path / "plain-ruclip")
    both = (model_folder.read_params(tmp_path / n) for n in ("marked", "plain-ruclip"))
    jax.tree.map(np.testing.assert_array_equal, *both)
    text = (goldens / "ruclip" / "config.json").read_text()
    (source / "config.json").write_bytes(text.encode("utf-16"))
    with pytest.raises(InputError, match="config.json: is UTF-16 text; save it as UTF-8"):
        convert("ruclip", source, tmp_path / "x")


def test_the_approximation_is_read_from_compressed_code(tmp_path):
    import zipfile

    root = new("__torch__.a", "CLIP", {"gelu": new(ACTIVATION, "GELU", {}), "a": tensor()})
    path = write_archive(tmp_path / "x.pt", root)
    code = CODE.format(', approximate="tanh"') + "# " + "x" * 500
    with zipfile.ZipFile(path, "a") as archive:
        record = f"archive/code/{ACTIVATION.replace('.', '/')}.py"
        archive.writestr(record, code, zipfile.ZIP_DEFLATED)
    assert scripted_activation.read(torch_file.open_file(path), "x.pt") == "gelu_tanh"
