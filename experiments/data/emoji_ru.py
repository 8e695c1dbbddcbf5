"""Emoji in two drawing styles with Russian names.

1,914 emoji x 2 styles (`emoji_images.py`), and two questions to a trained model:

*New drawing*: the emoji's Twemoji image was trained on, its OpenMoji image was not.
*New emoji*: neither was.

Each emoji falls into one of ten folds by a hash of its characters. Images by fold and style:

    fold        twemoji      openmoji              emoji
    0           new_emoji    new_emoji               201
    1, 2        train        new_drawing             367
    3           train        validation_drawing      183
    4 to 9      train        train                 1,163

So there are 1,713 + 1,163 = 2,876 images in train, 183 in validation_drawing (for choosing
settings; the other two are for reporting), 367 in new_drawing, 402 in new_emoji. Some emoji look
alike to the last pixel in one of the styles (Chad and Romania; families of three). They share a
fold, so that no image is in two splits.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from experiments.data.emoji_images import STYLES, all_emoji, draw

SPLITS = ("train", "validation_drawing", "new_drawing", "new_emoji")

# Unicode's groups, and what a Russian speaker may call a member of each; the first is the title.
CATEGORY_WORDS: dict[str, tuple[str, ...]] = {
    "Activities": ("занятия и спорт", "спорт", "игра", "праздник", "медаль", "мяч"),
    "Animals & Nature": ("животные и природа", "животное", "птица", "рыба", "насекомое", "цветок"),
    "Flags": ("флаги", "флаг", "флаг страны"),
    "Food & Drink": ("еда и напитки", "еда", "напиток", "фрукт", "овощ", "блюдо", "десерт"),
    "Objects": ("предметы", "предмет", "инструмент", "одежда", "книга", "прибор", "музыка"),
    "People & Body": ("люди и тело", "человек", "мужчина", "женщина", "рука", "семья", "жест"),
    "Smileys & Emotion": ("смайлики и эмоции", "лицо", "улыбка", "эмоция", "сердце", "кот"),
    "Symbols": ("символы", "символ", "знак", "стрелка", "кнопка", "знак зодиака", "клавиша"),
    "Travel & Places": ("путешествия и места", "здание", "машина", "поезд", "погода", "часы"),
}
CATEGORIES = tuple(CATEGORY_WORDS)


def all_names() -> list[str]:
    """Returns the 1,914 Russian names, by "id": what an image's name is to be found among."""
    names = [emoji.name for emoji in all_emoji()]
    if len({name.lower() for name in names}) != len(names):
        raise AssertionError("two emoji share a Russian name; retrieval would have two answers")
    return names


def split_of(fold: int, style: str) -> str:
    """Returns the split of one image of an emoji: the table at the top of this file."""
    if fold == 0:
        return "new_emoji"
    if style == "twemoji" or fold > 3:
        return "train"
    return "validation_drawing" if fold == 3 else "new_drawing"


@functools.cache
def images(style: str) -> np.ndarray:
    """Draws all emoji in one style, in the order of `all_emoji`: uint8[1914, 72, 72, 3], 30 MB."""
    return np.stack([draw(emoji.characters, style) for emoji in all_emoji()])


@functools.cache
def folds() -> tuple[int, ...]:
    """Returns the fold of each emoji, 0 to 9; emoji that look the same in some style share one."""
    first = list(range(len(all_emoji())))  # a disjoint-set forest: i leads to its family's first

    def find(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for style in STYLES:
        seen: dict[bytes, int] = {}
        for i, image in enumerate(images(style)):
            a, b = sorted((find(i), find(seen.setdefault(image.tobytes(), i))))
            first[b] = a
    return tuple(_bucket(all_emoji()[find(i)].characters) for i in range(len(first)))


def _bucket(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10
