"""The large experiment files: that they load, and that their numbers are the published ones."""

import dataclasses
import importlib
from pathlib import Path

import pytest

from clip_jax.config import PRESETS
from experiments.cli.command_line import parse_command_line
from experiments.config.run import TrainConfig
from rudolph_jax.config import PRESETS as RUDOLPH_PRESETS
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.layout import Layout

FOLDER = Path(__file__).parents[2] / "experiments" / "configs"
ENGLISH = ("text/token_embedding",)

# model, steps, peak rate, what it begins from, what of that it leaves
RUCLIP = {
    "ruclip_vit_large_patch14_224": (380_000, 4e-4, "", ()),
    "ruclip_vit_large_patch14_336": (15_000, 2e-5, "models/ruclip-vit-large-patch14-224", ()),
    "ruclip_vit_base_patch32_224": (140_000, 5e-4, "models/clip-vit-base-patch32", ENGLISH),
    "ruclip_vit_base_patch16_224": (140_000, 5e-4, "models/clip-vit-base-patch16", ENGLISH),
    "ruclip_vit_base_patch32_384": (20_000, 2e-5, "models/ruclip-vit-base-patch32-224", ()),
    "ruclip_vit_base_patch16_384": (20_000, 2e-5, "models/ruclip-vit-base-patch16-224", ()),
}
RUDOLPH = {"rudolph_350m": ("350M", 3e-4), "rudolph_1_3b": ("1.3B", 2e-4),
           "rudolph_2_7b": ("2.7B", 1.6e-4)}  # fmt: skip
# batch, weights of left text, image and right text, size, the one task, questions' tokens
FINE_TUNES = {
    "rudolph_caption": (10, (0.01, 1.0, 7.0), "350M", "image_to_text", "plain"),
    "rudolph_draw": (10, (1.0, 7.0, 0.0), "350M", "text_to_image", "plain"),
    "rudolph_sberquad": (4, (0.01, 0.01, 7.0), "2.7B", "question", "text"),
    "rudolph_vqa": (4, (1.0, 1.0, 7.0), "2.7B", "question", "image"),
}


def load(name: str, *overrides: str) -> TrainConfig:
    """Load as a command line does, which checks it."""
    path = FOLDER / f"{name}.py"
    config, _ = parse_command_line([f"--config={path}", "--workdir=unused", *overrides])
    assert config == importlib.import_module(f"experiments.configs.{name}").train_config()
    return config


@pytest.mark.parametrize("name", RUCLIP)
def test_ruclip_stages_are_the_reports(name):
    config = load(name)
    steps, rate, folder, leave = RUCLIP[name]
    assert config.model == PRESETS[name.replace("_", "-")]
    assert (config.steps, config.data.batch_size) == (steps, 32768)
    assert (config.init.folder, config.init.reinitialize) == (folder, leave)
    optim = config.optim
    assert (optim.learning_rate, optim.beta1, optim.beta2) == (rate, 0.9, 0.98)
    assert (optim.epsilon, optim.weight_decay, optim.warmup_steps) == (1e-6, 0.2, 2000)
    assert (config.compute.dtype, config.settings.form) == ("bfloat16", "ring")


@pytest.mark.parametrize("name", RUDOLPH)
def test_rudolphs_have_their_sizes_and_rates(name):
    config = load(name)
    preset, rate = RUDOLPH[name]
    without = dataclasses.replace(RUDOLPH_PRESETS[preset], attention_dropout=0.0)
    assert config.model == without != RUDOLPH_PRESETS[preset]
    assert config.optim.learning_rate == rate
    settings = config.settings
    weights = settings.left_weight, settings.image_weight, settings.right_weight
    assert weights == (1, 7, 1)
    assert config.init.folder == ""


@pytest.mark.parametrize("name", FINE_TUNES)
def test_fine_tunes_follow_the_published_recipes(name):
    config = load(name)
    batch, weights, size, task, about = FINE_TUNES[name]
    settings, optim = config.settings, config.optim
    assert config.data.batch_size == batch
    assert (settings.left_weight, settings.image_weight, settings.right_weight) == weights
    assert (optim.schedule, optim.learning_rate) == ("one_cycle", 2e-5)
    assert (optim.final_div_factor, optim.clip_norm) == (500, 1)
    assert config.init.folder == f"models/rudolph-{size.lower()}"
    assert config.model == RUDOLPH_PRESETS[size]
    assert [name for name, share in settings.tasks.items() if share] == [task]
    assert settings.question_about == about
    for token in QUESTIONS[about]:
        assert Layout(config.model).special_id(token) >= 16384
