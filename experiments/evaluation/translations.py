"""Translations kept as JSON, so that who evaluates with them needs no translator.

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

from clip_jax.errors import InputError
from experiments.atomic import replace_file

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Translations:
    """file: where they lie. translator: what made them. texts: text -> its translation."""

    file: Path
    translator: Mapping[str, Any]
    texts: Mapping[str, str]

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Each text's translation; one that is not there raises InputError."""
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
        """Of what they say, whatever their order."""
        content = json.dumps([self.translator, self.texts], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()


def read_translations(file: str | Path) -> Translations:
    """InputError for a file that cannot be read or holds anything else."""
    file = Path(file)
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"{file}: no translations here ({error.strerror}); python -m experiments.translate "
            "makes such a file"
        ) from error
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from error
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
    return Translations(file, translator, texts)
