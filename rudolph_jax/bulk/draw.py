"""Draws many texts, each with a seed of its own.

The drawings of a text are those that `draw TEXT --seed=SEED` gives with the seed in its row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import clip_jax
from clip_jax.batch_padding import pad_batch
from clip_jax.bulk.items import Item, Record
from clip_jax.bulk.pairs import json_bytes
from clip_jax.bulk.run import Row, Task
from clip_jax.text import check_encodable
from rudolph_jax.bulk.models import replicas
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.png_files import png_bytes
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.ranking import rank_images
from rudolph_jax.text_encoding import encode_left
from rudolph_jax.text_to_image import encode_guided

SCORES = {"score": "float32", "ppl_txt": "float32", "ppl_img": "float32"}
COSINE = {"cosine": "float32"}


@dataclasses.dataclass(frozen=True)
class DrawConfig:
    """Settings of drawings.

    count: images of a text that are written, the best of `candidates`. guidance: as in
    `draw_images`. image_prompts: int32[image tokens], the same for all texts.
    """

    generation: GenerationConfig
    count: int = 1
    candidates: int = 1
    guidance: float | None = None
    image_prompts: np.ndarray | None = None


class DrawTask(Task):
    """Computes a row for each drawing of a text, best first.

    as_samples: write tar shards (png, txt, json) and no Parquet file, which has the PNG otherwise.
    ruclip: to rank with; None: the model itself.
    """

    def __init__(
        self,
        rudolph: PretrainedRudolph,
        config: DrawConfig,
        as_samples: bool = False,
        ruclip: clip_jax.PretrainedClip | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        devices = jax.local_devices() if devices is None else devices
        predictors: list[Any] = [None] * len(devices)
        if ruclip is not None:
            predictors = [
                clip_jax.Predictor(ruclip.replicate([device]), quiet=True) for device in devices
            ]
        self.models = list(zip(replicas(rudolph, devices), predictors, strict=True))
        self.batch_items = max(config.generation.batch_size // config.candidates, 1)
        self.writes_rows = not as_samples
        self.columns = {
            "key": "string", "text": "string", "rank": "int32", "seed": "uint32",
            "candidate": "int32", **(SCORES if ruclip is None else COSINE), "image": "binary",
        }  # fmt: skip
        self._rudolph, self._config = rudolph, config

    def prepare(self, item: Item, record: Record) -> Any:
        """Returns key, seed, text, and the left texts int32[G, L]."""
        (text,) = record.texts
        check_encodable(text)
        if self._config.guidance is None:
            encoded = encode_left(self._rudolph.tokenizer, self._rudolph.config, text, "LT_T2I")
            lefts = encoded[None]
        else:
            lefts = encode_guided(self._rudolph, text, "", "LT_UNK")
        return item.key, item.seed(self._config.generation.seed), text, lefts

    def compute(self, model: Any, items: Sequence[Any]) -> list[list[Row]]:
        """Samples all candidates of the texts at once, and ranks those of each."""
        rudolph, predictor = model
        config, size = self._config, self.batch_items
        keys, seeds, texts, lefts = zip(*items, strict=True)
        rows = pad_batch(np.stack(lefts), size).transpose(1, 0, 2)
        guided = config.guidance is not None
        parts = sample_batches(
            rudolph, config.generation, "image", rows, rudolph.config.left_text_length,
            config.candidates, forced_tokens=config.image_prompts,
            guidance="probabilities" if guided else "none",
            guidance_weight=config.guidance if config.guidance is not None else 0.0,
            seeds=pad_batch(np.asarray(seeds, np.uint32), size),
        )  # fmt: skip
        codes = np.concatenate(list(parts), axis=1)
        return [
            self._rows(rudolph, predictor, *each)
            for each in zip(keys, seeds, texts, codes[: len(items)], strict=True)
        ]

    def _rows(
        self, rudolph: PretrainedRudolph, predictor: Any, key: str, seed: int, text: str, codes: Any
    ) -> list[Row]:
        batch_size = self._config.generation.batch_size
        order, scores = rank_images(rudolph, text, codes, predictor, batch_size=batch_size)
        order = order[: self._config.count]
        found = []
        for rank, (candidate, image) in enumerate(
            zip(order, rudolph.decode_images(codes[order]), strict=True)
        ):
            about = {
                "key": key, "text": text, "rank": rank, "seed": seed, "candidate": int(candidate),
                **{name: float(values[candidate]) for name, values in scores.items()},
            }  # fmt: skip
            png = png_bytes(image, {"prompt": text, **about})
            members = None
            if not self.writes_rows:
                members = {"png": png, "txt": text.encode(), "json": json_bytes(about)}
            found.append(Row(about | {"image": png}, members))
        return found
