"""One run of an evaluation: a model, where data sets lie, and its results as JSON.

A result says what it is of (its inputs), what was found, and the versions that computed it.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.image import PREPROCESSING_VERSION
from clip_jax.text import escape, read_json
from experiments.evaluation.array_cache import CHUNK, ArrayCache, cached_map
from experiments.evaluation.multihost import on_all_hosts
from experiments.evaluation.sets import DATA_DIR, RECORDS, SetRecord
from experiments.evaluation.sets.record import own_record
from experiments.evaluation.unreadable import (
    ImageSplit,
    ReadableExamples,
    readable_examples,
    still_unreadable,
)
from rudolph_jax.text_encoding import TruncationWarning

Result = dict[str, Any]
PACKAGES = ("rudolph-jax", "jax", "jaxlib", "numpy", "pillow", "sacrebleu", "nltk")


class EvalModel(Protocol):
    """Stand for `ClipModel` or `RudolphModel`. metadata: what its results record of it."""

    @property
    def name(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def content_hash(self) -> str: ...

    def metadata(self) -> Result: ...


Model = TypeVar("Model", bound=EvalModel)


@dataclasses.dataclass(frozen=True)
class EvalRun(Generic[Model]):
    """A model, where data sets lie, and where its results and finished parts of them are.

    data_dir: where data sets lie.
    out: the folder of results; None: none is written.
    cache: of the parts of results; None: nothing is cached.
    class_names: a file of prompts for all sets; None: the project's.
    first: examples of a set that take part; None: all.
    """

    model: Model
    data_dir: Path = Path(DATA_DIR)
    out: Path | None = None
    cache: ArrayCache | None = None
    class_names: Path | None = None
    first: int | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.first < 1:
            raise InputError(f"first is {self.first}; expected at least 1")

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def folder(self) -> Path | None:
        """Return the folder of this model's results, with its content's hash where names clash."""
        slug = re.sub(r"[^\w.-]+", "-", self.name).strip("-")
        return self.out and self.out / f"{slug}-{self.model.content_hash[:8]}"

    def metadata(self, examples: ImageSplit) -> Result:
        """Describes the model and a split in a result, so that its numbers can be traced."""
        return {
            "system": self.model.metadata(),
            "set": examples.name,
            "version": getattr(examples, "version", None),
            "split": examples.split,
            "source_sha256": examples.source_hash,
            "preprocessing": PREPROCESSING_VERSION,
            "ignored": list(getattr(examples, "ignored", ())),
        }

    def cached_result(
        self,
        task: str,
        name: str,
        inputs: Mapping[str, Any],
        splits: Sequence[ImageSplit],
        compute: Callable[[], Result],
    ) -> Result:
        """compute()'s result, or the one of an earlier run with the same inputs.

        It is written to FOLDER/TASK/NAME.json with its inputs and the versions that computed it.

        splits: that take part; a result is computed again where those of their images that it
            left out can be read now.
        """
        if self.folder is None:
            return {**inputs, **compute()}
        file = self.folder / task / f"{name}.json"
        inputs = json.loads(json.dumps(inputs))
        earlier = _read(file)
        reusable = earlier is not None and all(earlier.get(key) == inputs[key] for key in inputs)
        reusable = reusable and still_unreadable(earlier, splits)
        if on_all_hosts(reusable):
            return earlier
        result = {"task": task, **inputs, **compute(), "made_with": versions()}
        if jax.process_index() == 0:
            write_result(file, result)
        return result

    def cached_on_readable(
        self,
        task: str,
        examples: Any,
        inputs: Mapping[str, Any],
        compute: Callable[[ReadableExamples], Result],
    ) -> Result:
        """`cached_result` of the first examples that can be read, in TASK/SET-SPLIT.json.

        All images that take part are decoded once to find them; InputError where none can be.
        """
        count = min(len(examples), self.first or len(examples))

        def on_readable() -> Result:
            readable = readable_examples(examples, count)
            return {**readable.metadata(), **compute(readable)}

        name = f"{Path(examples.name).name}-{examples.split}"
        inputs = {**inputs, "asked_examples": count}
        return self.cached_result(task, name, inputs, [examples], on_readable)

    def cached_map(
        self,
        what: str,
        inputs: Mapping[str, Any],
        readable: ReadableExamples,
        compute: Callable[[slice], np.ndarray],
    ) -> np.ndarray:
        """compute(rows) of all readable examples, a cached chunk at a time.

        inputs: all that the rows follow from, their number apart. Sets hold many texts that are
            too long for the model; that they are cut is not warned of.
        """
        key = {
            "what": what,
            **{name: value for name, value in inputs.items() if name != "ignored"},
            # Rows after an image that was left out are other examples.
            "left_out": [row["key"] for row in readable.unreadable],
        }
        chunk = max(CHUNK, self.model.batch_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            return cached_map(self.cache, key, len(readable.examples), compute, chunk=chunk)


def write_result(file: Path, result: Result) -> None:
    # Surrogates of undecodable file names become JSON's own escapes.
    text = escape(json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False))
    replace_file(file, text + "\n")


def versions() -> Result:
    """Return the versions of Python, packages and machine; packages not installed are left out."""
    found: Result = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    kind = jax.devices()[0].device_kind
    return {**found, "devices": f"{jax.device_count()} x {kind}", "hosts": jax.process_count()}


def set_record(name: str) -> SetRecord:
    """The record of a known set, or of a user's own by its name or folder."""
    return RECORDS.get(name) or own_record(Path(name).name)


def set_title(name: str) -> str:
    return set_record(name).title


def _read(file: Path) -> Result | None:
    """None where there is none, or where it was cut off."""
    try:
        found = read_json(file)
    except InputError:
        return None
    return found if isinstance(found, dict) else None
