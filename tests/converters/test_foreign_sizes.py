"""Sizes of configs that are out of range, or not those of the arrays: no model is traced."""

import json
import math
import shutil

import jax
import pytest
from foreign import hf_config, hf_folder

from clip_jax import InputError, config_fields, load, model_folder
from converters import (
    convert,
    export,
    hf_clip,
    open_clip_config,
    rudalle,
    rudolph,
    rudolph_checkpoint,
)
from converters import ruclip as ruclip_kind
from rudolph_jax import load as load_rudolph
from rudolph_jax import load_upscaler, load_vqgan

HUGE = 10**30
WRONG = {
    int: ("1", True, 1.5, [], {}, HUGE, -HUGE, -1, math.nan, 1 << 40),
    float: ("1", True, [], {}, math.nan, math.inf, -math.inf, HUGE, -1.5, ["1"]),
    bool: (0, 1, "x", "true", -1, [], {}, 1.0, math.nan, HUGE),
    str: (0, True, [], {}, 1.5, math.nan, HUGE, ["gelu"], "relu6", "v9"),
}


def forbid_traces(monkeypatch):
    def traced(*_, **__):
        raise AssertionError("a model was traced")

    monkeypatch.setattr(jax, "eval_shape", traced)


def check(translate, field, value, *names):
    with pytest.raises(InputError) as caught:
        translate()
    message = str(caught.value)
    assert any(name in message for name in (field, *names)), (field, value, message)
    assert "\n" not in message and len(message) < 500


def test_every_field_of_transformers_config(small_config):
    tried = 0
    for tower, defaults in (
        ("text_config", hf_clip.TEXT_DEFAULTS), ("vision_config", hf_clip.VISION_DEFAULTS)
    ):  # fmt: skip
        for field, default in defaults.items():
            for value in WRONG[type(default)]:
                settings = hf_config(small_config)
                settings[tower] |= {field: value}
                check(
                    lambda s=settings: hf_clip.from_original(s, None, "x"),
                    field,
                    value,
                    "activation",
                )
                tried += 1
    assert tried == 200


def test_every_field_of_ruclip(goldens):
    original = json.loads((goldens / "ruclip" / "config.json").read_text())
    for field in ruclip_kind.SIZES:
        for value in WRONG[int]:
            changed = original | {field: value}
            check(lambda c=changed: ruclip_kind.from_original(c, "x"), field, value)


@pytest.mark.parametrize("kind", [rudolph, rudalle], ids=lambda kind: kind.__name__)
def test_every_argument_of_the_decoders(goldens, kind):
    family = kind.MODEL_FAMILY
    original = json.loads((goldens / "rudolph_v1" / "config.json").read_text())
    known = rudolph_checkpoint.REQUIRED | {n: type(v) for n, v in family.defaults.items()}
    original = {**family.defaults, **{k: v for k, v in original.items() if k in known}}
    for field, of_type in known.items():
        for value in WRONG[of_type]:
            if field == "embedding_dropout_prob" and value in (HUGE, -1.5):
                continue  # never applied, so any number is taken
            ours = [name for name, theirs in rudolph_checkpoint.FIELDS.items() if field in theirs]
            changed = original | {field: value}
            check(
                lambda c=changed: rudolph_checkpoint.from_original(family, c, "x"),
                field,
                value,
                *ours,
            )


def test_every_size_of_open_clip(small_config, tmp_path):
    for tower, sizes in (
        ("vision_cfg", open_clip_config.VISION), ("text_cfg", open_clip_config.TEXT)
    ):  # fmt: skip
        for field in sizes:
            for value in WRONG[int]:
                content = open_clip_config.to_original(small_config)
                content["model_cfg"][tower][field] = value
                path = tmp_path / "open_clip_config.json"
                check(lambda c=content, p=path: open_clip_config.from_original(c, p), field, value)


@pytest.mark.parametrize(
    ("tower", "changes", "expected"),
    [
        ("text_config", {"num_hidden_layers": 1000}, "text_config.num_hidden_layers"),
        ("vision_config", {"num_hidden_layers": HUGE}, "vision_config.num_hidden_layers is"),
        ("vision_config", {"image_size": 10**9}, "vision_config.image_size is 1000000000"),
        ("vision_config", {"image_size": 48}, "vision_config.image_size"),
        ("text_config", {"vocab_size": 10**12}, "text_config.vocab_size is 1000000000000"),
        ("text_config", {"vocab_size": 4_000_000}, "text_config.vocab_size"),
        ("text_config", {"max_position_embeddings": 10**9}, "max_position_embeddings is"),
        ("text_config", {"max_position_embeddings": 8000}, "text_config.max_position_embeddings"),
        ("text_config", {"hidden_size": 60_000}, "text_config.hidden_size"),
        ("vision_config", {"intermediate_size": 99}, "vision_config.intermediate_size"),
    ],
)
def test_sizes_that_no_tensor_has(tmp_path, small_config, monkeypatch, tower, changes, expected):
    folder = hf_folder(tmp_path / "hf", small_config)
    content = json.loads((folder / "config.json").read_text())
    content[tower] |= changes
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "preprocessor_config.json").unlink()
    forbid_traces(monkeypatch)
    with pytest.raises(InputError) as caught:
        convert("hf-clip", folder, tmp_path / "out")
    assert expected in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "source", "changes"),
    [
        ("ruclip", "ruclip", {"vision_layers": 900}),
        ("ruclip", "ruclip", {"transformer_layers": 900}),
        ("ruclip", "ruclip", {"vocab_size": 4_000_000}),
        ("ruclip", "ruclip", {"context_length": 8000}),
        ("ruclip", "ruclip", {"image_resolution": 2048}),
        ("rudolph", "rudolph_v1", {"num_layers": 900}),
        ("rudolph", "rudolph_v1", {"image_tokens_per_dim": 60}),
        ("rudolph", "rudolph_v1", {"hidden_size": 48_000}),
    ],
)
def test_sizes_of_the_originals_that_no_tensor_has(
    tmp_path, goldens, monkeypatch, kind, source, changes
):
    folder = shutil.copytree(goldens / source, tmp_path / "source")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))
    forbid_traces(monkeypatch)
    with pytest.raises(InputError, match=next(iter(changes))):
        convert(kind, folder, tmp_path / "out")


FOLDERS = {
    "clip": (load, [("vision", "layers", 900), ("text", "vocab_size", 4_000_000),
                    ("text", "context_length", 8000), ("vision", "width", 12_800)]),
    "rudolph": (load_rudolph, [("layers", 900), ("left_text_length", 3000), ("width", 48_000),
                               ("image_tokens_per_side", 60), ("image_vocab_size", 4_000_000)]),
    "vqgan": (load_vqgan, [("residual_blocks", 60), ("codebook_size", 4_000_000)]),
    "upscaler": (load_upscaler, [("blocks", 60), ("features", 60_000), ("growth", 60_000),
                                 ("scale", 8)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_model_folders_are_compared_before_anything_is_traced(tmp_path, goldens, monkeypatch, kind):
    source, name = {
        "clip": ("ruclip", "ruclip"), "rudolph": ("rudolph", "rudolph_v1"),
        "vqgan": ("vqgan", "vqgan"),
        "upscaler": ("real-esrgan", "real_esrgan_x4"),
    }[kind]  # fmt: skip
    folder = tmp_path / "ours"
    convert(source, goldens / name, folder)
    file = folder / model_folder.CONFIG
    whole = json.loads(file.read_text())

    forbid_traces(monkeypatch)
    load_folder, changes = FOLDERS[kind]
    for *path, value in changes:
        changed = json.loads(json.dumps(whole))
        node = changed["config"]
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value
        file.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=path[-1]):
            load_folder(folder)


def test_an_about_of_wrong_kinds(tmp_path):
    for key in ("kind", "config", "provenance"):
        about = {"kind": "clip", "config": {}, "provenance": {}} | {key: [1]}
        (tmp_path / "config.json").write_text(json.dumps(about))
        with pytest.raises(InputError, match=rf"{key} is \[1\]; expected"):
            load(tmp_path)


def test_shown_is_short():
    for value in ("x" * 10**6, [[[]]], list(range(10**5)), 10**9999, {"a": 1}):
        assert len(config_fields.short_repr(value)) < 100


def test_an_export_compares_sizes_too(tmp_path, goldens, monkeypatch):
    convert("ruclip", goldens / "ruclip", tmp_path / "ours")
    file = tmp_path / "ours" / "config.json"
    about = json.loads(file.read_text())
    about["config"]["text"]["context_length"] = 8000
    file.write_text(json.dumps(about))
    forbid_traces(monkeypatch)
    with pytest.raises(InputError, match="text/position_embedding is .*text.context_length"):
        export(tmp_path / "ours", tmp_path / "theirs")
