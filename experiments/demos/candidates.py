"""Draws candidates for prompts, of which two rankings choose."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from clip_jax import Predictor
from experiments.training.phases import with_progress
from rudolph_jax import tasks
from rudolph_jax.pretrained import PretrainedRudolph

# Tiny models spread some probability over codes that fit badly.
TEMPERATURE, TOP_P = 0.8, 0.95


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Candidates of each prompt in groups, of each of which a ranking chooses one.

    images: uint8[prompts, groups, each, H, W, 3].
    self_score: float32[prompts, groups, each], the model's own, low is good.
    ruclip_score: cosines of a ruCLIP, high is good.
    """

    prompts: Sequence[str]
    images: np.ndarray
    self_score: np.ndarray
    ruclip_score: np.ndarray

    def first(self) -> np.ndarray:
        """uint8[prompts, groups, H, W, 3]: without any ranking."""
        return self.images[:, :, 0]

    def best_by_self(self) -> np.ndarray:
        return self._chosen(self.self_score.argmin(axis=-1))

    def best_by_ruclip(self) -> np.ndarray:
        return self._chosen(self.ruclip_score.argmax(axis=-1))

    def _chosen(self, place: np.ndarray) -> np.ndarray:
        place = place[..., None, None, None, None]
        return np.take_along_axis(self.images, place, axis=2)[:, :, 0]


def draw_candidates(
    rudolph: PretrainedRudolph,
    predictor: Predictor,
    prompts: Sequence[str],
    groups: int,
    each: int,
    seed: int = 0,
) -> Candidates:
    """groups * each candidates for each prompt, with the scores of both rankings."""
    images, self_score, ruclip_score = [], [], []
    count = groups * each
    for number, prompt in enumerate(with_progress(prompts, "drawing", sys.stdout)):
        codes = tasks.generate_codebooks(
            rudolph, prompt, count, temperature=TEMPERATURE, top_k=0, top_p=TOP_P,
            seed=seed + number, batch_size=count, quiet=True,
        )  # fmt: skip
        drawn = rudolph.decode_images(codes)
        self_score.append(tasks.self_reranking_by_text(rudolph, prompt, codes, batch_size=count)[2])
        order, cosines = tasks.ruclip_reranking(predictor, prompt, drawn)
        ruclip_score.append(cosines[np.argsort(order)])
        images.append(np.stack([np.asarray(image) for image in drawn]))
    shape = (len(prompts), groups, each)
    stacked = np.stack(images)
    return Candidates(
        prompts,
        stacked.reshape(*shape, *stacked.shape[2:]),
        np.stack(self_score).reshape(shape),
        np.stack(ruclip_score).reshape(shape),
    )
