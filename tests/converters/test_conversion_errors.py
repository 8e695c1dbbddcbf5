"""Wrong input to the command line: exit code 2, a line naming file and tensor, nothing written."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from foreign import hf_config, hf_folder

from converters import convert, openai_clip, torch_file, torch_writer
from converters.__main__ import main

RUCLIP_TENSORS = "pytorch_model.bin"


@pytest.fixture
def fails(tmp_path, capsys):
    def run(*arguments, expected):
        destination = tmp_path / "out" / "model"
        assert main([*map(str, arguments), str(destination)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        for part in expected if isinstance(expected, tuple) else (expected,):
            assert part in captured.err
        left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
        assert left == []

    return run


@pytest.fixture
def ruclip(tmp_path, goldens):
    return shutil.copytree(goldens / "ruclip", tmp_path / "ruclip")


def change_tensors(file, change):
    tensors = dict(torch_file.read(file))
    change(tensors)
    tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
    torch_writer.write(file, tensors)


def change_json(file, **changes):
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v != "drop"}))


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.99, 0.9999])
def test_truncated_weights(fails, ruclip, part):
    file = ruclip / RUCLIP_TENSORS
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    fails("ruclip", ruclip, expected=(RUCLIP_TENSORS, "copy it again"))


def test_hostile_pickle(fails, ruclip, tmp_path):
    from archives import write_archive

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    write_archive(ruclip / RUCLIP_TENSORS, pickle.dumps({"a": Hostile()}, 2))
    fails("ruclip", ruclip, expected=(RUCLIP_TENSORS, "'posix.system' is refused"))
    assert not (tmp_path / "trace").exists()


def test_missing_tensor(fails, ruclip):
    name = "transformer.resblocks.1.mlp.c_fc.bias"
    change_tensors(ruclip / RUCLIP_TENSORS, lambda tensors: tensors.pop(name))
    fails("ruclip", ruclip, expected=(RUCLIP_TENSORS, f"tensor '{name}' is missing", "[256]"))


def test_surplus_tensor(fails, ruclip):
    change_tensors(ruclip / RUCLIP_TENSORS, lambda tensors: tensors.update(extra=np.zeros(3)))
    fails("ruclip", ruclip, expected=(RUCLIP_TENSORS, "tensor 'extra' is surplus"))


def test_shapes_that_contradict_the_config(fails, ruclip):
    change_json(ruclip / "config.json", context_length=25)
    expected = "tensor 'positional_embedding' has shape [24, 64]; config.json asks for [25, 64]"
    fails("ruclip", ruclip, expected=(RUCLIP_TENSORS, expected))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"embed_dims": 3}, "unknown 'embed_dims'"),
        ({"vision_width": "drop"}, "missing 'vision_width'"),
        ({"vision_width": "128"}, "vision_width is '128'; expected a positive integer"),
        ({"vision_width": True}, "vision_width is True"),
        ({"vision_width": 96}, "vision_width is 96; expected a multiple of 64"),
        ({"transformer_heads": 3}, "not a multiple of text.heads"),
        ({"vision_layers": [3, 4, 6, 3]}, "vision_layers is [3, 4, 6, 3]"),
        ({"vision_layers": 1}, "tensor 'visual.transformer.resblocks.1."),
        ({"vision_layers": 3}, "tensor 'visual.transformer.resblocks.2."),
        ({"mean": [1, 2]}, "mean is [1, 2]; expected three numbers"),
        ({"vocab_size": 600}, "the vocabulary has 700 pieces"),
    ],
)
def test_config(fails, ruclip, changes, expected):
    change_json(ruclip / "config.json", **changes)
    fails("ruclip", ruclip, expected=(str(ruclip), expected))


def test_files_beside_the_weights(fails, ruclip):
    (ruclip / "config.json").write_text("{")
    fails("ruclip", ruclip, expected=("config.json", "not JSON"))
    (ruclip / "config.json").unlink()
    fails("ruclip", ruclip, expected=("config.json", "cannot be read"))


def test_vocabulary(fails, ruclip):
    file = ruclip / "bpe.model"
    whole = file.read_text()
    file.write_text(whole[:3000])
    fails("ruclip", ruclip, expected=("bpe.model", "cut short"))
    file.write_text(whole.replace("1 0 2 3\n", "0 1 2 3\n"))
    fails("ruclip", ruclip, expected=("bpe.model", "ruclip expects (1, 0, 2, 3)"))
    file.unlink()
    fails("ruclip", ruclip, expected=("bpe.model", "cannot be read"))


def test_inexact_vocabulary(fails, tmp_path):
    file = tmp_path / "x.model"
    file.write_text("4 3\n9601 4\n97 5\n98 6\n99 7\n6 7 8\n5 6 9\n9 7 10\n1 0 2 3\n")
    fails("youtokentome", file, expected=("x.model", "piece 10 'abc' encodes as 'a' + 'bc'"))


SIGNATURES = {
    "l_text_pos_embeddings.weight": "it looks like RUDOLPH",
    "text_pos_embeddings.weight": "it looks like ruDALL-E",
    "image_row_embeddings.weight": "it looks like RUDOLPH or ruDALL-E",
    "vision_model.embeddings.patch_embedding.weight": "it looks like a transformers CLIPModel",
    "visual.layer1.0.conv1.weight": "it looks like an OpenAI CLIP with a ResNet",
    "encoder.conv_in.weight": "it looks like a VQGAN",
    "body.0.rdb1.conv1.weight": "it looks like a Real-ESRGAN",
    "something.else": "it looks like no known model",
}


@pytest.mark.parametrize("kind", ["ruclip", "ruclip-small", "openai-clip"])
@pytest.mark.parametrize("mark", SIGNATURES)
def test_wrong_kind(fails, tmp_path, kind, mark):
    folder = tmp_path / "foreign"
    folder.mkdir()
    torch_writer.write(folder / RUCLIP_TENSORS, {mark: np.zeros(3), "other": np.ones(2)})
    fails(kind, folder, expected=(RUCLIP_TENSORS, f"not {kind}", SIGNATURES[mark]))


def test_one_clip_for_another(fails, goldens):
    fails("openai-clip", goldens / "ruclip", expected="looks like ruclip")
    fails("hf-clip", goldens / "ruclip", expected="a CLIP under OpenAI's names")
    fails("ruclip", goldens / "openai_clip_vit", expected="holds no weights")
    fails("openai-clip", goldens / "ruclip_small", expected="the first ruCLIP (ruclip-small)")
    fails("ruclip-small", goldens / "ruclip", expected="a CLIP under OpenAI's names")


def test_openai_clip_s_shapes_agree_among_themselves(fails, tmp_path, goldens):
    file = tmp_path / "model.pt"

    def attempt(change, *expected):
        shutil.copy(goldens / "openai_clip_vit" / "model.pt", file)
        change_tensors(file, change)
        fails("openai-clip", "--activation=gelu", file, expected=("model.pt", *expected))

    attempt(
        lambda t: t.update({"input_resolution": np.array(64)}),
        "tensor 'input_resolution' is 64; the shape of the other tensors asks for 32",
    )
    attempt(
        lambda t: t.update({"visual.proj": t["visual.proj"][:, :40]}),
        "tensor 'visual.proj' has shape [128, 40]",
        "asks for [128, 48]",
    )
    attempt(
        lambda t: t.update({"visual.positional_embedding": np.zeros((16, 128))}),
        "tensor 'visual.positional_embedding' has 16 rows; expected 1 + a square",
    )
    attempt(lambda t: t.pop("text_projection"), "tensor 'text_projection' is missing")
    attempt(
        lambda t: t.pop("transformer.resblocks.0.ln_1.bias"),
        "tensor 'transformer.resblocks.0.ln_1.bias' is missing",
    )


def test_a_kept_causal_mask_is_recognised(tmp_path, goldens):
    tensors = dict(torch_file.read(goldens / "openai_clip_vit" / "model.pt"))
    mask = np.triu(np.full((20, 20), -np.inf, np.float16), 1)
    for layer in range(2):
        tensors[f"transformer.resblocks.{layer}.attn_mask"] = mask
    torch_writer.write(tmp_path / "model.pt", tensors)
    summary = convert(
        "openai-clip", tmp_path / "model.pt", tmp_path / "ours", activation="quick_gelu"
    )
    assert summary.tensors == 65
    assert openai_clip.DERIVED[3].reason == "the causal mask"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "siglip"}, "model_type is 'siglip'; expected 'clip'"),
        ({"projection_dim": 21}, "'text_projection.weight' has shape [20, 24]"),
        ({"projection_dim": "20"}, "projection_dim is '20'; expected int"),
        ({"text_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu' in text_config"),
        ({"text_config": 3}, "text_config is a int"),
        ({"vision_config": {"num_channels": 1}}, "num_channels is 1"),
        ({"vision_config": {"image_size": [24, 24]}}, "image_size is [24, 24]; expected int"),
        ({"vision_config": {"hidden_size": "32"}}, "vision_config.hidden_size is '32'"),
        ({"text_config": {"eos_token_id": [1, 2]}}, "text_config.eos_token_id is [1, 2]"),
        ({"text_config": {"eos_token_id": 600}}, "eos_id is 600"),
        ({"text_config": {"vocab_size": 61}}, "has shape [60, 24]; config.json asks for [61, 24]"),
    ],
)
def test_hf_config(fails, tmp_path, small_config, changes, expected):
    folder = hf_folder(tmp_path / "hf", small_config)
    config = hf_config(small_config)
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    fails("hf-clip", folder, expected=(str(folder), expected))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"shortest_edge": 32}},
        {"size": {"height": 24, "width": 24}},
        {"crop_size": {"height": 24, "width": 20}},
        {"resample": 0},
        {"do_center_crop": False},
        {"rescale_factor": 0.5},
        {"image_std": [1, 2]},
    ],
)
def test_hf_preprocessing_that_we_do_not_have(fails, tmp_path, small_config, changes):
    folder = hf_folder(tmp_path / "hf", small_config)
    change_json(folder / "preprocessor_config.json", **changes)
    fails("hf-clip", folder, expected="preprocessor_config.json: ")


def test_destination_that_exists(tmp_path, goldens, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for arguments in (["ruclip", goldens / "ruclip"], ["export", goldens / "ruclip"]):
        assert main([*map(str, arguments), str(tmp_path / "full")]) == 2
        assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "full" / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert main(["ruclip", str(goldens / "ruclip"), str(tmp_path / "empty")]) == 0


def test_export_of_what_is_no_model(fails, tmp_path, goldens, monkeypatch):
    monkeypatch.setenv("RUDOLPH_JAX_VERIFY", "0")  # else each is a file that was changed
    fails("export", tmp_path / "absent", expected="not a model folder")
    fails("export", goldens / "ruclip", expected="a foreign checkpoint must be converted first")
    convert("ruclip", goldens / "ruclip", tmp_path / "ours")
    report = tmp_path / "ours" / "report.json"
    entries = json.loads(report.read_text())["tensors"]
    for tensors, expected in [
        ([], "report.json: does not list tensor 'ln_final.bias'"),
        ([{"source": "a"}], "report.json: not the report of a conversion"),
        ([*entries, {"source": "a", "source_dtype": "int8"}], "lists 'a' as 'int8'"),
        ([*entries[1:], entries[0] | {"source_dtype": "f2, "}], "as 'f2, '"),
    ]:
        change_json(report, tensors=tensors)
        fails("export", tmp_path / "ours", expected=expected)
    (tmp_path / "ours" / "report.json").unlink()
    fails("export", tmp_path / "ours", expected="report.json: cannot be read")


def test_export_that_fails_half_way_leaves_nothing(tmp_path, goldens, monkeypatch):
    convert("ruclip", goldens / "ruclip", tmp_path / "ours")

    def full_disk(path, tensors):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(torch_writer, "write", full_disk)
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "out" / "back")]) == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_command_line_mistakes(tmp_path, capsys):
    for arguments in (["mp3", "a", "b"], ["ruclip", "a"], ["ruclip", "a", "b", "--dtype", "int8"]):
        assert main(arguments) == 2
    assert main(["ruclip", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    assert "absent: does not exist" in capsys.readouterr().err
