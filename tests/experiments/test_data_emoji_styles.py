"""The emoji in eight styles: archives are checked, icons found, and one style is held out."""

import base64
import dataclasses
import hashlib
import io
import json
import tarfile
from http.client import IncompleteRead

import numpy as np
import pytest

from clip_jax.errors import InputError
from experiments import quickstart
from experiments.data import emoji_archives, emoji_styles_ru
from experiments.data.builders import EmojiStylesRu
from experiments.data.emoji_archives import ARCHIVES, Archive, Icons, download, missing, read_icons
from experiments.data.emoji_images import Emoji, all_emoji
from experiments.data.emoji_ru import folds
from experiments.data.emoji_styles import draw, find_icons, synonyms
from experiments.data.emoji_styles_ru import (
    HELD_OUT,
    STYLES,
    SUBCATEGORY_WORDS,
    captions_of,
    splits_of,
)

HALF = '<path fill="#f00" d="M0 0h4v8H0z"/>'  # the left half of 8x8, red
BEAR = Emoji("🐻", "медведь", "Animals & Nature", "animal-mammal")
HEART = Emoji("❤️", "красное сердце", "Smileys & Emotion", "heart")
CHAD = Emoji("🇹🇩", "флаг Чад", "Flags", "country-flag")
BEER = Emoji("🍺", "кружка пива", "Food & Drink", "drink")


def packed(drawings, characters=None) -> bytes:
    buffer = io.BytesIO()
    files = {"icons.json": drawings, "chars.json": characters or {}}
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archive_of(content: bytes, style="noto") -> Archive:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Archive(style, style, "1.0.0", digest, 0.1, "MIT")


def icons(names, aliases=None, characters=None) -> Icons:
    return Icons({name: {"body": HALF} for name in names}, aliases or {}, characters or {}, (8, 8))


def test_icons_are_read_from_an_archive(tmp_path):
    drawings = {"icons": {"bear": {"body": HALF}}, "width": 8, "height": 8}
    content = packed(drawings, {"1f43b": "bear"})
    archive = archive_of(content)
    assert missing(tmp_path, [archive]) == [archive]
    with pytest.raises(InputError, match=r"noto-1.0.0.tgz: no such file; `.* --download` fetches"):
        read_icons(tmp_path, archive)
    (tmp_path / archive.file).write_bytes(content)
    assert missing(tmp_path, [archive]) == []
    assert read_icons(tmp_path, archive) == Icons(
        {"bear": {"body": HALF}}, {}, {"1f43b": "bear"}, (8, 8)
    )


def test_other_bytes_are_refused(tmp_path, monkeypatch):
    content = packed({"icons": {}})
    archive = dataclasses.replace(archive_of(content), sha512="A" * 88)
    (tmp_path / archive.file).write_bytes(content)
    with pytest.raises(InputError, match="SHA-512 is .*, expected AAAAAAAAAAAA"):
        read_icons(tmp_path, archive)
    (tmp_path / archive.file).unlink()
    answers = iter([content, content])
    monkeypatch.setattr(
        emoji_archives.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(next(answers))
    )
    with pytest.raises(InputError, match="registry.npmjs.org.*SHA-512"):
        download(tmp_path, [archive])
    assert list(tmp_path.iterdir()) == []
    download(tmp_path, [archive_of(content)])
    download(tmp_path, [archive_of(content)])  # there: not fetched again
    assert [path.name for path in tmp_path.iterdir()] == ["noto-1.0.0.tgz"]


@pytest.mark.parametrize("error", [OSError("no route"), IncompleteRead(b"", 7)])
def test_a_server_that_fails_names_the_folder(tmp_path, monkeypatch, error):
    def refuse(url, timeout):
        raise error

    monkeypatch.setattr(emoji_archives.urllib.request, "urlopen", refuse)
    with pytest.raises(InputError, match="; fetch it some other way and put it into"):
        download(tmp_path, ARCHIVES[:1])
    assert list(tmp_path.iterdir()) == []


def test_icons_are_found_by_code_points_names_and_synonyms():
    emoji = [BEAR, HEART, CHAD, BEER]
    by_points = icons(
        ["bear", "red-heart"], {"bear-face": {"parent": "bear"}},
        {"1f43b": "bear", "2764-fe0f": "red-heart", "1f43b-200d": "polar-bear"},
    )  # fmt: skip
    known = synonyms(emoji, [by_points])
    assert known == {"bear": 0, "bear-face": 0, "red-heart": 1}
    assert find_icons(emoji, by_points, known) == {0: "bear", 1: "red-heart"}
    by_names = icons(["bear-face", "flag-for-chad", "beermug", "red-circle"])
    assert find_icons(emoji, by_names, known) == {0: "bear-face", 2: "flag-for-chad", 3: "beermug"}
    assert find_icons(emoji, icons(["chad"]), {}) == {}  # no flag: the name alone says too little


def test_drawings_stand_in_a_square_and_are_mirrored():
    drawn = icons(["left"], {"right": {"parent": "left", "hFlip": True}})
    red, white = (255, 0, 0), (255, 255, 255)
    left, right = draw(drawn, "left"), draw(drawn, "right")
    assert left.shape == (72, 72, 3) and left.dtype == np.uint8
    assert tuple(left[36, 10]) == red and tuple(left[36, 60]) == white
    np.testing.assert_array_equal(right, left[:, ::-1])
    narrow = Icons({"half": {"body": HALF, "width": 4}}, {}, {}, (8, 8))
    assert [tuple(draw(narrow, "half")[36, x]) for x in (10, 36, 60)] == [white, red, white]


def test_noto_is_held_out_whole():
    assert (HELD_OUT, STYLES[:3]) == ("noto", ("twemoji", "openmoji", "noto"))
    assert {splits_of(fold, "noto") for fold in (3, 4, 5)} == {("validation_drawing",)}
    assert {splits_of(fold, "noto") for fold in (1, 2, 6, 7, 8, 9)} == {("new_drawing",)}
    for style in set(STYLES) - {"noto"}:
        assert {splits_of(fold, style) for fold in range(1, 10)} == {("train", "train_words")}
    assert [splits_of(0, style) for style in STYLES] == [("new_emoji",)] * 2 + [()] * 6


def test_captions_of_groups_are_in_one_split():
    assert captions_of(BEAR, "train") == ["медведь"]
    assert captions_of(BEAR, "train_words") == ["медведь"] * 6 + ["животные и природа", "животное"]
    newer = dataclasses.replace(BEAR, subcategory="")
    assert captions_of(newer, "train_words")[6:] == ["животные и природа"] * 2
    assert {emoji.subcategory for emoji in all_emoji()} == {*SUBCATEGORY_WORDS, ""}


def test_rows(tmp_path, monkeypatch):
    of, image = folds(), np.full((72, 72, 3), 9, np.uint8)
    seen, held, unseen = of.index(6), of.index(4), of.index(0)
    drawn = {"openmoji": {seen: image, unseen: image}, "noto": {held: image, unseen: image}}
    monkeypatch.setattr(emoji_styles_ru, "images", lambda folder: drawn)
    builder = EmojiStylesRu(data_dir=str(tmp_path))
    rows = {split: dict(builder._generate_examples(split)) for split in emoji_styles_ru.SPLITS}
    assert {split: list(found) for split, found in rows.items()} == {
        "train": [f"openmoji-{seen}"], "train_words": [f"openmoji-{seen}"],
        "validation_drawing": [f"noto-{held}"], "new_drawing": [],
        "new_emoji": [f"openmoji-{unseen}"],
    }  # fmt: skip
    row = rows["train_words"][f"openmoji-{seen}"]
    assert (row["id"], row["caption"]) == (seen, all_emoji()[seen].name)
    assert len(row["captions"]) == 8 and set(row) == set(builder.info.features)


def test_the_quickstart_takes_two_styles_where_the_archives_are_not(tmp_path, capsys):
    demo = quickstart.DEMOS["emoji"]
    recipes = {name: recipe() for name, recipe in demo.recipes.items()}
    recipes = {
        name: dataclasses.replace(
            config, data=dataclasses.replace(config.data, directory=str(tmp_path))
        )
        for name, config in recipes.items()
    }
    chosen = quickstart._choose_styles(recipes, download=False)
    assert {config.data.name for config in chosen.values()} == {"emoji_ru"}
    measured = chosen["ruclip"]  # docs/emoji.md, "The run with two styles"
    assert (measured.steps, measured.data.augment.variants) == (4500, 12)
    assert chosen["vqgan"].steps == recipes["vqgan"].steps
    assert "--download fetches six more (10 MB from npm)" in capsys.readouterr().out
    (tmp_path / "emoji_styles_ru").mkdir()
    chosen = quickstart._choose_styles(recipes, download=False)
    assert {config.data.name for config in chosen.values()} == {"emoji_styles_ru"}
    assert [chosen[name].data.split for name in recipes] == ["train_words", "train", "train"]
    assert capsys.readouterr().out == ""


def test_download_is_for_the_emoji(capsys):
    assert quickstart.main(["--data=digits", "--download"]) == 2
    assert "--download is for --data emoji; --data is digits" in capsys.readouterr().err
