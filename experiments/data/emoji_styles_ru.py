"""Emoji in eight drawing styles with Russian names; one whole style, Noto, is held out.

The 1,914 emoji, categories and folds of `emoji_ru.py`, and besides Twemoji and OpenMoji those that
`emoji_styles.py` finds in six packages. Images by fold:

    fold              the seven other styles        Noto
    0                 new_emoji: Twemoji, OpenMoji  -
    1, 2, 6 to 9      train                         new_drawing
    3 to 5            train                         validation_drawing

*New drawing*: another hand's drawing of an emoji that was trained on, in a style of which nothing
was. validation_drawing is for choosing settings, new_drawing for reporting. *New emoji*: in no
style trained on. The split train_words has the images of train, each with captions of two kinds:
its name, and words for the group that it is in.

Noto's older drawings (package noto-v1) are left out: they come from the same house.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from experiments.data import emoji_ru
from experiments.data.emoji_archives import ARCHIVES
from experiments.data.emoji_images import STYLES as PIP_STYLES
from experiments.data.emoji_images import Emoji
from experiments.data.emoji_styles import drawings

HELD_OUT = "noto"
STYLES = (*PIP_STYLES, *(archive.style for archive in ARCHIVES))
SPLITS = ("train", "train_words", "validation_drawing", "new_drawing", "new_emoji")
NAME_SHARE = 6  # of eight captions of train_words; the others are words for the group

# A word for the emoji of a subcategory; where there is none, the category's title stands alone.
SUBCATEGORY_WORDS: dict[str, str] = {
    "arts & crafts": "творчество", "award-medal": "медаль", "event": "праздник", "game": "игра",
    "sport": "спорт",
    "animal-amphibian": "животное", "animal-bird": "птица", "animal-bug": "насекомое",
    "animal-mammal": "животное", "animal-marine": "рыба", "animal-reptile": "животное",
    "plant-flower": "цветок", "plant-other": "растение",
    "country-flag": "флаг страны", "flag": "флаг", "subdivision-flag": "флаг",
    "dishware": "посуда", "drink": "напиток", "food-asian": "блюдо", "food-fruit": "фрукт",
    "food-marine": "еда", "food-prepared": "еда", "food-sweet": "десерт",
    "food-vegetable": "овощ",
    "book-paper": "книга", "clothing": "одежда", "computer": "прибор", "household": "предмет",
    "light & video": "прибор", "lock": "замок", "mail": "почта", "medical": "лекарство",
    "money": "деньги", "music": "музыка", "musical-instrument": "музыка", "office": "предмет",
    "other-object": "предмет", "phone": "прибор", "science": "прибор", "sound": "звук",
    "tool": "инструмент", "writing": "предмет",
    "body-parts": "тело", "family": "семья", "hand-fingers-closed": "рука",
    "hand-fingers-open": "рука", "hand-fingers-partial": "жест", "hand-prop": "рука",
    "hand-single-finger": "рука", "hands": "жест", "person": "человек",
    "person-activity": "человек", "person-fantasy": "человек", "person-gesture": "жест",
    "person-resting": "человек", "person-role": "человек", "person-sport": "человек",
    "person-symbol": "человек",
    "cat-face": "кот", "emotion": "эмоция", "face-affection": "улыбка", "face-concerned": "лицо",
    "face-costume": "лицо", "face-glasses": "лицо", "face-hand": "лицо", "face-hat": "лицо",
    "face-negative": "лицо", "face-neutral-skeptical": "лицо", "face-sleepy": "лицо",
    "face-smiling": "улыбка", "face-tongue": "улыбка", "face-unwell": "лицо", "heart": "сердце",
    "monkey-face": "лицо",
    "alphanum": "кнопка", "arrow": "стрелка", "av-symbol": "кнопка", "currency": "символ",
    "gender": "символ", "geometric": "фигура", "keycap": "клавиша", "math": "символ",
    "other-symbol": "символ", "punctuation": "знак", "religion": "символ",
    "transport-sign": "знак", "warning": "знак", "zodiac": "знак зодиака",
    "hotel": "гостиница", "place-building": "здание", "place-geographic": "местность",
    "place-map": "карта", "place-other": "место", "place-religious": "здание",
    "sky & weather": "погода", "time": "часы", "transport-air": "самолет",
    "transport-ground": "машина", "transport-water": "корабль",
}  # fmt: skip


def captions_of(emoji: Emoji, split: str) -> list[str]:
    """Returns the captions of an image in a split; one is drawn each time that it is trained on."""
    if split != "train_words":
        return [emoji.name]
    title = emoji_ru.CATEGORY_WORDS[emoji.category][0]
    word = SUBCATEGORY_WORDS.get(emoji.subcategory, title)
    return [emoji.name] * NAME_SHARE + [title, word]


def splits_of(fold: int, style: str) -> tuple[str, ...]:
    """Returns the splits of one image of an emoji: the table at the top of this file."""
    if fold == 0:
        return ("new_emoji",) if style in PIP_STYLES else ()
    if style == HELD_OUT:
        return ("validation_drawing",) if 3 <= fold <= 5 else ("new_drawing",)
    return ("train", "train_words")


@functools.cache
def images(folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """Draws all: style -> place among `all_emoji` -> uint8[72, 72, 3]. folder: of the archives."""
    pip = {style: dict(enumerate(emoji_ru.images(style))) for style in PIP_STYLES}
    return pip | drawings(folder)

