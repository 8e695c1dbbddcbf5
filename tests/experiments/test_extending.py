"""docs/extending.md: each block is a whole file, which trains, shards and plans as it stands."""

import dataclasses
import json
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import clip_jax
import rudolph_jax
from clip_jax import PRESETS, InputError
from converters.clip_tables import OPENAI_RULES, parameter_shapes
from converters.rules import resolve_rules
from experiments.cli.command_line import parse_command_line
from experiments.config.extensions import Extensions
from experiments.config.run import MeshConfig
from experiments.model import load_checkpoint
from experiments.model import main as write_model
from experiments.planning.step import trace_step
from experiments.train import train
from experiments.training.metrics import read_metrics
from rudolph_jax import tasks
from rudolph_jax.config import MaskType
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.text_encoding import encode_left

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ONE = jax.devices()[:1]
PAGE_TEXT = PAGE.read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE_TEXT, re.M | re.S))
# Training configs: what is changed to make them small.
SMALL_CLIP = (
    "--config.model.vision.width=16", "--config.model.vision.heads=2",
    "--config.model.vision.mlp_width=16", "--config.model.vision.layers=1",
    "--config.model.text.width=16", "--config.model.text.mlp_width=16",
    "--config.model.text.layers=1", "--config.model.text.heads=2",
    "--config.data.augment.variants=1",
    "--config.data.batch_size=8", "--config.evaluate_every=2", "--config.checkpoint_every=2",
)  # fmt: skip
RUNS = {"A loss", "An optimiser", "A schedule", "A metric during training", "A text tower"}


def test_the_page_has_what_it_promises():
    assert set(SECTIONS) == {
        *RUNS, "A mask", "A source of data", "A data set of evaluation", "A converter",
    }  # fmt: skip
    for name, code in SECTIONS.items():
        lines = [line for line in code.splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("import ", "from "))]
        assert len(own) < 40 and f"| {name[0].lower()}{name[1:]} | {len(own)} |" in PAGE_TEXT


@pytest.fixture
def experiment(tmp_path):
    """The file of a section, and its config with overrides."""

    def parse(name, *overrides):
        file = tmp_path / f"{name.replace(' ', '_')}.py"
        file.write_text(SECTIONS[name], encoding="utf-8")
        return parse_command_line([f"--config={file}", f"--workdir={tmp_path / 'run'}", *overrides])

    return parse


@pytest.mark.parametrize("name", sorted(RUNS))
def test_training_configs_train_and_plan(experiment, data_directory, name):
    evaluates = name in ("A metric during training", "A text tower")
    config, workdir = experiment(
        name, *SMALL_CLIP, "--config.steps=4", "--config.data.split=test",
        f"--config.data.directory={data_directory}",
        *(() if evaluates else ("--config.evaluators=()",)),
    )  # fmt: skip
    run = train(config, workdir, ONE)
    rows = read_metrics(workdir)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses and np.isfinite(losses).all() and run.model_folder.is_dir()
    written = set().union(*rows)
    if name == "A metric during training":
        assert 0 < run.metrics["gap:validation/distance"] < 2
    if name == "A loss":
        assert {"train/alignment", "train/uniformity"} <= written
    if name == "A text tower":
        params = run.model_folder
        assert json.loads((params / "config.json").read_text())["kind"] == "bag-of-words"
    sharded = config.__class__.from_dict(
        config.to_dict() | {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}, config.extensions
    )
    assert sharded.mesh == MeshConfig(2, 2, 2)
    trace_step(sharded, jax.devices()).traced.lower()


def test_a_mask_is_the_one_that_was_drawn(experiment, small_vqgan_folder, data_directory, tmp_path):
    """Text sees all before it; image tokens see every second row and column, and themselves."""
    config, workdir = experiment(
        "A mask", f"--config.settings.vqgan={small_vqgan_folder}", "--config.steps=2",
        f"--config.data.directory={data_directory}", "--config.data.split=test",
        "--config.model.left_text_length=10", "--config.model.right_text_length=12",
        "--config.model.image_tokens_per_side=4", "--config.model.image_vocab_size=24",
        "--config.model.width=16", "--config.model.layers=2", "--config.model.heads=2",
        "--config.data.batch_size=8", "--config.data.augment.variants=1",
        "--config.evaluators=()",
    )  # fmt: skip
    model = config.model
    drawn = mask(model, "dilated")
    layout = Layout(model)
    for query in range(16):
        for key in range(16):
            (r, c), (s, d) = divmod(query, 4), divmod(key, 4)
            expected = key <= query and (r - s) % 2 == 0 and (c - d) % 2 == 0
            place = layout.image.start + query, layout.image.start + key
            assert drawn[place] == expected
    text = layout.image.stop
    np.testing.assert_array_equal(drawn[text:], np.tri(*drawn.shape, dtype=bool)[text:])
    assert set(layer_mask_types(model)) == {"dilated"}
    run = train(config, workdir, ONE)
    with pytest.raises(InputError, match="mask_order is 'dilated'; expected one of .*custom_mask="):
        rudolph_jax.load(run.model_folder)
    rudolph = rudolph_jax.load(
        run.model_folder, small_vqgan_folder, custom_mask=model.custom_mask
    )
    # Drawing keeps the keys that the mask can see: each code is the likeliest by the whole model.
    codes = tasks.generate_codebooks(rudolph, "цифра два", 2, top_k=1, seed=3)
    left = encode_left(rudolph.tokenizer, model, "цифра два", "LT_T2I")
    ids = np.concatenate([np.tile(left, (2, 1)), codes], axis=1)
    logits = np.asarray(rudolph.logits(ids))[:, layout.image.start - 1 : layout.image.stop - 1]
    image_logits = logits[..., layout.num_text_ids : layout.num_text_ids + 24]
    np.testing.assert_array_equal(image_logits.argmax(-1), codes)
    extensions = Extensions(masks=(model.custom_mask,))
    assert write_model([str(workdir), str(tmp_path / "again")]) == 2
    again = load_checkpoint(workdir, extensions=extensions)
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(rudolph.params), strict=True):
        np.testing.assert_array_equal(a, b)
    sharded = config.__class__.from_dict(
        config.to_dict() | {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}, extensions
    )
    trace_step(sharded, jax.devices()).traced.lower()


def test_a_mask_that_takes_a_known_name_or_gives_a_wrong_shape(small_rudolph_config):
    with pytest.raises(InputError, match="name is 'row'; expected letters, digits and _, and none"):
        MaskType("row", np.equal)
    own = MaskType("own", lambda query, key, side: np.ones((2, 2), bool))
    config = dataclasses.replace(small_rudolph_config, mask_order="own", custom_mask=own)
    with pytest.raises(InputError, match=r"mask 'own' is bool\[2, 2\]; expected bool\[4, 4\]"):
        mask(config, "own")


def test_a_source_of_data_feeds_training_and_evaluation(experiment, tmp_path, monkeypatch):
    folder = tmp_path / "coco"
    folder.mkdir()
    for split, count in (("train", 16), ("val", 6)):
        images, annotations = [], []
        for i in range(count):
            name = f"{split}-{i}.png"
            pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
            images.append({"id": i, "file_name": name})
            annotations.append({"image_id": i, "caption": f"вид номер {i}"})
        listed = {"images": [*images, {"id": 99, "file_name": "none"}], "annotations": annotations}
        (folder / f"captions_{split}.json").write_text(json.dumps(listed), encoding="utf-8")
    monkeypatch.setenv("COCO", str(folder))
    config, workdir = experiment(
        "A source of data", *SMALL_CLIP, "--config.steps=2", "--config.model.text.vocab_size=64"
    )
    run = train(config, workdir, ONE)
    assert 0 <= run.metrics["retrieval:val/mean_recall"] <= 1
    absent, _ = experiment("A source of data", "--config.data.name=coca")
    with pytest.raises(InputError, match="config.data.name is 'coca'"):
        train(absent, tmp_path / "other", ONE)


def run_script(name, monkeypatch, tmp_path, *arguments):
    file = tmp_path / f"{name.replace(' ', '_')}.py"
    file.write_text(SECTIONS[name], encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(file), *map(str, arguments)])
    runpy.run_path(str(file), run_name="__main__")


def test_a_data_set_of_evaluation(ruclip, monkeypatch, tmp_path, capsys):
    for i in range(12):
        folder = tmp_path / "data" / "coins" / "test" / ("грош", "рубль", "талер")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    run_script("A data set of evaluation", monkeypatch, tmp_path, ruclip, tmp_path / "data")
    assert re.fullmatch(r"[01]\.\d{3} of 12 images in 3 classes\n", capsys.readouterr().out)
    (tmp_path / "data/coins/test/грош/0.png").unlink()
    with pytest.raises(InputError, match="split 'test' has 11 examples; expected 12"):
        run_script("A data set of evaluation", monkeypatch, tmp_path, ruclip, tmp_path / "data")
    with pytest.raises(InputError, match="get coins.zip from the museum and unpack it as"):
        run_script("A data set of evaluation", monkeypatch, tmp_path, ruclip, tmp_path)


def test_a_converter(monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(PRESETS["tiny"])
    tensors = {
        "net." + name.replace("visual.", "image_tower."): rng.standard_normal(
            mapping.source_shape, np.float32
        )
        for mapping in resolve_rules(OPENAI_RULES, shapes)
        for name in mapping.sources
    }
    tensors["queue.keys"] = np.zeros((3, 4), np.float32)
    save_file(tensors, tmp_path / "own.safetensors")
    run_script("A converter", monkeypatch, tmp_path, tmp_path / "own.safetensors", tmp_path / "m")
    assert "own-clip:" in capsys.readouterr().out
    params = clip_jax.load(tmp_path / "m").params
    np.testing.assert_array_equal(
        params["visual"]["projection"], tensors["net.image_tower.proj"]
    )
    kernel = tensors["net.transformer.resblocks.1.mlp.c_fc.weight"]
    np.testing.assert_array_equal(params["text"]["layers"]["mlp"]["in_kernel"][1], kernel.T)
    report = json.loads((tmp_path / "m/report.json").read_text("utf-8"))
    assert len(report["tensors"]) == len(tensors)
    del tensors["net.logit_scale"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="'net.logit_scale' is missing; the preset tiny asks"):
        run_script("A converter", monkeypatch, tmp_path, tmp_path / "cut.safetensors", "never")


@pytest.mark.parametrize(
    "code, message",
    [
        ("def get_extensions():\n    return {}", r"get_extensions\(\) returns dict; expected"),
        (
            "from experiments.config.extensions import Extensions\n"
            "def get_extensions():\n    return Extensions(optimizers={'adamw': None})",
            "extensions: optimizer 'adamw' is built in; choose another name",
        ),
    ],
)
def test_extensions_that_cannot_be_meant(tmp_path, data_directory, code, message):
    file = tmp_path / "mine.py"
    head = "from experiments.configs.digits import get_config\n"
    file.write_text(head + code, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        config, workdir = parse_command_line(
            [f"--config={file}", f"--workdir={tmp_path / 'run'}", "--config.data.split=test",
             f"--config.data.directory={data_directory}"]
        )  # fmt: skip
        train(config, workdir, ONE)


def test_names_that_nobody_brings_are_refused(experiment):
    for section, key in (("An optimiser", "optimizer"), ("A schedule", "schedule")):
        with pytest.raises(InputError, match=rf"config.optim.{key} is 'typo'; expected one of"):
            experiment(section, f"--config.optim.{key}=typo")
    with pytest.raises(InputError, match="config.objective is 'typo'; expected one of clip, "):
        experiment("A loss", "--config.objective=typo")
