"""The background under the transparent pixels of a run's images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from experiments.config.data import BACKGROUNDS
from experiments.data.sources.schema import CODES
from rudolph_jax.config import VqganConfig

if TYPE_CHECKING:
    from experiments.config.run import TrainConfig
    from experiments.data.mixture import Mixture
    from experiments.data.source import Split


def use_background(config: TrainConfig, split: Split | Mixture) -> TrainConfig:
    """Returns `config` with the background that its data state, which the model then keeps.

    `config.data.background` decides; where it is "", what `prepare --background` wrote into the
    set; where that is nothing, the config stays as it is. Training, evaluation and whatever loads
    the model later see transparent pixels alike. Sets that state different ones, and codes that
    were made on another one, raise InputError.
    """
    stated = split.backgrounds
    name = config.data.background
    if not name and len(stated) > 1:
        found = ", ".join(sorted(background or "nothing" for background in stated))
        raise InputError(
            f"config.data.mix has sets with different backgrounds ({found}); "
            "say which with config.data.background"
        )
    if name and CODES in split.metadata and stated != {name}:
        raise InputError(
            f"config.data.background is {name!r}; the codes of {split} were made with background "
            f"{'/'.join(sorted(stated))!r}: prepare it again with --background"
        )
    name = name or next(iter(stated))
    if not name:
        return config
    color = BACKGROUNDS[name]
    model = config.model
    if isinstance(model, ClipConfig):
        image = dataclasses.replace(model.image, background=color)
        model = dataclasses.replace(model, image=image)
    elif isinstance(model, VqganConfig):
        model = dataclasses.replace(model, background=color)
    data = dataclasses.replace(config.data, background=name)
    return dataclasses.replace(config, data=data, model=model)
