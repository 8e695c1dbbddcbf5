"""Data of a run: frozen plain data."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

from msgspec import Meta

from clip_jax.config import WHITE, Background
from clip_jax.config_fields import Rows
from clip_jax.errors import InputError

BACKGROUNDS: dict[str, Background] = {"white": WHITE, "black": (0, 0, 0), "none": None}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image; the defaults leave it as evaluation sees it.

    Rendered, `variants` times an image where a set is held in memory, else for each draw:
        scale: smallest and largest side, relative to the model's.
        aspect: largest logarithm of the stretch. rotation: largest angle, in degrees.
        outline: chance of black outlines. lines: chance of thicker or thinner lines. blur: chance.
    For each draw:
        shift: largest shift, in pixels of the model.
        recolour: chance of a change of colour, by these standard deviations: hue (radians),
        saturation and contrast (of the logarithm), brightness (of the full range).
        grey: chance of losing all colour.
    background: grey value 0 to 255 around the image; colours change in relation to it, so that
        it stays.
    """

    variants: Annotated[int, Meta(ge=1, le=1 << 10)] = 1
    scale: tuple[float, ...] = (1.0, 1.0)
    aspect: float = 0.0
    rotation: float = 0.0
    outline: float = 0.0
    lines: float = 0.0
    blur: float = 0.0
    shift: Annotated[int, Meta(ge=0, le=1 << 14)] = 0
    recolour: float = 0.0
    hue: float = 0.15
    saturation: float = 0.3
    contrast: float = 0.2
    brightness: float = 0.1
    grey: float = 0.0
    background: Annotated[int, Meta(ge=0, le=255)] = 255

    @property
    def renders(self) -> bool:
        """Returns whether anything but the plain image is rendered."""
        chances = self.aspect, self.rotation, self.outline, self.lines, self.blur
        return self.scale != (1.0, 1.0) or any(chances)

    @property
    def changes(self) -> bool:
        """Returns whether two draws of an image can differ."""
        return self.renders or any((self.shift, self.recolour, self.grey))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Names the data of a run and how batches are made of it.

    name: a built-in set (`experiments/data/source.py`) or the folder of a prepared TFDS set.
    mix: several sets in place of `name`, each "NAME=WEIGHT": the weights' shares of the examples
    come from them (`experiments/data/mixture.py`).
    directory: where built-in sets are built. vocabulary: a tokenizer.model to use; "" trains a new
    one on the texts, of at most `vocabulary_sample` rows that a fixed seed chooses. batch_size: of
    all devices together. in_memory: decode and render once, for sets that fit. threads: that read
    ahead. draft: decode large JPEG files at a fraction of
    their size, which is faster and gives slightly other pixels than evaluation sees.
    group_by: a feature, such as "style", in which the examples of a batch agree; each of its
    values gets its share of the batches. "" mixes all examples. log_ids: write which examples each
    step learned from into the run's folder (`experiments/data/sample_ids.py`). background: under
    transparent pixels, one of BACKGROUNDS, "none" being their hidden colour; "": what the set
    states, or else the model's config (`experiments/data/background.py`).
    """

    name: str = "digits_ru"
    mix: tuple[str, ...] = ()
    directory: str = "runs/data"
    split: str = "train"
    vocabulary: str = ""
    vocabulary_sample: Annotated[int, Meta(ge=1)] = 1_000_000
    batch_size: Rows = 128
    in_memory: bool = True
    threads: Annotated[int, Meta(ge=0, le=1 << 10)] = 1
    draft: bool = False
    group_by: str = ""
    log_ids: bool = False
    background: str = ""
    augment: AugmentConfig = AugmentConfig()

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each set by name; an entry of `mix` without one raises InputError."""
        if not self.mix:
            return {self.name: 1.0}
        found = {}
        for entry in self.mix:
            name, _, number = entry.rpartition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            expect(
                bool(name) and 0 < weight < math.inf,
                "data.mix", self.mix, "entries NAME=WEIGHT with weights above 0",
            )  # fmt: skip
            expect(name not in found, "data.mix", self.mix, f"{name!r} once")
            found[name] = weight
        return found


def expect(good: bool, key: str, value: Any, wish: str) -> None:
    """Raises InputError unless a value of the config is good."""
    if not good:
        raise InputError(f"config.{key} is {value!r}; expected {wish}")


def check_data(data: DataConfig) -> None:
    """Values that no run could use raise InputError."""
    augment = data.augment
    expect(data.batch_size > 0, "data.batch_size", data.batch_size, "a positive number")
    expect(data.threads >= 0, "data.threads", data.threads, "0 or more")
    expect(bool(data.weights), "data.mix", data.mix, "entries NAME=WEIGHT")
    known = ", ".join(BACKGROUNDS)
    expect(data.background in ("", *BACKGROUNDS), "data.background", data.background, known)
    expect(
        len(augment.scale) == 2 and 0 < augment.scale[0] <= augment.scale[1],
        "data.augment.scale", augment.scale, "two positive numbers, the smaller first",
    )  # fmt: skip
    for chance in ("outline", "lines", "blur", "recolour", "grey"):
        value = getattr(augment, chance)
        expect(0 <= value <= 1, f"data.augment.{chance}", value, "a chance, 0 to 1")
    expect(augment.variants > 0, "data.augment.variants", augment.variants, "at least 1")
    expect(augment.shift >= 0, "data.augment.shift", augment.shift, "0 or more pixels")
    expect(
        0 <= augment.background <= 255,
        "data.augment.background", augment.background, "0 to 255",
    )  # fmt: skip
