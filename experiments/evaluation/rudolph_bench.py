"""A RUDOLPH that is measured: the model, its image tokenizer, and where its results are kept."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import rudolph_jax
from clip_jax import Compute, model_folder
from clip_jax.content_hash import content_hash
from clip_jax.errors import InputError
from clip_jax.image import PREPROCESSING_VERSION
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.chunks import CHUNK, in_chunks
from experiments.evaluation.image_features import PictureSet
from experiments.evaluation.results import Result, kept_result, result_folder
from experiments.evaluation.sets.question_set import QuestionSet
from experiments.evaluation.unreadable import (
    check_any_readable,
    find_unreadable,
    listed,
    still_unreadable,
)
from rudolph_jax.config import PRESETS
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.text_encoding import TruncationWarning

Examples = PictureSet | QuestionSet


@dataclasses.dataclass(frozen=True)
class Readable:
    """examples: that are measured. count: of those that were to be. unreadable: the others, see
    `unreadable.listed`.
    """

    examples: Any
    count: int
    unreadable: list[dict[str, str]]

    def about(self) -> Result:
        return {
            "examples": len(self.examples),
            "images": self.count,
            "unreadable": self.unreadable,
        }


@dataclasses.dataclass(frozen=True)
class RudolphBench:
    """name: for tables. batch_size: rows that the model takes at once. out, cache: of results and
    of finished chunks; None: they are not kept. first: examples of a set that take part; None: all.
    """

    name: str
    rudolph: PretrainedRudolph
    converted_from: str | None = None
    batch_size: int = 64
    out: Path | None = None
    cache: ArrayCache | None = None
    first: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "first"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name.replace('_', ' ')} is {value}; expected at least 1")

    @cached_property
    def content_hash(self) -> str:
        """Of the decoder with its vocabulary, and of the image tokenizer."""
        rudolph, vqgan = self.rudolph, self.rudolph.vqgan
        files = rudolph.tokenizer.files
        decoder = content_hash(rudolph.config.to_dict(), rudolph.params, files)
        return content_hash(vqgan.config.to_dict(), vqgan.params, {"decoder": decoder.encode()})

    @property
    def folder(self) -> Path | None:
        return self.out and result_folder(self.out, self.name, self.content_hash)

    def count(self, examples: Examples) -> int:
        """How many take part."""
        return min(len(examples), self.first or len(examples))

    def about(self, examples: Examples) -> Result:
        """What a number needs to be traced."""
        config = self.rudolph.config
        return {
            "system": {
                "system": self.name,
                "preset": next((n for n, preset in PRESETS.items() if preset == config), None),
                "converted_from": self.converted_from,
                "sha256": self.content_hash,
                "dtype": self.rudolph.compute.dtype,
            },
            "set": examples.name,
            "version": getattr(examples, "version", None),
            "split": examples.split,
            "source_sha256": examples.source_hash,
            "preprocessing": PREPROCESSING_VERSION,
            "ignored": list(getattr(examples, "ignored", ())),
            "asked_examples": self.count(examples),
        }

    def readable(self, examples: Examples) -> Readable:
        """Those that take part, without images that cannot be read; all decoded once for it.

        InputError where none can be.
        """
        count = self.count(examples)
        reasons: dict[int, str] = {}
        if getattr(examples, "pictured", True):
            reasons = find_unreadable(
                examples, range(count), lambda image: self.rudolph.pixels([image])
            )
        check_any_readable(examples, count, reasons)
        places = [place for place in range(count) if place not in reasons]
        return Readable(examples.at(places), count, listed(examples, reasons))

    def kept(
        self,
        task: str,
        examples: Examples,
        asked: Mapping[str, Any],
        work: Callable[[Readable], Result],
    ) -> Result:
        """What work gives of the readable examples, or an earlier result.

        FOLDER/TASK/SET-SPLIT.json, see `kept_result`; found again where images that it left out
        can be read now.
        """

        def result() -> Result:
            readable = self.readable(examples)
            return {**readable.about(), **work(readable)}

        if self.folder is None:
            return {**asked, **result()}
        file = self.folder / task / f"{Path(examples.name).name}-{examples.split}.json"
        return kept_result(
            file, task, asked, result, lambda earlier: still_unreadable(earlier, [examples])
        )

    def chunks(
        self,
        what: str,
        asked: Mapping[str, Any],
        readable: Readable,
        work: Callable[[slice], np.ndarray],
    ) -> np.ndarray:
        """work(rows) of all readable examples, resumable: see `chunks.in_chunks`.

        asked: all that the rows follow from, their number apart. Sets hold many texts that are too
        long for the model; that they are cut is not told of each.
        """
        about = {
            "what": what,
            **{k: v for k, v in asked.items() if k not in ("asked_examples", "ignored")},
            # Rows after an image that was left out are other examples.
            "left_out": [row["key"] for row in readable.unreadable],
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            return in_chunks(
                self.cache, about, len(readable.examples), work, chunk=max(CHUNK, self.batch_size)
            )


def open_rudolph(
    folder: str | Path,
    vqgan: str | Path,
    compute: Compute = Compute(),
    weights: str = "stored",
    **fields: Any,
) -> RudolphBench:
    """Of a model folder and its image tokenizer's; wrong ones raise InputError.

    weights: see `rudolph_jax.load`. fields: of RudolphBench.
    """
    rudolph = rudolph_jax.load(folder, vqgan, compute, weights)
    converted_from = model_folder.read_config(folder)["provenance"].get("converted_from")
    name = fields.pop("name", "") or Path(folder).resolve().name
    return RudolphBench(name, rudolph, converted_from, **fields)
