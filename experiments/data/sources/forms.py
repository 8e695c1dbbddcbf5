"""What a record is made of: the columns it needs, and the features that a prepared set shows."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """noun: what messages call a value. usual: names by preference, where none is given."""

    noun: str
    usual: tuple[str, ...]

    @property
    def option(self) -> str:
        return f"--{self.noun}-column"

    @property
    def field(self) -> str:
        """Of `plan.Options`."""
        return f"{self.noun}_column"


CODES = "codes"  # a feature, and its entry in the set's metadata

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
class Form:
    """A kind of record.

    picture: whether it has one. single: its features of one text. several: the one of which a
    record may have more, and bad ones are left out alone.
    """

    picture: bool
    single: tuple[str, ...]
    several: str

    @property
    def columns(self) -> dict[str, Column]:
        """By feature, the image first and `several` last."""
        names = ("image",) * self.picture + (*self.single, self.several)
        return {name: COLUMNS.get(name, LABEL) for name in names}


FORMS = {
    "captions": Form(True, (), "captions"),
    "picture-questions": Form(True, ("question",), "answers"),
    "text-questions": Form(False, ("context", "question"), "answers"),
    # The question says all.
    "questions": Form(False, ("question",), "answers"),
}
LABELS = Form(True, (), "label")
