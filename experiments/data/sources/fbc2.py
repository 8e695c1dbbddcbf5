"""Reads FBC2's questions: NAME.json beside NAME_answer.json, each an object of records by key.

A record is a list of {"type": "text" or "image", "content": ...}, an answer's content a text or a
list of them, images are paths beside the files. Source: `create_dataset` of the FBC2 baseline,
which joins a record's texts with spaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.text import escape, normalize_name, read_json
from experiments.data.sources.files import read_inside
from experiments.data.sources.read_plan import ReadPlan, SourceConfig, file_fingerprints
from experiments.data.sources.records import BadRecord, Candidate, Rejected

UNIT = "entries"
QUESTION_SCHEMAS = ("questions", "picture-questions")

# Key, question, answer: lists of parts if all is well.
Entry = tuple[str, Any, Any]


def matches(source: Path) -> bool:
    return source.suffix == ".json" and _answers(source).is_file()


def plan(config: SourceConfig) -> ReadPlan:
    """Chunks are lists of entries."""
    source = config.path
    if config.form not in QUESTION_SCHEMAS:
        raise InputError(
            f"{source}: holds questions, and --form is {config.form!r}; expected one of "
            f"{', '.join(QUESTION_SCHEMAS)}"
        )
    if any(config.columns.values()) or config.group_by:
        raise InputError(f"{source}: has no columns; leave the options that name them out")
    answers = _answers(source)
    if not answers.is_file():
        raise InputError(f"{answers}: no such file; it is to hold the answers to {source.name}")
    questions, answered = _read(source), _read(answers)
    entries = [(key, parts, answered.get(key)) for key, parts in questions.items()]
    entries += [(key, None, parts) for key, parts in answered.items() if key not in questions]
    size = config.chunk_records
    chunks = [entries[i : i + size] for i in range(0, len(entries), size)]
    return ReadPlan(config, file_fingerprints(source.parent, [source, answers]), chunks)


def read(config: SourceConfig, chunk: list[Entry]) -> Iterator[Candidate | Rejected]:
    source = config.path
    for key, question_parts, answer_parts in chunk:
        where = {"file": source.name, "key": escape(key)}
        try:
            image = None
            if config.schema.has_image:
                names = _contents(question_parts, "image", "question")
                if len(names) != 1 or not isinstance(names[0], str):
                    raise BadRecord(f"image is missing: {len(names)} are named")
                image = read_inside(source.parent, names[0])
            texts = _contents(question_parts, "text", "question")
            # What is no text is found by the check that all records go through.
            question = " ".join(texts) if all(isinstance(t, str) for t in texts) else texts
            answers: list[Any] = []
            for content in _contents(answer_parts, "text", "answer"):
                answers += content if isinstance(content, list) else [content]
            yield Candidate(key, where, image, {"question": question, "answers": answers})
        except BadRecord as error:
            yield Rejected(where, str(error))


def _answers(source: Path) -> Path:
    return source.with_name(f"{source.stem}_answer.json")


def _read(file: Path) -> dict[str, Any]:
    """The records by key, in NFC."""
    found = read_json(file)
    if not isinstance(found, dict):
        raise InputError(f"{file}: holds {type(found).__name__}; expected an object of records")
    named = {normalize_name(key): parts for key, parts in found.items()}
    if len(named) < len(found):
        raise InputError(f"{file}: two keys differ in their Unicode form alone; rename one")
    return named


def _contents(parts: Any, kind: str, noun: str) -> list[Any]:
    """Return the contents of the parts of a kind."""
    if parts is None:
        raise BadRecord(f"{noun} is missing")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadRecord(f"{noun} is no list of parts")
    return [part.get("content") for part in parts if part.get("type") == kind]
