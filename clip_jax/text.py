"""Decodes text from outside: encodings, byte order marks, normal forms, invisible characters.

Names, labels and keys are compared in NFC, because macOS writes "й" as two code points (NFD) and
Linux as one. Texts for a tokenizer keep their form, as in the original packages
(docs/data.md, "Texts").
"""

from __future__ import annotations

import codecs
import contextlib
import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.input_files import MAX_JSON_BYTES, check_regular
from clip_jax.paths import as_path

BYTE_ORDER_MARK = "\ufeff"
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# Default_Ignorable_Code_Point of Unicode that are neither formats (Cf) nor controls (Cc).
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u3164\uffa0")
_JOINER = "\u200d"


class InvisibleCharacterWarning(UserWarning):
    """Warns of labels with invisible characters, which a tokenizer reads."""


def decode_text(data: bytes, name: str) -> str:
    """Decodes UTF-8 and drops a byte order mark.

    name: what errors call the source. Another encoding raises InputError.
    """
    for mark, encoding in _OTHER_ENCODINGS.items():
        if data.startswith(mark):
            raise InputError(f"{name}: is {encoding} text; save it as UTF-8")
    try:
        return data.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_text(path: str | Path) -> str:
    """Reads a UTF-8 file; one that cannot be read raises InputError."""
    try:
        data = as_path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{escape(str(path))}: cannot be read ({reason})") from error
    return decode_text(data, escape(str(path)))


def read_lines(path: str | Path) -> list[str]:
    """Returns the lines of a UTF-8 file, whatever ends them: CR LF, LF or CR. No byte order mark.

    Not str.splitlines, which also breaks at characters that lines may hold, such as U+2028.
    """
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse_json(data: bytes | str, name: str) -> Any:
    """Parses JSON whose objects name each key once; anything else raises InputError."""
    text = decode_text(data, name) if isinstance(data, bytes) else data
    try:
        return json.loads(text.removeprefix(BYTE_ORDER_MARK), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error})") from error


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; one that is not JSON, or is very large, raises InputError."""
    with contextlib.suppress(OSError):  # of which `read_text` says more
        if (size := check_regular(path)) > MAX_JSON_BYTES:
            raise InputError(f"{path}: has {size} bytes; the limit for JSON is {MAX_JSON_BYTES}")
    return parse_json(read_text(path), escape(str(path)))


def normalize_name(text: str) -> str:
    """Converts a name, label or key to NFC, the form in which names are compared."""
    return unicodedata.normalize("NFC", text)


def escape(text: str) -> str:
    """Replaces what UTF-8 cannot encode (surrogates of undecodable file names) by escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_encodable(text: str, noun: str = "text") -> None:
    """Raises InputError for text with surrogates, which came from bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{noun} '{escape(text)}' is not Unicode (character {error.start}); give it as UTF-8"
        ) from error


def invisible_characters(text: str) -> list[str]:
    """Lists a label's invisible code points, such as "U+00AD SOFT HYPHEN", each once.

    These are controls, formats, fillers and spaces other than U+0020. Joiners and variation
    selectors inside of emoji are not counted.
    """
    found: dict[str, None] = {}
    previous = ""
    for character in text:
        category = unicodedata.category(character)
        selector = "\ufe00" <= character <= "\ufe0f"
        hidden = (
            category in ("Cc", "Cf", "Zl", "Zp")
            or (category == "Zs" and character != " ")
            or selector
            or character in _FILLERS
        )
        # "So" and "Sk" (skin tones): a joiner or selector after these draws another emoji.
        in_emoji = unicodedata.category(previous or " ") in ("So", "Sk") or previous == "\ufe0f"
        if hidden and not (in_emoji and (selector or character == _JOINER)):
            name = unicodedata.name(character, "control character")
            found[f"U+{ord(character):04X} {name}"] = None
        previous = character
    return list(found)


def warn_of_invisible(labels: Iterable[str], place: str) -> None:
    """Warns once of the labels that hold invisible characters. place: where they come from."""
    wrong = {label: found for label in labels if (found := invisible_characters(label))}
    if not wrong:
        return
    label, found = next(iter(wrong.items()))
    more = f" and {len(wrong) - 1} others" if len(wrong) > 1 else ""
    warnings.warn(
        f"{place}: label {label!r}{more} has invisible characters ({', '.join(found)}), which "
        "the tokenizer reads; remove them",
        InvisibleCharacterWarning,
        stacklevel=3,
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a JSON object; Python alone would keep the last value of a duplicate key."""
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return found
