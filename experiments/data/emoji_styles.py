"""Draws emoji in the styles of Iconify's packages by resvg, and finds which icon is which emoji.

Packages name an icon by Unicode's English name ("grinning-face"), older ones by an older name, and
some list code points. So an icon belongs to an emoji by its code points; or else by the English
name or an alias that the `emoji` package has; or by a name under which a package with code points
has it. What none of these finds is left out.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.data.emoji_archives import ARCHIVES, Icons, read_icons
from experiments.data.emoji_images import IMAGE_SIZE, Emoji, all_emoji, demo_package

_VARIATION_SELECTOR = "\ufe0f"


def drawings(folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """Draws all: style -> place among `all_emoji` -> uint8[72, 72, 3] on white.

    folder: of the archives. Takes about a minute.
    """
    opened = {archive.style: read_icons(folder, archive) for archive in ARCHIVES}
    emoji = all_emoji()
    known = synonyms(emoji, opened.values())
    return {
        style: {i: draw(icons, name) for i, name in find_icons(emoji, icons, known).items()}
        for style, icons in opened.items()
    }


def draw(icons: Icons, name: str) -> np.ndarray:
    """Draws an icon or an alias of one, centred in a square, on white: uint8[72, 72, 3]."""
    mirrored = False
    while name in icons.aliases:
        mirrored ^= bool(icons.aliases[name].get("hFlip"))
        name = icons.aliases[name]["parent"]
    icon = icons.icons[name]
    width, height = icon.get("width", icons.size[0]), icon.get("height", icons.size[1])
    side = max(width, height)
    left = icon.get("left", 0) - (side - width) / 2
    top = icon.get("top", 0) - (side - height) / 2
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{IMAGE_SIZE}" height="{IMAGE_SIZE}" viewBox="{left} {top} {side} {side}">'
        f"{icon['body']}</svg>"
    )
    png = demo_package("resvg_py").svg_to_bytes(
        svg_string=svg, background="#ffffff", skip_system_fonts=True
    )
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return pixels[:, ::-1] if mirrored else pixels


def find_icons(
    emoji: Sequence[Emoji], icons: Icons, known: Mapping[str, int]
) -> dict[int, str]:
    """Returns place -> name of the icon, for the emoji that a package draws.

    known: `synonyms` of all packages.
    """
    names = sorted({*icons.icons, *icons.aliases})
    joined = {name.replace("-", ""): name for name in names}
    found = _by_code_points(emoji, icons)
    english = [_english_names(one) for one in emoji]
    for i, own in enumerate(english):
        for name in own:
            if name in icons.icons or name in icons.aliases:
                found.setdefault(i, name)
    for name in names:
        if name in known:
            found.setdefault(known[name], name)
    for i, own in enumerate(english):  # FxEmoji writes "beermug"
        for name in own:
            if name.replace("-", "") in joined:
                found.setdefault(i, joined[name.replace("-", "")])
    return found


def synonyms(emoji: Sequence[Emoji], packages: Iterable[Icons]) -> dict[str, int]:
    """Returns name -> place, of all names in the packages that list code points."""
    known: dict[str, int] = {}
    for icons in packages:
        for i, name in _by_code_points(emoji, icons).items():
            known.setdefault(name, i)
        for name, alias in icons.aliases.items():
            if set(alias) == {"parent"} and alias["parent"] in known:
                known.setdefault(name, known[alias["parent"]])
    return known


def _by_code_points(emoji: Sequence[Emoji], icons: Icons) -> dict[int, str]:
    places = {
        tuple(ord(c) for c in one.characters if c != _VARIATION_SELECTOR): i
        for i, one in enumerate(emoji)
    }
    found = {}
    for key, name in icons.characters.items():
        code_points = (int(point, 16) for point in key.split("-"))
        place = places.get(tuple(p for p in code_points if p != ord(_VARIATION_SELECTOR)))
        if place is not None:
            found[place] = name
    return found


def _english_names(emoji: Emoji) -> list[str]:
    facts = demo_package("emoji").EMOJI_DATA[emoji.characters]
    names = [_hyphenated(name) for name in (facts["en"], *facts.get("alias", ()))]
    if emoji.subcategory == "country-flag":
        return [f"flag-for-{names[0]}", f"flag-for-flag-{names[0]}"]
    return names


def _hyphenated(name: str) -> str:
    """Spells a name as Iconify does: letters, digits and hyphens of ASCII."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain.replace("'", "").replace("&", "and")).strip("-")
