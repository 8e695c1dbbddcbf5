"""The built-in sets as TFDS builders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from experiments.data import digits_ru, emoji_archives, emoji_ru, emoji_styles_ru
from experiments.data.emoji_images import IMAGE_SIZE, STYLES, Emoji, all_emoji

EMOJI_LICENCE = "CC-BY 4.0 (Twemoji), CC-BY-SA 4.0 (OpenMoji), Unicode-3.0 (names)"


class DigitsRu(tfds.core.GeneratorBasedBuilder):
    """Splits train, validation and test: 80, 10 and 10 of a hundred by a hash of the pixels.

    Features: "image" uint8[8, 8, 3] (grey stretched to 0..255), "captions" (one for each
    template), "label" (0 to 9, Russian names), "id" (the place in scikit-learn's order).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=digits_ru.__doc__,
            license="CC-BY 4.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "label": tfds.features.ClassLabel(names=list(digits_ru.NAMES)),
                    "id": np.int64,
                }
            ),
        )

    def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        pixels, labels = digits_ru.digits()
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            if digits_ru.split_of(image) == split:
                name = digits_ru.NAMES[label]
                yield i, {
                    "image": digits_ru.encode_png(image),
                    "captions": [template.format(name) for template in digits_ru.TEMPLATES],
                    "label": int(label),
                    "id": i,
                }


class EmojiRu(tfds.core.GeneratorBasedBuilder):
    """Splits: train, validation_drawing, new_drawing, new_emoji; sizes above.

    Features: "image" uint8[72, 72, 3] on white, "caption" (the Russian name), "emoji" (its
    characters), "style", "category" (one of nine), "subcategory" ('' where unknown), "id" (its
    place among all names, int64: both styles of an emoji share it).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=emoji_ru.__doc__,
            license=EMOJI_LICENCE,
            features=tfds.features.FeaturesDict(_emoji_features(STYLES)),
        )

    def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in emoji_ru.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for i, (emoji, fold) in enumerate(zip(all_emoji(), emoji_ru.folds(), strict=True)):
            for style in STYLES:
                if emoji_ru.split_of(fold, style) == split:
                    image = emoji_ru.images(style)[i]
                    yield f"{style}-{i}", _emoji_row(i, emoji, style, image)


class EmojiStylesRu(tfds.core.GeneratorBasedBuilder):
    """Splits: train, train_words, validation_drawing, new_drawing, new_emoji.

    Features: as of `EmojiRu`, and "captions": of an image of train_words several, of any other its
    name. The archives of the styles are read from `emoji_archives.FOLDER` in the same directory.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = _emoji_features(emoji_styles_ru.STYLES)
        features["captions"] = tfds.features.Sequence(tfds.features.Text())
        licences = ", ".join(f"{a.licence} ({a.style})" for a in emoji_archives.ARCHIVES)
        return tfds.core.DatasetInfo(
            builder=self,
            description=emoji_styles_ru.__doc__,
            license=f"{EMOJI_LICENCE}, {licences}",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in emoji_styles_ru.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        folder = Path(self._data_dir_root) / emoji_archives.FOLDER
        emoji, folds = all_emoji(), emoji_ru.folds()
        for style, drawn in emoji_styles_ru.images(folder).items():
            for i, image in sorted(drawn.items()):
                if split in emoji_styles_ru.splits_of(folds[i], style):
                    captions = emoji_styles_ru.captions_of(emoji[i], split)
                    row = _emoji_row(i, emoji[i], style, image)
                    yield f"{style}-{i}", {**row, "captions": captions}


def _emoji_features(styles: Sequence[str]) -> dict[str, Any]:
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    return {
        "image": tfds.features.Image(shape=shape, encoding_format="png"),
        "caption": tfds.features.Text(),
        "emoji": tfds.features.Text(),
        "style": tfds.features.ClassLabel(names=list(styles)),
        "category": tfds.features.ClassLabel(names=list(emoji_ru.CATEGORIES)),
        "subcategory": tfds.features.Text(),
        "id": np.int64,
    }


def _emoji_row(i: int, emoji: Emoji, style: str, image: np.ndarray) -> dict[str, Any]:
    return {
        "image": digits_ru.encode_png(image),
        "caption": emoji.name,
        "emoji": emoji.characters,
        "style": style,
        "category": emoji.category,
        "subcategory": emoji.subcategory,
        "id": i,
    }


BUILDERS: dict[str, Callable[..., tfds.core.GeneratorBasedBuilder]] = {
    "digits_ru": DigitsRu,
    "emoji_ru": EmojiRu,
    "emoji_styles_ru": EmojiStylesRu,
}
