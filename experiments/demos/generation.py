"""Drawings judged by a classifier that has nothing to do with the models that made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from clip_jax import Predictor
from experiments.demos.baselines import pixel_features
from rudolph_jax import tasks
from rudolph_jax.pretrained import PretrainedRudolph

FEATURE_SIZE = 16  # side to which images shrink before the classifier sees them
# Tiny models spread some probability over codes that fit badly.
TEMPERATURE, TOP_P = 0.8, 0.95


@dataclasses.dataclass(frozen=True)
class Drawings:
    """Candidates of each prompt in groups, of each of which a ranking keeps one.

    pictures: uint8[prompts, groups, each, H, W, 3]. own: float32[prompts, groups, each], the
    model's own scores, low is good; ruclip: cosines of a ruCLIP, high is good.
    """

    prompts: Sequence[str]
    pictures: np.ndarray
    own: np.ndarray
    ruclip: np.ndarray

    def first(self) -> np.ndarray:
        """uint8[prompts, groups, H, W, 3]: without any ranking."""
        return self.pictures[:, :, 0]

    def best_by_own(self) -> np.ndarray:
        return self._kept(self.own.argmin(axis=-1))

    def best_by_ruclip(self) -> np.ndarray:
        return self._kept(self.ruclip.argmax(axis=-1))

    def _kept(self, place: np.ndarray) -> np.ndarray:
        place = place[..., None, None, None, None]
        return np.take_along_axis(self.pictures, place, axis=2)[:, :, 0]


def draw(
    rudolph: PretrainedRudolph,
    predictor: Predictor,
    prompts: Sequence[str],
    groups: int,
    each: int,
    seed: int = 0,
) -> Drawings:
    """groups * each candidates for each prompt, with the scores of both rankings."""
    pictures, own, ruclip = [], [], []
    count = groups * each
    for number, prompt in enumerate(prompts):
        codes = tasks.generate_codebooks(
            rudolph,
            prompt,
            count,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=TOP_P,
            seed=seed + number,
            batch_size=count,
            quiet=True,
        )
        drawn = rudolph.decode_images(codes)
        own.append(tasks.self_reranking_by_text(rudolph, prompt, codes, batch_size=count)[2])
        order, cosines = tasks.ruclip_reranking(predictor, prompt, drawn)
        ruclip.append(cosines[np.argsort(order)])
        pictures.append(np.stack([np.asarray(picture) for picture in drawn]))
    shape = (len(prompts), groups, each)
    stacked = np.stack(pictures)
    return Drawings(
        prompts,
        stacked.reshape(*shape, *stacked.shape[2:]),
        np.stack(own).reshape(shape),
        np.stack(ruclip).reshape(shape),
    )


class Judge:
    """A support vector machine from scikit-learn on pixels, trained on labelled pictures."""

    def __init__(self, pictures: np.ndarray, labels: Sequence[int]) -> None:
        """pictures: uint8[N, H, W, 3], of the image tokenizer's make: so are those to judge."""
        from sklearn.svm import SVC

        self._machine = SVC(C=10.0).fit(_features(pictures), labels)

    def name(self, pictures: np.ndarray) -> np.ndarray:
        """int[...]: the classes of uint8[..., H, W, 3]."""
        flat = pictures.reshape(-1, *pictures.shape[-3:])
        return self._machine.predict(_features(flat)).reshape(pictures.shape[:-3])


def _features(pictures: np.ndarray) -> np.ndarray:
    return pixel_features(list(pictures), FEATURE_SIZE)
