"""Reads class names and prompt templates of the evaluation sets, in Russian and in English.

A file `names/LANGUAGE/SET.json` holds a version, templates, and for each class, under the label
that the set itself gives it, the name in that language: a string, or an object of grammatical
cases. A template has one placeholder: `{}` takes the nominative, `{genitive}` and so on take that
case. `names/aliases.json` lists labels of other loaders that say the same class in other words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import (
    check_encodable,
    escape,
    normalize_name,
    parse_json,
    read_json,
    warn_of_invisible,
)

FOLDER = Path(__file__).parent / "names"
CASES = ("nominative", "genitive", "dative", "accusative", "instrumental", "prepositional")
_FIELDS = {"version": int, "set": str, "templates": list, "names": dict}


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """names: normalised label to {case: name}. sha256: of the file's bytes, to trace a number."""

    set_name: str
    version: int
    templates: tuple[str, ...]
    names: Mapping[str, Mapping[str, str]]
    aliases: Mapping[str, str]
    sha256: str

    def key(self, label: str) -> str:
        """The normalised label that `names` has for a loader's label. An unknown one raises."""
        key = normalised(label)
        key = self.aliases.get(key, key)
        if key not in self.names:
            raise InputError(
                f"the class names of '{self.set_name}' have no class {label!r}: expected one of"
                f" its {len(self.names)}, such as {next(iter(self.names))!r}; add it to the file"
            )
        return key

    def prompts(self, english_class_names: Sequence[str]) -> list[list[str]]:
        """Fill the templates for each label, in the given order. Two labels of one class raise.

        Classes are found by name, never by place: loaders differ in their order.
        """
        seen: dict[str, str] = {}
        for label in english_class_names:
            key = self.key(label)
            if key in seen:
                raise InputError(
                    f"labels {seen[key]!r} and {label!r} are one class of '{self.set_name}':"
                    " expected every class once; drop one of them"
                )
            seen[key] = label
        return [[fill(template, self.names[key]) for template in self.templates] for key in seen]


def load_class_names(set_name: str, language: str) -> ClassNames:
    """Loads the names that come with the project. language: a folder of `names`, "ru" or "en"."""
    folder = FOLDER / language
    if not folder.is_dir():
        known = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
        raise InputError(f"no class names in language {language!r}: expected one of {known}")
    path = folder / f"{set_name}.json"
    if not path.is_file():
        known = sorted(path.stem for path in folder.glob("*.json"))
        raise InputError(f"no class names of a set {set_name!r}: expected one of {known}")
    aliases = read_json(FOLDER / "aliases.json")
    return read_class_names(path, aliases.get(set_name, {}))


def read_class_names(path: Path, aliases: Mapping[str, str] | None = None) -> ClassNames:
    """Reads names from any file of this form, one's own included. What does not fit raises.

    Labels and names come in NFC; invisible characters in them are warned of. Templates stay as
    they are, as any text that a tokenizer is given.
    """
    shown = escape(str(path))
    try:
        content = as_path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"class names {shown} cannot be read ({reason})") from error
    table = parse_json(content, f"class names {shown}")
    path = Path(shown)
    if not isinstance(table, dict) or table.keys() != _FIELDS.keys():
        raise InputError(f"class names {path}: expected an object of {', '.join(_FIELDS)}")
    for field, kind in _FIELDS.items():
        if not isinstance(table[field], kind) or not table[field]:
            raise InputError(
                f"class names {path}: '{field}' is {table[field]!r}, expected"
                f" {kind.__name__}, not empty"
            )
    names: dict[str, Mapping[str, str]] = {}
    for label, entry in table["names"].items():
        key = normalised(label)
        if key in names:
            raise InputError(f"class names {path}: two labels read {key!r}; keep one")
        names[key] = _forms(path, label, entry)
    spelt = [*table["names"], *(form for forms in names.values() for form in forms.values())]
    for text in (*spelt, *(each for each in table["templates"] if isinstance(each, str))):
        check_encodable(text, f"class names {path}: text")
    warn_of_invisible(spelt, f"class names {path}")
    for template in table["templates"]:
        _check_template(path, template, table["names"], names)
    aliases = {normalised(alias): normalised(key) for alias, key in (aliases or {}).items()}
    for alias, key in aliases.items():
        if key not in names or alias in names:
            raise InputError(f"class names {path}: {alias!r} cannot stand for class {key!r}")
    return ClassNames(
        set_name=table["set"],
        version=table["version"],
        templates=tuple(table["templates"]),
        names=names,
        aliases=aliases,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def normalised(label: str) -> str:
    """A label without the differences between loaders: case, `_`, `-`, `/`, `.` and apostrophes.

    Its normal form does not count: NFC before the marks of "й" in NFD would be taken for
    punctuation, and again after the lower case, which may take letters apart. SUN397's loaders may
    put the folder of the first letter before the name ("/a/abbey").
    """
    label = normalize_name(normalize_name(label).casefold())
    label = re.sub(r"^/[a-z]/", "", label)
    return " ".join(re.sub(r"[\W_]+", " ", label.replace("'", "").replace("’", "")).split())


def fill(template: str, forms: Mapping[str, str]) -> str:
    """`{}` becomes the nominative, `{genitive}` the genitive."""
    return template.format(forms["nominative"], **forms)


def _forms(path: Path, label: str, entry: Any) -> Mapping[str, str]:
    forms = {"nominative": entry} if isinstance(entry, str) else entry
    if (
        not isinstance(forms, dict)
        or "nominative" not in forms
        or not set(forms) <= set(CASES)
        or not all(isinstance(form, str) and form for form in forms.values())
    ):
        raise InputError(
            f"class names {path}: class {label!r} is {entry!r}, expected a name or an object with"
            f" 'nominative' and other cases of {CASES}"
        )
    return {case: normalize_name(form) for case, form in forms.items()}


def _check_template(
    path: Path, template: Any, labels: Sequence[str], names: Mapping[str, Mapping[str, str]]
) -> None:
    try:
        parsed = string.Formatter().parse(template)
        fields = [
            "".join([field, spec or "", as_is or ""])
            for _, field, spec, as_is in parsed
            if field is not None
        ]
    except (TypeError, ValueError):
        fields = []
    if len(fields) != 1 or fields[0] not in ("", *CASES):
        raise InputError(
            f"class names {path}: template {template!r} needs exactly one placeholder,"
            f" {{}} or a case such as {{genitive}}"
        )
    case = fields[0] or "nominative"
    for label, forms in zip(labels, names.values(), strict=True):
        if case not in forms:
            raise InputError(
                f"class names {path}: template {template!r} needs the {case} of class {label!r},"
                " which has none; give it or change the template"
            )
