"""Evaluations during training, over all devices and with the parameters where training has them."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Predictor
from clip_jax.pretrained import PretrainedClip
from experiments.cli.exit_status import Stopped
from experiments.config.extensions import EvaluatorType, Extensions
from experiments.config.run import MeshConfig
from experiments.data.source import open_split
from experiments.data.vocabulary import train_tokenizer
from experiments.evaluation.during_training import evaluators, sharded_model
from experiments.evaluation.during_training.sharded_answers import sharded_answers
from experiments.evaluation.during_training.sharded_model import ShardedModel
from experiments.evaluation.methods.reconstruction import reconstruct
from experiments.evaluation.methods.retrieval import number, retrieve_both
from experiments.evaluation.methods.sequence_losses import sequence_losses
from experiments.evaluation.metrics.squad import score_answers
from experiments.evaluation.remarks import LogOnce
from experiments.objectives import make_objective
from experiments.train import train
from experiments.training import loop as loop_module
from experiments.training import partitioning
from experiments.training.metrics import read_metrics
from rudolph_jax.image_to_text import answer_questions

MESHES = [MeshConfig(data=8), MeshConfig(data=2, fsdp=4), MeshConfig(data=2, fsdp=2, tensor=2)]
SLOW = pytest.mark.slow


def sharded(config, mesh, tokenizer=None):
    """An untrained model of the config's objective on a mesh, and its parameters on the host."""
    mesh = partitioning.make_mesh(mesh, jax.devices())
    objective = make_objective(config, mesh)
    params = objective.init(jax.random.key(0))
    placed = jax.device_put(
        params, partitioning.param_shardings(params, objective.sharding_rules, mesh)
    )
    model = ShardedModel(
        placed, config.model, config.compute, tokenizer, mesh, objective.batch_transform
    )
    return model, objective.pretrained(params, tokenizer)


def rows_of(config, count):
    """The first rows of the validation split, whose number no device count divides."""
    opened = open_split(config.data, "validation")
    rows = [opened[i] for i in range(count)]
    return SimpleNamespace(
        rows=rows, split=evaluators.ReadableSplit(Rows(rows, opened.features), config, LogOnce("x"))
    )


class Rows(list):
    has_images, name = True, "validation"

    def __init__(self, rows, features):
        super().__init__(rows)
        self.features = features


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("count", [1, 15, 16, 53])
def test_rows_come_back_in_order_and_each_is_read_once(mesh, count):
    mesh = partitioning.make_mesh(mesh, jax.devices())
    model = ShardedModel({}, None, sharded_model.Compute(), None, mesh)
    values, places = np.random.default_rng(0).standard_normal((count, 3), np.float32), []

    def read(wanted):
        places.extend(wanted)
        return {"x": values[list(wanted)]}

    params = {"w": jnp.ones((1, 3))}
    found = model.map_rows(_Double(), params, count, read, device_rows=2)
    np.testing.assert_array_equal(found, 2 * values)
    assert places == list(range(count))


@dataclasses.dataclass(frozen=True)
class _Double:
    def __call__(self, params, rows):
        assert set(rows) == {"x"}
        return rows["x"] * (params["w"] + 1)


def test_a_signal_ends_all_after_the_same_batch():
    mesh = partitioning.make_mesh(MeshConfig(), jax.devices())
    reads = []

    def read(places):
        reads.append(places)
        return {"x": np.ones((len(places), 1), np.float32)}

    signals = iter([0, 15, 0, 0, 0, 0, 0])
    model = ShardedModel(
        {}, None, sharded_model.Compute(), None, mesh, None, lambda: next(signals)
    )
    with pytest.raises(Stopped) as stopped:
        model.map_rows(_Double(), {"w": jnp.ones((1, 1))}, 7 * 16, read, device_rows=2)
    assert stopped.value.args == (15,)
    assert len(reads) == 2 + sharded_model.ahead(mesh)


def clip_config(config):
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, batch_size=16), evaluators=()
    )


@pytest.mark.parametrize("mesh", [*(pytest.param(m, marks=SLOW) for m in MESHES[:2]), MESHES[2]])
def test_retrieval_equals_a_whole_model_on_one_device(train_config, mesh):
    config = clip_config(train_config)
    given = rows_of(config, 43)
    tokenizer = train_tokenizer([c for row in given.rows for c in row["captions"]], 128)
    model, clip = sharded(config, mesh, tokenizer)
    found = evaluators.caption_recall(config, given.split, model)
    predictor = Predictor(clip, ["{}"], batch_size=64, quiet=True)
    captions = number([row["captions"] for row in given.rows])
    images = predictor.get_image_latents([row["image"] for row in given.rows])
    wanted = retrieve_both(images, predictor.get_text_latents(captions.texts), captions)
    for k in (1, 5, 10):
        assert found[f"top{k}"] == wanted.texts.recall(k)
        assert found[f"pictures_top{k}"] == wanted.images.recall(k)
    latents, _ = evaluators.ShardedClip(model).image_latents(
        43, lambda place: (given.rows[place]["image"], place)
    )
    np.testing.assert_allclose(latents, images, atol=1e-6)


def test_features_have_the_same_bits_on_one_device_and_on_eight(train_config):
    config = clip_config(train_config)
    given = rows_of(config, 43)
    found = []
    for count in (1, 8):
        mesh = partitioning.make_mesh(MeshConfig(), jax.devices()[:count])
        params = make_objective(config, mesh).init(jax.random.key(0))
        placed = jax.device_put(params, partitioning.replicated(mesh))
        model = ShardedModel(placed, config.model, config.compute, None, mesh)
        clip = evaluators.ShardedClip(model)
        found.append(clip.image_latents(43, lambda place: (given.rows[place]["image"], 0))[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("mesh", [pytest.param(MESHES[1], marks=SLOW), MESHES[2]])
def test_losses_of_rudolph(rudolph_train_config, mesh):
    given = rows_of(rudolph_train_config, 21)
    tokenizer = train_tokenizer([c for row in given.rows for c in row["captions"]], 94)
    model, rudolph = sharded(rudolph_train_config, mesh, tokenizer)
    found = evaluators.losses(rudolph_train_config, given.split, model)
    images, first = zip(*((row["image"], row["captions"][0]) for row in given.rows), strict=True)
    wanted = sequence_losses(rudolph, images, first)
    for name in ("image_loss", "right_text_loss"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-6)


def question_rows(config, count, with_images):
    """Rows with a question each, every third without an image."""
    given = rows_of(config, count)
    rows = []
    for number_, row in enumerate(given.rows):
        question, *_ = row["captions"]
        made = {"question": question, "answers": [question, f"цифра {number_}"]}
        if with_images:
            made["image"] = row["image"] if number_ % 3 else None
        else:
            made["context"] = " ".join(row["captions"])
        rows.append(made)
    found = Rows(rows, {"image": None} if with_images else {})
    found.has_images = False  # None of them is unreadable, though some have none.
    return found


@pytest.mark.parametrize(
    "about, mesh", [("image", MESHES[2]), pytest.param("text", MESHES[1], marks=SLOW)]
)
def test_answers_equal_those_of_a_whole_model_on_one_device(about, mesh, rudolph_train_config):
    changes = {"text_special_tokens": 12, "left_text_length": 24, "right_text_length": 8}
    config = dataclasses.replace(
        rudolph_train_config,
        model=dataclasses.replace(rudolph_train_config.model, **changes),
        settings=dataclasses.replace(rudolph_train_config.settings, question_about=about),
    )
    rows = question_rows(config, 21, about == "image")
    tokenizer = train_tokenizer([row["question"] for row in rows], 94)
    model, rudolph = sharded(config, mesh, tokenizer)
    answers, right = sharded_answers(model, rows, about, about == "image")
    images, contexts = ([row.get(key, empty) for row in rows] for key, empty in
                        (("image", None), ("context", "")))  # fmt: skip
    wanted = answer_questions(
        rudolph, [row["question"] for row in rows], images, contexts, about=about, quiet=True
    )
    assert answers == wanted
    assert len(set(wanted)) > 3
    assert right == [row["answers"] for row in rows]
    split = evaluators.ReadableSplit(rows, config, LogOnce("x"))
    scores = evaluators.answer_scores(config, split, model)
    assert scores == score_answers(wanted, right)


def test_reconstruction(vqgan_train_config):
    given = rows_of(vqgan_train_config, 21)
    model, vqgan = sharded(vqgan_train_config, MeshConfig())
    found = evaluators.pixel_errors(vqgan_train_config, given.split, model)
    wanted = reconstruct(vqgan, [row["image"] for row in given.rows], 8)
    assert found["absolute_error"] == pytest.approx(wanted.absolute_error, rel=1e-6)
    assert found["codebook_usage"] == wanted.codebook_usage(24)


GATHERED = re.compile(r"= (?:\()?(\w+)\[([\d,]*)\][^=]* all-gather")


def test_no_parameter_is_gathered_whole(train_config, monkeypatch):
    """Stacked kernels: a program gathers those of a layer at a time, as a step does."""
    config = clip_config(train_config)
    model, _ = sharded(config, MeshConfig(data=1, fsdp=8))
    texts = []

    def compiled(function, mesh):
        run = real(function, mesh)

        def lowered(params, rows):
            texts.append(run.lower(params, rows).compile().as_text())
            return run(params, rows)

        return lowered

    real = sharded_model._compiled
    monkeypatch.setattr(sharded_model, "_compiled", compiled)
    given = rows_of(config, 9)
    evaluators.ShardedClip(model).image_latents(
        9, lambda place: (given.rows[place]["image"], 0)
    )
    (text,) = texts
    found = [
        tuple(int(n) for n in sizes.split(",") if n) for _, sizes in GATHERED.findall(text)
    ]
    stacked = {
        leaf.shape
        for leaf in jax.tree.leaves(model.params["visual"]["layers"])
        if not leaf.is_fully_replicated
    }
    assert found and stacked and not stacked & set(found), found


def test_a_run_evaluates_without_gathering_its_parameters(train_config, tmp_path, monkeypatch):
    config = dataclasses.replace(
        train_config, steps=2, checkpoint_every=0, mesh=MeshConfig(data=2, fsdp=4),
        evaluators=("retrieval:validation", "zero-shot:digits_ru"),
    )  # fmt: skip

    def fail(tree):
        raise AssertionError("parameters were gathered")

    monkeypatch.setattr(loop_module, "fetch_to_host", fail)
    run = train(config, tmp_path)
    found = {key: value for row in read_metrics(tmp_path) for key, value in row.items()}
    made = evaluators.make_evaluators(config)
    for name in config.evaluators:
        for key, value in made[name](run.model).items():
            assert found[f"{name}/{key}"] == pytest.approx(value, abs=1e-6)


def test_pmap_and_low_rank_updates_evaluate_the_merged_model(train_config, tmp_path):
    lora = dataclasses.replace(train_config.optim.lora, rank=2)
    config = dataclasses.replace(
        train_config, steps=2, checkpoint_every=0, parallel="pmap",
        optim=dataclasses.replace(train_config.optim, lora=lora, ema=0.5),
        evaluators=("retrieval:validation",),
    )  # fmt: skip
    run = train(config, tmp_path)
    measured = evaluators.make_evaluators(config)["retrieval:validation"](run.model)
    assert measured["mean_recall"] == pytest.approx(
        run.metrics["retrieval:validation/mean_recall"], abs=1e-6
    )


def test_an_evaluator_of_ones_own_has_the_whole_model_on_one_device(train_config, tmp_path):
    seen = []

    def measure(config, rows, model):
        seen.append(type(model))
        ids = np.full((1, config.model.text.context_length), config.model.eos_id, np.int32)
        return {"norm": float(np.linalg.norm(model.encode_text(ids)))}

    config = dataclasses.replace(
        train_config, steps=2, checkpoint_every=0, evaluators=("own:validation",),
        mesh=MeshConfig(data=2, fsdp=4),
        extensions=Extensions(evaluators={"own": EvaluatorType(measure)}),
    )  # fmt: skip
    run = train(config, tmp_path)
    assert seen == [PretrainedClip] and run.metrics["own:validation/norm"] > 0
