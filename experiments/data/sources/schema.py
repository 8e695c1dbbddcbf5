"""Schemas of records: the columns they need, and the features that a prepared set shows."""

from __future__ import annotations

import dataclasses
import functools


@dataclasses.dataclass(frozen=True)
class Column:
    """noun: what messages call a value. default_names: names by preference, where none is given."""

    noun: str
    default_names: tuple[str, ...]

    @property
    def option(self) -> str:
        return f"--{self.noun}-column"

    @property
    def field(self) -> str:
        """Returns its field in `SourceConfig`."""
        return f"{self.noun}_column"


CODES = "codes"  # a feature, and its entry in the set's metadata
BACKGROUND = "background"  # an entry in the set's metadata: white, black or none

# By feature of the prepared set.
COLUMNS = {
    "image": Column("image", (
        "image", "image_path", "path", "file_name", "filename", "filepath", "file", "img",
        "picture",
    )),
    "captions": Column("caption", (
        "caption", "captions", "text", "texts", "title", "description", "label_text",
    )),
    "question": Column("question", ("question", "questions", "query")),
    "answers": Column("answer", ("answers", "answer")),
    "context": Column("context", ("context", "paragraph", "passage")),
}  # fmt: skip
# No prepared set has it: evaluation sets do.
LABEL = Column("label", (
    "label", "labels", "class", "class_name", "category", "cls", "fine_label", "target",
))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RecordSchema:
    """A kind of record.

    has_image: whether it has one. scalar_features: those of one text. repeated_feature: the one of
    which a record may have more, and bad ones are left out alone.
    """

    has_image: bool
    scalar_features: tuple[str, ...]
    repeated_feature: str

    @functools.cached_property
    def columns(self) -> dict[str, Column]:
        """Returns them by feature, the image first and the repeated one last."""
        names = ("image",) * self.has_image + (*self.scalar_features, self.repeated_feature)
        return {name: COLUMNS.get(name, LABEL) for name in names}


SCHEMAS = {
    "captions": RecordSchema(True, (), "captions"),
    "picture-questions": RecordSchema(True, ("question",), "answers"),
    "text-questions": RecordSchema(False, ("context", "question"), "answers"),
    # The question says all.
    "questions": RecordSchema(False, ("question",), "answers"),
}
LABELS = RecordSchema(True, (), "label")
