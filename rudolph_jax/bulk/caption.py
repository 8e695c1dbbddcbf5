"""Captions many images, each with a seed of its own.

The captions of an image are those that `caption FILE --seed=SEED` gives with the seed in its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from clip_jax.batch_padding import pad_batch
from clip_jax.bulk.items import Item, Record
from clip_jax.bulk.pairs import json_bytes
from clip_jax.bulk.run import Row, Task
from clip_jax.text import escape
from rudolph_jax.bulk.models import replicas
from rudolph_jax.generation import GenerationConfig
from rudolph_jax.image_to_text import right_texts
from rudolph_jax.perplexity import combined_scores
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.ranking import perplexities_with_images
from rudolph_jax.text_encoding import encode_left

TEXT_WEIGHT = 0.05  # of `image_captioning`


class CaptionTask(Task):
    """Computes a row for each caption of an image, best first.

    count: captions of an image that are written, the best of `candidates`.
    as_samples: write tar shards (the image's own file, txt, json) and no Parquet file.
    """

    columns = {
        "key": "string", "caption": "string", "rank": "int32", "seed": "uint32",
        "score": "float32", "count": "int32", "ppl_txt": "float32", "ppl_img": "float32",
    }  # fmt: skip

    def __init__(
        self,
        rudolph: PretrainedRudolph,
        generation: GenerationConfig,
        *,
        count: int = 1,
        candidates: int = 1,
        template: str = "",
        as_samples: bool = False,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.models = replicas(rudolph, devices)
        self.batch_items = max(generation.batch_size // candidates, 1)
        self.writes_rows = not as_samples
        self._rudolph, self._generation = rudolph, generation
        self._count, self._candidates, self._template = count, candidates, template
        self._left = encode_left(rudolph.tokenizer, rudolph.config, "", "LT_I2T")

    def prepare(self, item: Item, record: Record) -> Any:
        """Returns key, seed, pixels float32[size, size, 3], and the image's own file."""
        pixels = self._rudolph.pixels([record.image])[0]
        return item.key, item.seed(self._generation.seed), pixels, record.members

    def compute(self, model: PretrainedRudolph, items: Sequence[Any]) -> list[list[Row] | str]:
        """Samples all candidates of the images at once, and ranks those of each."""
        size = self.batch_items
        keys, seeds, pixels, members = zip(*items, strict=True)
        codes = np.asarray(model.vqgan.encode(pad_batch(np.stack(pixels), size)))
        sampled = right_texts(
            model, self._generation, np.tile(self._left, (size, 1)), codes, self._template,
            "RT_I2T", self._candidates, None, seeds=pad_batch(np.asarray(seeds, np.uint32), size),
        )  # fmt: skip
        counts = [Counter(text for text in texts if text) for texts in sampled[: len(items)]]
        owners = [owner for owner, found in enumerate(counts) for _ in found]
        texts = [text for found in counts for text in found]
        ppl_txt, ppl_img = self._perplexities(model, texts, [codes[owner] for owner in owners])
        starts = np.cumsum([0, *map(len, counts)])
        return [
            self._rows(
                keys[i], seeds[i], members[i], counts[i], ppl_txt[start:stop], ppl_img[start:stop]
            )
            for i, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True))
        ]

    def _perplexities(
        self, model: PretrainedRudolph, texts: list[str], codes: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes both perplexities of each text, in batches of the one size that is compiled."""
        size = min(self._generation.batch_size, self.batch_items * self._candidates)
        missing = -len(texts) % size
        found = perplexities_with_images(
            model, texts + texts[-1:] * missing, codes + codes[-1:] * missing, batch_size=size
        )
        return found[0][: len(texts)], found[1][: len(texts)]

    def _rows(
        self, key: str, seed: int, members: Any, counts: Counter[str], ppl_txt: Any, ppl_img: Any
    ) -> list[Row] | str:
        if not counts:
            return "no text was generated"
        texts, numbers = list(counts), np.array(list(counts.values()))
        scores = combined_scores(ppl_txt, ppl_img, TEXT_WEIGHT) / numbers
        found = []
        for rank, i in enumerate(np.argsort(scores, kind="stable")[: self._count]):
            about = {
                "key": escape(key), "caption": texts[i], "rank": rank, "seed": seed,
                "score": float(scores[i]), "count": int(numbers[i]), "ppl_txt": float(ppl_txt[i]),
                "ppl_img": float(ppl_img[i]),
            }  # fmt: skip
            sample = None
            if not self.writes_rows:
                sample = {**members, "txt": texts[i].encode(), "json": json_bytes(about)}
            found.append(Row(about, sample))
        return found
