"""The prompts that an evaluation asks with."""

from types import SimpleNamespace

import pytest

from clip_jax import PRESETS, RUCLIP_SMALL, InputError, PretrainedClip
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.prompts.class_names import load_class_names
from experiments.evaluation.prompts.class_prompts import prompts_for
from experiments.evaluation.sets.table import REPORT


def opening(config):
    return ClipModel("x", PretrainedClip(config, {}), "ru", "ruclip").prompt_prefix


def test_ruclip_small_is_asked_as_its_authors_did():
    assert opening(PRESETS["ruclip-vit-base-patch32-224"]) == ""
    assert opening(RUCLIP_SMALL) == "Изображение "
    pictures = SimpleNamespace(name="cifar10", class_names=("cat", "truck"))
    prompts = prompts_for(pictures, "ru", prefix=opening(RUCLIP_SMALL))
    assert prompts.by_class == [["Изображение кошки"], ["Изображение грузовика"]]
    assert prompts.source["opening"] == "Изображение "
    every = prompts_for(pictures, "ru")
    assert len(every.by_class[0]) > 1 and "opening" not in every.source


@pytest.mark.parametrize("name", REPORT)
def test_each_set_has_one_prompt_of_that_opening(name):
    classes = tuple(load_class_names(name, "ru").names)
    pictures = SimpleNamespace(name=name, class_names=classes)
    prompts = prompts_for(pictures, "ru", prefix="Изображение ")
    assert [len(of_class) for of_class in prompts.by_class] == [1] * len(classes)
    assert all(of_class[0].startswith("Изображение ") for of_class in prompts.by_class)


def test_an_opening_that_no_template_has():
    pictures = SimpleNamespace(name="cifar10", class_names=("cat", "truck"))
    with pytest.raises(InputError, match="no template begins with 'рисуем '"):
        prompts_for(pictures, "ru", prefix="рисуем ")
