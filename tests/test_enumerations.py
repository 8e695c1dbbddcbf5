"""Every name that code tells apart: each known one is taken, any other raises and is shown.

A branch that takes what is left over would turn a misspelt name into another one without a word.
"""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute, ImageConfig, InputError
from clip_jax.activation import ACTIVATIONS, activate
from clip_jax.config import PRESETS
from clip_jax.contrastive import DUPLICATES, FORMS, contrastive_loss, sigmoid_loss
from clip_jax.predictor import mean_latents
from converters.api import KINDS, convert
from converters.conversion import DTYPES
from experiments.config.data import BACKGROUNDS, DataConfig, check_data
from experiments.config.objective import DEFAULTS, ClipSettings, RudolphSettings, VqganSettings
from experiments.config.optimizer import MOMENT_DTYPES, OPTIMIZERS, SCHEDULES, OptimConfig
from experiments.config.run import (
    BEST,
    FINAL_MODELS,
    PARALLEL,
    TRACKERS,
    TrainConfig,
    check,
    default_config,
)
from experiments.data import sources
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.schema import SCHEMAS
from experiments.data.sources.shards import WriteConfig
from experiments.evaluation.during_training.evaluators import TASKS, make_evaluators
from experiments.evaluation.sets.record import METRICS, SetRecord
from experiments.planning.chips import CHIPS, chip_named
from experiments.training.optimizer import BASE_OPTIMIZERS, make_optimizer
from experiments.training.schedules import SCHEDULES as MADE_SCHEDULES
from experiments.training.schedules import make_schedule
from rudolph_jax.cache_window import cache_window
from rudolph_jax.config import MASK_ORDERS, VQGAN_PRESETS
from rudolph_jax.config import PRESETS as RUDOLPH_PRESETS
from rudolph_jax.decode import SamplerConfig
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.layout import SPECIAL_TOKENS, Layout
from rudolph_jax.masks import MASK_TYPES, layer_mask_types, mask
from rudolph_jax.vqgan_init import INITIALIZATIONS, initial_params

TINY, SMALL = PRESETS["tiny"], RUDOLPH_PRESETS["tiny"]
ROWS = jnp.eye(8, dtype=jnp.float32)


def config_field(config, field):
    return lambda name: dataclasses.replace(config, **{field: name})


def traced(function, *arrays, name):
    """A name is refused while the function is traced; nothing is compiled."""
    return lambda value: jax.eval_shape(lambda: function(*arrays, **{name: value}))


def run_field(field, **others):
    return lambda name: check(dataclasses.replace(TrainConfig(), **{field: name}, **others))


def optim_field(field):
    def call(name):
        return check(TrainConfig(optim=OptimConfig(**{field: name})))

    return call


def prepared(field):
    """Refused before anything is looked at, or else for the source that is not there."""

    def call(name):
        config, rules = SourceConfig("nowhere"), WriteConfig()
        target = config if hasattr(config, field) else rules
        changed = dataclasses.replace(target, **{field: name})
        try:
            prepare(
                changed if target is config else config, "out",
                changed if target is rules else rules,
            )  # fmt: skip
        except InputError as error:
            if "nowhere: no such file" not in str(error):
                raise

    return call


def converted(field):
    def call(name):
        options = {"kind": "ruclip", "dtype": "float32", field: name}
        try:
            convert(src="nowhere", dst="out", **options)
        except InputError as error:
            if not re.search("nowhere|no such", str(error)):
                raise

    return call


def evaluator(name):
    try:
        make_evaluators(TrainConfig(evaluators=(f"{name}:no_split",), data=DataConfig(name="no")))
    except InputError as error:
        if "config.data.name is 'no'" not in str(error):
            raise


WITH_TOKENS = dataclasses.replace(SMALL, text_special_tokens=len(SPECIAL_TOKENS))
# What calls the name -> the known ones, and a call of it.
NAMES = {
    # clip_jax
    "image.resample": (("bilinear", "bicubic"), config_field(ImageConfig(), "resample")),
    "image.crop": (
        ("square_then_resize", "resize_then_crop"), config_field(ImageConfig(), "crop"),
    ),
    "activation": (("quick_gelu", "gelu", "gelu_tanh"), config_field(TINY, "activation")),
    "activate": (ACTIVATIONS, lambda name: activate(name, ROWS)),
    "dtype": (("float32", "bfloat16", "float16"), lambda name: Compute(dtype=name)),
    "remat": (("none", "block", "dots"), lambda name: Compute(remat=name)),
    "contrastive form": (FORMS, traced(contrastive_loss, ROWS, ROWS, 1.0, name="form")),
    "contrastive duplicates": (
        DUPLICATES, traced(contrastive_loss, ROWS, ROWS, 1.0, name="duplicates"),
    ),
    "sigmoid form": (FORMS, traced(sigmoid_loss, ROWS, ROWS, 1.0, 0.0, name="form")),
    "average": (("ruclip", "clip"), lambda name: mean_latents(np.ones((2, 3)), name)),
    # rudolph_jax
    "mask_order": (MASK_ORDERS, config_field(SMALL, "mask_order")),
    "mask": (MASK_TYPES, lambda name: mask(SMALL, name)),
    "cache window": (MASK_TYPES, lambda name: cache_window(SMALL, name, "image")),
    "conv_edges": (("clamp", "wrap"), config_field(SMALL, "conv_edges")),
    "rudolph activation": (("gelu_tanh", "gelu"), config_field(SMALL, "activation")),
    "segment": (
        ("left", "image", "right"), lambda name: SamplerConfig(SMALL, Compute(), name, 1),
    ),
    "guidance": (
        ("none", "probabilities", "logits"),
        lambda name: SamplerConfig(SMALL, Compute(), "image", 1, name),
    ),
    "special token": (SPECIAL_TOKENS, Layout(WITH_TOKENS).special_id),
    # converters
    "converters kind": (KINDS, converted("kind")),
    "converters dtype": (DTYPES, converted("dtype")),
    # experiments
    "objective": (DEFAULTS, default_config),
    "parallel": (PARALLEL, run_field("parallel")),
    "best_mode": (BEST, run_field("best_mode")),
    "report_to": (TRACKERS, lambda name: run_field("report_to")((name,))),
    "final_model": (
        FINAL_MODELS,
        run_field("final_model", best_metric="retrieval:a/top1", evaluators=("retrieval:a",),
                  evaluate_every=100),
    ),
    "optim.optimizer": (OPTIMIZERS, optim_field("optimizer")),
    "optim.schedule": (SCHEDULES, optim_field("schedule")),
    "optim.moment_dtype": (MOMENT_DTYPES, optim_field("moment_dtype")),
    "make_optimizer": (
        BASE_OPTIMIZERS, lambda name: make_optimizer(OptimConfig(optimizer=name), 10),
    ),
    "make_schedule": (
        MADE_SCHEDULES, lambda name: make_schedule(OptimConfig(schedule=name), 10),
    ),
    "settings.form": (FORMS, lambda name: ClipSettings(form=name).check()),
    "settings.duplicates": (DUPLICATES, lambda name: ClipSettings(duplicates=name).check()),
    "settings.initialization": (
        INITIALIZATIONS, lambda name: VqganSettings(initialization=name).check(),
    ),
    "initialization": (
        INITIALIZATIONS,
        lambda name: jax.eval_shape(
            lambda key: initial_params(VQGAN_PRESETS["tiny"], name, key), jax.random.key(0)
        ),
    ),
    "settings.question_about": (
        QUESTIONS, lambda name: RudolphSettings(vqgan="x", question_about=name).check(),
    ),
    "data.background": (BACKGROUNDS, lambda name: check_data(DataConfig(background=name))),
    "evaluators": (TASKS["clip"], evaluator),
    "prepare --form": (SCHEMAS, prepared("form")),
    "prepare --background": (BACKGROUNDS, prepared("background")),
    "metric of a set": (
        METRICS,
        lambda name: SetRecord(
            name="a", title="a", source="folder", metric=name, classes=None, examples={}
        ),
    ),
    "--chip": (CHIPS, chip_named),
}


@pytest.mark.parametrize("where", NAMES)
def test_known_names_are_taken_and_others_raise(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known, call = NAMES[where]
    for name in known:
        call(name)
    for wrong in ("typo", "", next(iter(known)).upper() + "_"):
        if wrong in known or (wrong == "" and where in ("data.background", "prepare --background")):
            continue
        with pytest.raises((InputError, ValueError, KeyError)) as caught:
            call(wrong)
        if not isinstance(caught.value, KeyError):
            message = str(caught.value)
            assert "\n" not in message and sum(str(name) in message for name in known) >= 2, message


def test_prepare_kinds(tmp_path):
    for kind in sources.KINDS:
        with pytest.raises(InputError) as caught:
            sources.make_plan(SourceConfig(str(tmp_path), kind=kind))
        assert "--kind is" not in str(caught.value)
    with pytest.raises(InputError, match="--kind is 'typo'; expected one of pictures, tar, "):
        sources.make_plan(SourceConfig(str(tmp_path), kind="typo"))


def test_tables_of_functions_have_the_names_of_the_configs():
    assert set(BASE_OPTIMIZERS) == set(OPTIMIZERS) and set(MADE_SCHEDULES) == set(SCHEDULES)
    assert set(TASKS) == set(DEFAULTS)
    used = {name for order in MASK_ORDERS for layers in (5, 8)
            for name in layer_mask_types(config_field(SMALL, "mask_order")(order)
                                         if layers == SMALL.layers else
                                         dataclasses.replace(SMALL, mask_order=order,
                                                             layers=layers))}  # fmt: skip
    assert used == set(MASK_TYPES)


def test_each_mask_and_activation_is_another_one():
    drawn = [mask(RUDOLPH_PRESETS["350M"], name).tobytes() for name in MASK_TYPES]
    assert len(set(drawn)) == len(MASK_TYPES)
    x = jnp.linspace(-3, 3, 31)
    values = [np.asarray(activate(name, x)) for name in ACTIVATIONS]
    for i, a in enumerate(values):
        assert all(np.abs(a - b).max() > 1e-4 for b in values[:i])


def test_no_choice_is_missing_here():
    """`check_choice` is how dataclasses and functions refuse a name: each use is tried above."""
    root = Path(__file__).parent.parent
    elsewhere = {
        "--configs", "--programs", "--slices", "--preset", "--without", "weights", "about", "form",
    }  # their own tests  # fmt: skip
    for package in ("clip_jax", "rudolph_jax", "converters", "experiments", "benchmarks"):
        for file in (root / package).rglob("*.py"):
            for name in re.findall(r'check_choice\(\s*"([^"]+)"', file.read_text("utf-8")):
                assert name in set(NAMES) | elsewhere, f"{file}: {name}"
