"""Chooses the quickstart's emoji: of eight styles, or of the two that pip brings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clip_jax.paths import local_path
from experiments.config.run import TrainConfig
from experiments.data import emoji_archives

EIGHT_STYLES, TWO_STYLES = "emoji_styles_ru", "emoji_ru"
TWO_STYLES_STEPS, TWO_STYLES_VARIANTS = 4500, 12


def archives_folder(directory: str) -> Path:
    """Returns where the archives of the styles are. directory: of the built-in sets."""
    return local_path(directory, "the emoji data") / emoji_archives.FOLDER


def styles_are_there(directory: str) -> bool:
    """Returns whether the set of eight styles is built, or all its archives are there."""
    folder = archives_folder(directory)
    return (folder.parent / EIGHT_STYLES).is_dir() or not emoji_archives.missing(folder)


def use_two_styles(config: TrainConfig) -> TrainConfig:
    """Returns a recipe of eight styles with the data of two.

    ruCLIP takes as many steps and renderings as were measured with two (docs/emoji.md): an image
    of a quarter as many is seen more often.
    """
    data = dataclasses.replace(config.data, name=TWO_STYLES)
    if config.objective != "clip":
        return dataclasses.replace(config, data=data)
    augment = dataclasses.replace(data.augment, variants=TWO_STYLES_VARIANTS)
    data = dataclasses.replace(data, augment=augment)
    return dataclasses.replace(config, data=data, steps=TWO_STYLES_STEPS)


def use_group_words(config: TrainConfig) -> TrainConfig:
    """Returns a recipe of eight styles with captions that name the emoji's group too."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, split="train_words"))
