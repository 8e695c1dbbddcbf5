"""Scores images with texts by their cosine, and keeps those above a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from clip_jax.batch_padding import pad_batch
from clip_jax.bulk.items import Item, Record
from clip_jax.bulk.pairs import JSON, json_bytes
from clip_jax.bulk.run import Row, Task
from clip_jax.image import normalize_pixels, open_image, resize_square
from clip_jax.pretrained import PretrainedClip
from clip_jax.text import check_encodable, escape


class _Pair(NamedTuple):
    key: str
    pixels: np.ndarray
    ids: np.ndarray
    record: Record


class ScoreTask(Task):
    """Computes a row for each text of an image.

    least: the cosine from which a pair is written as a sample too; None: write none. A sample has
        the item's own files, byte for byte; where some of several texts are below, those above.
    devices: None: all of this process.
    """

    columns = {"key": "string", "text": "string", "score": "float32", "kept": "bool"}
    writes_rows = True

    def __init__(
        self,
        clip: PretrainedClip,
        least: float | None = None,
        batch_size: int = 32,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.models = [clip.replicate([device]) for device in devices or jax.local_devices()]
        self.batch_items = batch_size
        self._clip, self._least = clip, least

    def prepare(self, item: Item, record: Record) -> _Pair:
        """Returns an item's pixels and tokens."""
        config = self._clip.config
        assert record.image is not None
        pixels = resize_square(open_image(record.image), config.vision.image_size, config.image)
        for text in record.texts:
            check_encodable(text)
        return _Pair(item.key, pixels, self._clip.processor.encode_text(record.texts), record)

    def compute(self, model: PretrainedClip, items: Sequence[_Pair]) -> list[list[Row]]:
        """Encodes the images and the texts, in batches of one size, and multiplies them."""
        size = self.batch_items
        pixels = normalize_pixels(np.stack([pair.pixels for pair in items]), model.config.image)
        images = np.asarray(model.encode_image(pad_batch(pixels, size), unpad=False))[: len(items)]
        ids = np.concatenate([pair.ids for pair in items])
        encoded = [
            np.asarray(model.encode_text(pad_batch(ids[start : start + size], size), unpad=False))
            for start in range(0, len(ids), size)
        ]
        texts = np.concatenate([part[:size] for part in encoded])[: len(ids)]
        owners = np.repeat(np.arange(len(items)), [len(pair.ids) for pair in items])
        cosines = (_unit(images)[owners] * _unit(texts)).sum(-1)
        starts = np.cumsum([0, *(len(pair.ids) for pair in items)])
        return [
            self._rows(pair, cosines[start:stop])
            for pair, start, stop in zip(items, starts[:-1], starts[1:], strict=True)
        ]

    def _rows(self, pair: _Pair, cosines: np.ndarray) -> list[Row]:
        kept = np.zeros(len(cosines), bool) if self._least is None else cosines >= self._least
        members: Any = None
        if kept.all():
            members = pair.record.members
        elif kept.any():
            best = [text for text, is_kept in zip(pair.record.texts, kept, strict=True) if is_kept]
            members = {
                name: data
                for name, data in pair.record.members.items()
                if name not in ("txt", JSON)
            } | {JSON: json_bytes({"captions": best})}
        return [
            Row(
                {
                    "key": escape(pair.key), "text": text, "score": float(cosine),
                    "kept": bool(is_kept),
                },
                None if number else members,
            )
            for number, (text, cosine, is_kept) in enumerate(
                zip(pair.record.texts, cosines, kept, strict=True)
            )
        ]  # fmt: skip


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
