"""Classifies many images without training; the scores are those of `classify FILE`."""

from __future__ import annotations

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
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.ranking import class_perplexities_of_codes, class_scores, zs_clf


class ClassifyTask(Task):
    """Computes a row for each image: its class, and the scores of all, of which the least is best.

    template: caption with {} for the class. left_template: left text, of the class too or fixed,
        with which images are classified one after another.
    as_samples: write tar shards (the image's own file, cls, json) and no Parquet file.
    """

    columns = {
        "key": "string", "label": "int32", "class": "string", "score": "float32",
        "scores": "[float32]",
    }  # fmt: skip

    def __init__(
        self,
        rudolph: PretrainedRudolph,
        classes: Sequence[str],
        *,
        template: str = "{}",
        left_template: str = "",
        batch_size: int = 24,
        as_samples: bool = False,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.models = replicas(rudolph, devices)
        self.batch_items = max(batch_size // len(classes), 1)
        self.writes_rows = not as_samples
        self._rudolph, self._classes, self._batch_size = rudolph, list(classes), batch_size
        self._template, self._left_template = template, left_template

    def prepare(self, item: Item, record: Record) -> Any:
        """Returns key, pixels float32[size, size, 3], and the image's own file."""
        return item.key, self._rudolph.pixels([record.image])[0], record

    def compute(self, model: PretrainedRudolph, items: Sequence[Any]) -> list[list[Row]]:
        """Scores the classes of all images at once."""
        keys, pixels, records = zip(*items, strict=True)
        if self._left_template:
            scores = [self._one(model, record) for record in records]
        else:
            codes = np.asarray(model.vqgan.encode(pad_batch(np.stack(pixels), self.batch_items)))
            captions = [self._template.replace("{}", name) for name in self._classes]
            found = class_perplexities_of_codes(model, codes, captions, batch_size=self._batch_size)
            scores = [class_scores(each) for each in found[: len(items)]]
        return [[self._row(*each)] for each in zip(keys, scores, records, strict=True)]

    def _one(self, model: PretrainedRudolph, record: Record) -> np.ndarray:
        result = zs_clf(
            model, record.image, self._classes, r_template=self._template,
            l_template=self._left_template, batch_size=self._batch_size,
        )  # fmt: skip
        return result["scores"]

    def _row(self, key: str, scores: np.ndarray, record: Record) -> Row:
        label = int(scores.argmin())
        about = {
            "key": escape(key), "label": label, "class": self._classes[label],
            "score": float(scores[label]), "scores": [float(score) for score in scores],
        }  # fmt: skip
        members = None
        if not self.writes_rows:
            members = {**record.members, "cls": str(label).encode(), "json": json_bytes(about)}
        return Row(about, members)
