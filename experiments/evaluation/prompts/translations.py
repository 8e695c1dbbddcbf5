"""Reads and writes translations as JSON, so that evaluating with them needs no translator.

    {"format": 1, "translator": {...}, "texts": {"кошка": "a cat", ...}}

`translator` says what made them: the model folder's name and hash, the settings of its beam search
and the library's version. `python -m experiments.translate` writes such a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import check_encodable, escape, normalize_name, parse_json

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Translations:
    """file: where they lie. translator: what made them. texts: text in NFC -> its translation."""

    file: Path
    translator: Mapping[str, Any]
    texts: Mapping[str, str]

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Translate each text, whatever its normal form; a missing one raises InputError."""
        texts = [normalize_name(text) for text in texts]
        missing = [text for text in texts if text not in self.texts]
        if missing:
            raise InputError(
                f"{self.file}: has no translation of {missing[0]!r} and {len(missing) - 1} more; "
                "write the texts to a file, one a line, and run python -m experiments.translate "
                f"--model=FOLDER --texts=FILE --cache={self.file}"
            )
        return [self.texts[text] for text in texts]

    def save(self) -> None:
        """Replaces the file; an interruption leaves the old one."""
        content = {"format": FORMAT, "translator": self.translator, "texts": self.texts}
        replace_file(self.file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    @property
    def sha256(self) -> str:
        """Hash the content, whatever its order."""
        content = json.dumps([self.translator, self.texts], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()


def read_translations(file: str | Path) -> Translations:
    """InputError for a file that cannot be read or holds anything else."""
    file = as_path(file)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file}: no translations here ({error.strerror}); python -m experiments.translate "
            "makes such a file"
        ) from error
    content = parse_json(data, escape(str(file)))
    if not isinstance(content, dict) or set(content) != {"format", "translator", "texts"}:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{file}: holds {found}; expected format, translator and texts")
    if content["format"] != FORMAT:
        raise InputError(f"{file}: is of format {content['format']!r}; expected {FORMAT}")
    texts, translator = content["texts"], content["translator"]
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise InputError(f"{file}: texts are not an object of strings")
    if not isinstance(translator, dict):
        raise InputError(f"{file}: translator is a {type(translator).__name__}, not an object")
    return Translations(file, translator, _normal_keys(file, texts))


def _normal_keys(file: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """The texts by their NFC; one that has two translations in two normal forms raises."""
    found: dict[str, str] = {}
    for text, translation in texts.items():
        check_encodable(text, f"{file}: text")
        check_encodable(translation, f"{file}: translation")
        if found.setdefault(normalize_name(text), translation) != translation:
            raise InputError(
                f"{file}: text {text!r} is there in two normal forms with two translations; keep "
                "one of them"
            )
    return found
