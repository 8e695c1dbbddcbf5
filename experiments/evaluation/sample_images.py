"""Opens eight images of scikit-image's wheel, with captions: those of CLIP's own figure."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from clip_jax.errors import InputError
from experiments.evaluation.sets.captioned_set import CaptionedSet

# File of scikit-image's data folder -> caption in each language.
SAMPLES: dict[str, dict[str, str]] = {
    "page.png": {
        "ru": "страница печатного текста об обработке изображений",
        "en": "a page of printed text about image processing",
    },
    "chelsea.png": {
        "ru": "портрет рыжего полосатого кота",
        "en": "a portrait of a ginger tabby cat",
    },
    "astronaut.png": {
        "ru": "женщина-астронавт в скафандре на фоне флага",
        "en": "a woman astronaut in a space suit in front of a flag",
    },
    "rocket.jpg": {
        "ru": "ракета на стартовой площадке",
        "en": "a rocket on a launch pad",
    },
    "motorcycle_right.png": {
        "ru": "красный мотоцикл стоит в гараже",
        "en": "a red motorcycle standing in a garage",
    },
    "camera.png": {
        "ru": "чёрно-белое фото человека с фотоаппаратом на штативе",
        "en": "a black-and-white photo of a man with a camera on a tripod",
    },
    "horse.png": {
        "ru": "чёрный силуэт лошади",
        "en": "a black silhouette of a horse",
    },
    "coffee.png": {
        "ru": "чашка кофе на блюдце",
        "en": "a cup of coffee on a saucer",
    },
}


def open_samples(language: str) -> CaptionedSet:
    """The images as files, read from the wheel: scikit-image itself would download others.

    Without the package, of the extra `demo`, raises InputError.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the eight images come with the package 'scikit-image', which is not installed: "
            "pip install 'rudolph-jax[demo]'"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    absent = [name for name in SAMPLES if not (folder / name).is_file()]
    if absent:
        raise InputError(f"{folder}: has no {absent[0]}; expected scikit-image 0.25 or newer")
    return CaptionedSet(
        "scikit-image", "samples",
        tuple((captions[language],) for captions in SAMPLES.values()),
        tuple(SAMPLES),
        [(folder / name).read_bytes() for name in SAMPLES],
    )  # fmt: skip
