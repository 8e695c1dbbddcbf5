"""Settings of an objective besides its model: frozen plain data."""

from __future__ import annotations

import dataclasses
from typing import Any

from clip_jax.config import PRESETS as CLIP_PRESETS
from clip_jax.config import ClipConfig
from clip_jax.config_fields import Pixels, Rows
from clip_jax.contrastive import DUPLICATES, FORMS
from experiments.config.data import expect
from rudolph_jax.config import PRESETS as RUDOLPH_PRESETS
from rudolph_jax.config import VQGAN_PRESETS, RudolphConfig, VqganConfig
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.vqgan_init import INITIALIZATIONS

VQGAN_EXPECTED = (
    "the folder of an image tokenizer: --config.settings.vqgan=FOLDER; an experiment file such as "
    "experiments/configs/digits_vqgan.py trains one"
)


@dataclasses.dataclass(frozen=True)
class ClipSettings:
    """form: how the loss of many pairs is computed, "gathered", "tiled" or "ring", and tile: rows
        and columns that a tile has at most; see `docs/losses.md`. All give the same values.
    duplicates: whether equal captions in a batch are one another's "negatives" (as in CLIP and
        ruCLIP) or "positives", or are "masked" out of each other's choices.
    patch_dropout: share of an image's patches that the tower does not see in training.
    """

    form: str = "gathered"
    tile: Rows = 1024
    duplicates: str = "negatives"
    patch_dropout: float = 0.0

    def check(self) -> None:
        for name, choices in (("form", FORMS), ("duplicates", DUPLICATES)):
            value = getattr(self, name)
            expect(value in choices, f"settings.{name}", value, "one of " + ", ".join(choices))
        expect(self.tile > 0, "settings.tile", self.tile, "a positive number")
        share = self.patch_dropout
        expect(0 <= share < 1, "settings.patch_dropout", share, "a share, 0 to below 1")


@dataclasses.dataclass(frozen=True)
class VqganSettings:
    """image_size: of the images that the decoder paints, in pixels.

    temperature_start, temperature_end: of the Gumbel softmax that gradients pass, along half a
        cosine (Ramesh et al. 2021, appendix A.2).
    kl_weight: of the divergence of the codes from the uniform distribution, in nats a token.
    entropy_weight: of the entropy loss (Yu et al. 2023, MAGVIT-v2), in nats a token: above 0, each
        token is to be sure of its code while the codes of a batch are equally frequent. The
        default of 0 leaves it out.
    initialization: of the parameters, "pytorch" (default), or "zero_residual", which learns sooner
        (`rudolph_jax/vqgan_init.py`).
    """

    image_size: Pixels = 32
    temperature_start: float = 1.0
    temperature_end: float = 0.0625
    kl_weight: float = 5e-4
    entropy_weight: float = 0.0
    initialization: str = "pytorch"

    def check(self) -> None:
        for name in ("image_size", "temperature_start", "temperature_end"):
            value = getattr(self, name)
            expect(value > 0, f"settings.{name}", value, "a positive number")
        for name in ("kl_weight", "entropy_weight"):
            value = getattr(self, name)
            expect(value >= 0, f"settings.{name}", value, "0 or above")
        known = ", ".join(INITIALIZATIONS)
        found = self.initialization
        expect(found in INITIALIZATIONS, "settings.initialization", found, f"one of {known}")


@dataclasses.dataclass(frozen=True)
class RudolphSettings:
    """vqgan: the model folder of the image tokenizer, which is not trained.

    left_weight, image_weight, right_weight, legacy_boundary_label: see `rudolph_jax/loss.py`.
    text_to_image, image_to_text, text_to_text, question: how often an example is put in the form
        of each task, relative to the others (`experiments/data/task_forms.py`). A set has captions
        or questions, so the last is 0 or all the others are.
    question_about: whose special tokens questions have, one of `QUESTIONS` of
        `rudolph_jax/image_to_text.py`.
    unknown_token_share: how often special tokens do not tell the task.
    """

    vqgan: str = ""
    left_weight: float = 1.0
    image_weight: float = 7.0
    right_weight: float = 1.0
    legacy_boundary_label: bool = False
    text_to_image: float = 0.5
    image_to_text: float = 0.4
    text_to_text: float = 0.1
    question: float = 0.0
    question_about: str = "plain"
    unknown_token_share: float = 0.3

    @property
    def tasks(self) -> dict[str, float]:
        names = "text_to_image", "image_to_text", "text_to_text", "question"
        return {name: getattr(self, name) for name in names}

    @property
    def asks(self) -> bool:
        """Returns whether the model is trained to answer questions."""
        return self.question > 0

    def check(self) -> None:
        expect(bool(self.vqgan), "settings.vqgan", self.vqgan, VQGAN_EXPECTED)
        weights = {
            name: getattr(self, name) for name in ("left_weight", "image_weight", "right_weight")
        }
        for group in (weights, self.tasks):
            for name, value in group.items():
                expect(value >= 0, f"settings.{name}", value, "0 or above")
            names = ", ".join(group)
            expect(any(group.values()), f"settings.({names})", tuple(group.values()), "one above 0")
        if self.asks:
            others = tuple(value for name, value in self.tasks.items() if name != "question")
            names = "(text_to_image, image_to_text, text_to_text)"
            expect(not any(others), f"settings.{names}", others, "0 beside settings.question")
        about = self.question_about
        known = ", ".join(QUESTIONS)
        expect(about in QUESTIONS, "settings.question_about", about, f"one of {known}")
        share = self.unknown_token_share
        expect(0 <= share <= 1, "settings.unknown_token_share", share, "a share, 0 to 1")


Model = ClipConfig | VqganConfig | RudolphConfig
Settings = ClipSettings | VqganSettings | RudolphSettings

# By objective: the default model and settings, whose types are the ones to expect.
DEFAULTS: dict[str, tuple[Any, Any]] = {
    "clip": (CLIP_PRESETS["tiny"], ClipSettings()),
    "vqgan": (VQGAN_PRESETS["tiny"], VqganSettings()),
    "rudolph": (RUDOLPH_PRESETS["tiny"], RudolphSettings()),
}
