"""Makes the prompts by which a model tells the classes of a set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.predictor import TEMPLATES
from clip_jax.text import check_encodable
from experiments.data import digits_ru, emoji_ru
from experiments.evaluation.prompts.class_names import (
    ClassNames,
    load_class_names,
    read_class_names,
)
from experiments.evaluation.sets import RECORDS
from experiments.evaluation.sets.labelled_set import LabelledSet
from experiments.evaluation.sets.loader import find_path


@dataclasses.dataclass(frozen=True)
class Prompts:
    """by_class: of each class, in the set's order, its prompts. source: where they come from."""

    by_class: list[list[str]]
    source: dict[str, Any]


def prompts_for(
    images: LabelledSet, language: str, file: str | Path | None = None, prefix: str = ""
) -> Prompts:
    """The project's prompts for a known set, or those of a file of class names.

    A user's own set without a file gets ruCLIP's six templates around its classes' own names.
    prefix: of the project's prompts for the report's sets those alone that begin so, in this
    spelling. Classes that the names do not cover raise InputError.
    """
    if file is not None:
        return _from_names(read_class_names(find_path(file)), images)
    if images.name in EMBEDDED:
        if language != "ru":
            raise InputError(
                f"{images.name}: has prompts in 'ru' alone; the system reads {language!r}; give "
                "it translations"
            )
        return Prompts(EMBEDDED[images.name](images.class_names), {"embedded": images.name})
    if images.name in RECORDS:
        return _from_names(load_class_names(images.name, language), images, prefix)
    names = own_names(images)
    return Prompts(filled(TEMPLATES, names), {"templates": "ruclip", "names": "the set's"})


def own_names(images: LabelledSet) -> tuple[str, ...]:
    """The class names of a user's own set, fit for prompts.

    Two classes of one name, which no prompt tells apart, and names that are no Unicode raise
    InputError.
    """
    numbers: dict[str, int] = {}
    for number, name in enumerate(images.class_names):
        check_encodable(name, f"{images.name}: class name")
        if numbers.setdefault(name, number) != number:
            raise InputError(
                f"{images.name}: classes {numbers[name]} and {number} are both called {name!r}, "
                "so that no prompt tells them apart; give other names with --class-names"
            )
    return images.class_names


def filled(templates: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    return [[template.replace("{}", name) for template in templates] for name in names]


def _from_names(names: ClassNames, images: LabelledSet, prefix: str = "") -> Prompts:
    source = {"names": names.set_name, "version": names.version, "sha256": names.sha256}
    if prefix:
        source["opening"] = prefix
        names = dataclasses.replace(names, templates=_with_prefix(names.templates, prefix))
    return Prompts(names.prompts(images.class_names), source)


def _with_prefix(templates: Sequence[str], prefix: str) -> tuple[str, ...]:
    found = [t for t in templates if t.casefold().startswith(prefix.casefold())]
    if not found:
        raise InputError(
            f"no template begins with {prefix!r}, as the system's prompts do; expected one among "
            f"{', '.join(map(repr, templates))}"
        )
    return tuple(prefix + template[len(prefix) :] for template in found)


def _digits(class_names: Sequence[str]) -> list[list[str]]:
    return filled(digits_ru.TEMPLATES, class_names)


def _emoji(class_names: Sequence[str]) -> list[list[str]]:
    words = {titles[0]: list(titles) for titles in emoji_ru.CATEGORY_WORDS.values()}
    return [words[name] for name in class_names]


EMBEDDED: dict[str, Callable[[Sequence[str]], list[list[str]]]] = {
    "digits_ru": _digits,
    "emoji_ru": _emoji,
}
