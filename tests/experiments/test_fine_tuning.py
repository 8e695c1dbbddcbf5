"""The recipes for one's own images, and models averaged with what they began from (WiSE-FT)."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from prepared_sources import picture

import clip_jax
import rudolph_jax
from clip_jax import InputError, PretrainedClip
from clip_jax.layers import stack_layers
from clip_jax.model import Clip
from experiments.cli.command_line import parse_command_line
from experiments.config.optimizer import LoraConfig
from experiments.config.run import InitConfig
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.data.vocabulary import train_tokenizer
from experiments.model import main as write_model
from experiments.train import train
from experiments.training.partitioning import make_mesh
from experiments.training.run_objective import make_run_objective

ONE = jax.devices()[:1]
CAPTIONS = [f"вид номер {i}" for i in range(24)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, small_config):
    """A folder of a small ruCLIP with a vocabulary."""
    text = dataclasses.replace(small_config.text, vocab_size=64)
    config = dataclasses.replace(small_config, text=text)
    ids = np.zeros((1, text.context_length), np.int32)
    side = config.vision.image_size
    init = jax.jit(Clip(config).init)
    params = init(jax.random.key(9), ids, np.zeros((1, side, side, 3), np.float32))["params"]
    tokenizer = train_tokenizer(CAPTIONS, 64)
    folder = tmp_path_factory.mktemp("models") / "start"
    return PretrainedClip(config, jax.device_get(params), tokenizer).save(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = tmp_path_factory.mktemp("mine")
    for i in range(24):
        (source / f"{i}.png").write_bytes(picture(i, "PNG"))
    with (source / "list.csv").open("w", encoding="utf-8", newline="") as file:
        rows = ((f"{i}.png", caption) for i, caption in enumerate(CAPTIONS))
        csv.writer(file).writerows([("image", "caption"), *rows])
    out = source.parent / "prepared"
    prepare(SourceConfig(str(source)), out, WriteConfig(validation=0.25))
    return out


def parse(config, *overrides):
    path = f"--config=experiments/configs/{config}"
    return parse_command_line([path, "--workdir=unused", *overrides])[0]


def test_the_recipe_takes_its_architecture_from_the_model(model):
    config = parse(f"finetune_clip.py:{model}", "--config.optim.learning_rate=0.5")
    assert config.model == clip_jax.load(model).config
    assert config.init.folder == str(model) and config.optim.learning_rate == 0.5


def test_a_recipe_without_a_model_or_with_another_kind(model, small_vqgan_folder):
    with pytest.raises(InputError, match=r"--config=experiments/configs/finetune_clip.py:MODEL"):
        parse("finetune_clip.py")
    with pytest.raises(InputError, match=r"kind 'vqgan'; finetune_clip.py takes one of kind 'cl"):
        parse(f"finetune_clip.py:{small_vqgan_folder}")
    with pytest.raises(InputError, match="takes one of kind 'rudolph'"):
        parse(f"finetune_rudolph.py:{model}")


def test_the_recipe_ends_by_itself_and_leaves_an_averaged_model(model, data, tmp_path, capsys):
    config = parse(
        f"finetune_clip.py:{model}", f"--config.data.name={data}", "--config.steps=6",
        "--config.data.batch_size=8", "--config.evaluate_every=2", "--config.checkpoint_every=2",
        "--config.keep_checkpoints=5", "--config.early_stop=1", "--config.optim.learning_rate=0.01",
        "--config.optim.warmup_steps=0", "--config.init.wise_ft=0.3",
    )  # fmt: skip
    run = train(config, tmp_path / "run", ONE)
    assert "retrieval:validation/mean_recall" in run.metrics
    assert clip_jax.load(run.model_folder).config == config.model
    command = [str(tmp_path / "run"), "--step=best"]
    weights = {}
    for name, weight in (("tuned", "0"), ("half", "0.5"), ("recipe", "0.3")):
        assert write_model([*command, str(tmp_path / name), f"--wise-ft={weight}"]) == 0
        weights[name] = flatten_dict(clip_jax.load(tmp_path / name).params)
    begun, final = (flatten_dict(clip_jax.load(f).params) for f in (model, run.model_folder))
    moved = 0.0
    for path, start in begun.items():
        tuned = np.asarray(weights["tuned"][path])
        moved = max(moved, float(np.abs(tuned - start).max()))
        np.testing.assert_allclose(weights["half"][path], (start + tuned) / 2, atol=1e-6)
        np.testing.assert_allclose(final[path], 0.3 * start + 0.7 * tuned, atol=1e-6)
        np.testing.assert_array_equal(final[path], weights["recipe"][path])
    assert moved > 1e-3
    assert write_model([*command, str(tmp_path / "wrong"), "--wise-ft=1"]) == 2
    assert "config.init.wise_ft is 1.0" in capsys.readouterr().err


def test_parameters_that_began_anew_are_not_averaged(model, train_config):
    text = dataclasses.replace(train_config.model.text, vocab_size=64, layers=3)
    config = dataclasses.replace(
        train_config, model=dataclasses.replace(train_config.model, text=text),
        init=InitConfig(str(model), ("text/token_embedding", "text/layers/1/.*"), wise_ft=0.25),
    )  # fmt: skip
    objective = make_run_objective(config, make_mesh(config.mesh, ONE))
    tuned = jax.tree.map(np.asarray, objective.init(jax.random.key(1)))
    start = stack_layers(clip_jax.model_folder.read_params(model))
    found = objective.pretrained(tuned, None).params
    np.testing.assert_array_equal(
        found["text"]["token_embedding"], tuned["text"]["token_embedding"]
    )
    a, b, c = (p["text"]["layers"]["mlp"]["in_kernel"] for p in (start, tuned, found))
    np.testing.assert_allclose(c[0], 0.25 * a[0] + 0.75 * b[0], atol=1e-6)
    np.testing.assert_array_equal(c[1], b[1])


def test_averaging_scales_low_rank_updates(model, train_config):
    text = dataclasses.replace(train_config.model.text, vocab_size=64, layers=3)
    optim = dataclasses.replace(train_config.optim, lora=LoraConfig(rank=2, alpha=3.0))
    config = dataclasses.replace(
        train_config, optim=optim, init=InitConfig(str(model), wise_ft=0.4),
        model=dataclasses.replace(train_config.model, text=text),
    )  # fmt: skip
    objective = make_run_objective(config, make_mesh(config.mesh, ONE))
    base = stack_layers(clip_jax.model_folder.read_params(model))
    lora = objective.init(jax.random.key(1))["lora"]
    lora = jax.tree.map(lambda x: x + 0.1, lora)
    found = objective.pretrained({"base": base, "lora": lora}, None).params
    pair = lora["text"]["layers"]["attention"]["out_kernel"]
    product = np.einsum("LIr,LrO->LIO", pair["a"], pair["b"]) * (3.0 / 2) * 0.6
    kernel = np.asarray(base["text"]["layers"]["attention"]["out_kernel"])
    expected = kernel + product.reshape(kernel.shape)
    np.testing.assert_allclose(
        found["text"]["layers"]["attention"]["out_kernel"], expected, atol=1e-5
    )


def test_averaging_needs_a_model(train_config):
    config = dataclasses.replace(train_config, init=InitConfig(wise_ft=0.5))
    with pytest.raises(InputError, match="config.init.folder is ''; expected a model folder"):
        config.from_dict(config.to_dict())


def test_rudolphs_recipe_trains_low_rank_updates(
    small_rudolph, small_vqgan_folder, data, tmp_path
):
    folder = small_rudolph.save(tmp_path / "start")
    config = parse(
        f"finetune_rudolph.py:{folder}", f"--config.data.name={data}", "--config.steps=2",
        f"--config.settings.vqgan={small_vqgan_folder}", "--config.data.batch_size=8",
        "--config.evaluate_every=2", "--config.checkpoint_every=2",
        "--config.data.augment.variants=1",
    )  # fmt: skip
    run = train(config, tmp_path / "run", ONE)
    assert np.isfinite(run.metrics["losses:validation/mean_loss"])
    loaded = rudolph_jax.load(run.model_folder, small_vqgan_folder)
    begun = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    assert loaded.config.to_dict() == small_rudolph.config.from_dict(begun).to_dict()
