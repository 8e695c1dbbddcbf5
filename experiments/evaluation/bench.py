"""One system, the sets it is measured on, and where its results are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.image import PREPROCESSING_VERSION
from experiments.evaluation.image_features import Encoder, PictureSet
from experiments.evaluation.prompts.class_prompts import Prompts, prompts_for
from experiments.evaluation.results import Result, kept_result, result_folder
from experiments.evaluation.sets import RECORDS, LabelledSet, SetRecord, open_set
from experiments.evaluation.sets.record import own_record
from experiments.evaluation.unreadable import still_unreadable


@dataclasses.dataclass(frozen=True)
class Bench:
    """encoder: of the system. data_dir: where sets lie. out: the folder of results, None: they
    are not kept. class_names: a file of prompts for all sets, None: the project's.
    """

    encoder: Encoder
    data_dir: Path
    out: Path | None = None
    class_names: Path | None = None

    @property
    def name(self) -> str:
        return self.encoder.system.name

    @property
    def folder(self) -> Path | None:
        """Of this system's results: its name, and its content's hash where names are the same."""
        content = self.encoder.system.content_hash
        return self.out and result_folder(self.out, self.name, content)

    def open(self, name: str, split: str) -> LabelledSet:
        return open_set(name, split, self.data_dir)

    def prompts(self, pictures: LabelledSet) -> Prompts:
        system = self.encoder.system
        # A translator is given Russian prompts.
        return prompts_for(
            pictures, system.language, self.class_names, system.prompt_opening
        )

    def about(self, pictures: PictureSet) -> Result:
        """What a number needs to be traced."""
        return {
            "system": self.encoder.system.about(),
            "set": pictures.name,
            "title": title_of(pictures.name),
            "version": getattr(pictures, "version", None),
            "split": pictures.split,
            "source_sha256": pictures.source_hash,
            "preprocessing": PREPROCESSING_VERSION,
            "ignored": list(getattr(pictures, "ignored", ())),
        }

    def kept(
        self,
        task: str,
        name: str,
        asked: Mapping[str, Any],
        splits: Sequence[PictureSet],
        work: Callable[[], Result],
    ) -> Result:
        """work()'s result, or the one of an earlier run that was asked the same.

        It is kept as FOLDER/TASK/NAME.json; see `results.kept_result`. splits: that take part; a
        result is found again where those of their images that it left out can be read now.
        """
        if self.folder is None:
            return {**asked, **work()}
        return kept_result(
            self.folder / task / f"{name}.json", task, asked, work,
            lambda earlier: still_unreadable(earlier, splits),
        )  # fmt: skip


def record_of(name: str) -> SetRecord:
    """name: of a known set, or a user's own or its folder."""
    return RECORDS.get(name) or own_record(Path(name).name)


def title_of(name: str) -> str:
    return record_of(name).title
