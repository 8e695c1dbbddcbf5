"""Writes the codes of an image tokenizer, found once when a set is prepared, beside its images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from clip_jax.atomic_file import replacing
from clip_jax.errors import InputError
from clip_jax.image import open_image, resize_square
from experiments.config.data import BACKGROUNDS
from experiments.data.image_codes import CodeMetadata, tokenizer_digest
from experiments.data.sources.schema import RecordSchema
from experiments.data.sources.shards import WRITER, coded_name, features, serializer
from rudolph_jax.image_tokenizer import image_config, load_vqgan

ENCODED_AT_ONCE = 64  # images; one shape, so that the encoder compiles once


class CodeWriter:
    """Adds codes to shards; what `split[i]["codes"]` gives later is int32[count]."""

    def __init__(
        self, folder: str, image_size: int, schema: RecordSchema, background: str = ""
    ) -> None:
        """background: under transparent pixels, one of BACKGROUNDS; "": the tokenizer's own."""
        vqgan = load_vqgan(folder)
        patch = vqgan.config.patch_size
        if image_size <= 0 or image_size % patch:
            raise InputError(f"--image-size is {image_size}; expected a multiple of {patch} pixels")
        self._schema = schema
        self.metadata = CodeMetadata(
            tokenizer_digest(folder), image_size, (image_size // patch) ** 2
        )
        self._encode: Callable[[np.ndarray], Any] = vqgan.encode
        self._image = image_config(vqgan.config)
        if background:
            color = BACKGROUNDS[background]
            self._image = dataclasses.replace(self._image, background=color)

    def replace(self, plain: Path, threads: int) -> None:
        """Writes a shard with codes under its own name, then removes the one without."""
        self.write(plain, plain.with_name(coded_name(plain.name)), threads)
        plain.unlink()

    def write(self, plain: Path, coded: Path, threads: int) -> None:
        """Writes a shard with codes from one without. Threads decode images."""
        described = features(self._schema)
        serialize = serializer(features(self._schema, self.metadata.count))
        skip = {"image": tfds.decode.SkipDecoding()}
        with (
            replacing(coded) as beside,
            contextlib.closing(ArrayRecordWriter(str(beside), WRITER)) as writer,
            ArrayRecordDataSource([str(plain)]) as source,
            ThreadPoolExecutor(threads) as pool,
        ):
            for start in range(0, len(source), ENCODED_AT_ONCE):
                rows = [
                    described.deserialize_example_np(source[i], decoders=skip)
                    for i in range(start, min(start + ENCODED_AT_ONCE, len(source)))
                ]
                views = pool.map(self._view, [row["image"] for row in rows])
                for row, codes in zip(rows, self._codes(views), strict=True):
                    writer.write(serialize({**row, "codes": codes}))

    def _view(self, image: bytes) -> np.ndarray:
        return resize_square(open_image(image), self.metadata.image_size, self._image)

    def _codes(self, views: Iterator[np.ndarray]) -> np.ndarray:
        size = self.metadata.image_size
        batch = np.zeros((ENCODED_AT_ONCE, size, size, 3), np.float32)
        count = 0
        for count, view in enumerate(views, 1):
            batch[count - 1] = view / np.float32(255)
        return np.asarray(self._encode(batch))[:count]
