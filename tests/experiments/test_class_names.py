"""The Russian and English class names of the 18 evaluation sets."""

import ast
import json
import re
import string
import tomllib
from pathlib import Path

import pytest

from clip_jax.errors import InputError
from experiments.evaluation.prompts.class_names import (
    CASES,
    FOLDER,
    load_class_names,
    normalised,
    read_class_names,
)

CLASSES = {
    "food101": 101,
    "cifar10": 10,
    "cifar100": 100,
    "birdsnap": 500,
    "sun397": 397,
    "stanford_cars": 196,
    "dtd": 47,
    "mnist": 10,
    "stl10": 10,
    "patch_camelyon": 2,
    "clevr_counts": 8,
    "rendered_sst2": 2,
    "imagenet": 1000,
    "fgvc_aircraft": 100,
    "oxford_pets": 37,
    "caltech101": 102,
    "oxford_flowers102": 102,
    "hateful_memes": 2,
}
LANGUAGES = ("en", "ru")
NAMES_OF_MODELS = {"fgvc_aircraft", "stanford_cars"}  # a noun before them takes the case

# Words that Russian text too writes in Latin letters: names of makers and models.
LATIN_WORDS = {
    "fgvc_aircraft": r"[A-Z0-9]\w*|de",
    "imagenet": "iPod",
    "stanford_cars": r"[A-Z0-9]\w*|and|fortwo|smart|xD",
}


def each(language):
    return [(name, load_class_names(name, language)) for name in CLASSES]


def texts(names):
    return [*names.templates, *(text for forms in names.names.values() for text in forms.values())]


def test_the_sets_of_the_report_are_all_there():
    for language in LANGUAGES:
        assert {path.stem for path in (FOLDER / language).iterdir()} == set(CLASSES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_number_of_classes(language):
    assert {name: len(names.names) for name, names in each(language)} == CLASSES


def test_english_and_russian_have_the_same_labels():
    for name, russian in each("ru"):
        assert list(russian.names) == list(load_class_names(name, "en").names)


@pytest.mark.parametrize("language", LANGUAGES)
def test_files_name_their_set_and_have_no_class_twice(language):
    for name, names in each(language):
        assert names.set_name == name and names.version >= 1
        for case in CASES:
            forms = [forms[case] for forms in names.names.values() if case in forms]
            assert not {form for form in forms if forms.count(form) > 1}, name
        pairs = json.loads(
            (FOLDER / language / f"{name}.json").read_text(encoding="utf-8"),
            object_pairs_hook=lambda pairs: pairs,
        )
        labels = [label for label, _ in dict(pairs)["names"]]
        assert len(labels) == len(set(labels)), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_whitespace_marks_and_alphabets(language):
    for name, names in each(language):
        for text in texts(names):
            assert text == " ".join(text.split()), (name, text)
            # Combining stress marks and soft hyphens break the tokenizer's words.
            assert not re.search("[\u0300-\u036f\u00ad\u200b\ufeff]", text), (name, text)
            for word in re.findall(r"[^\W\d_]+", text):
                cyrillic = re.findall("[а-яё]", word.lower())
                assert len(cyrillic) in (0, len(word)), (name, text)


def test_russian_has_latin_letters_in_proper_names_alone():
    for name, names in each("ru"):
        for template in names.templates:
            assert not re.search("[A-Za-z]", re.sub(r"\{\w*\}", "", template)), (name, template)
        for forms in names.names.values():
            for word in re.findall(r"\w*[A-Za-z]\w*", " ".join(forms.values())):
                assert re.fullmatch(LATIN_WORDS.get(name, ""), word), (name, forms)


def test_english_has_no_cyrillic():
    for name, names in each("en"):
        assert not [text for text in texts(names) if re.search("[А-Яа-яЁё]", text)], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_templates_have_one_placeholder_and_differ(language):
    for name, names in each(language):
        assert len(set(names.templates)) == len(names.templates) >= 3, name
        for template in names.templates:
            fields = [field for _, field, *_ in string.Formatter().parse(template)]
            assert len([field for field in fields if field is not None]) == 1, template
        labels = list(names.names)
        prompts = names.prompts(labels)
        assert len(prompts) == len(labels)
        assert not [p for filled in prompts for p in filled if "{" in p or "}" in p]


def test_the_prompt_of_ruclip_small_is_there_for_every_set():
    for name, names in each("ru"):
        [template] = [text for text in names.templates if text.startswith("изображение ")]
        if name in NAMES_OF_MODELS:
            assert re.fullmatch(r"изображение [а-яё]+ {}", template)
        else:
            assert template == "изображение {genitive}"
    cat = load_class_names("cifar10", "ru").prompts(["cat"])[0]
    assert "изображение кошки" in cat and "на фото — кошка" in cat


def test_a_genitive_belongs_to_its_nominative():
    for name in CLASSES.keys() - NAMES_OF_MODELS:
        for forms in load_class_names(name, "ru").names.values():
            words, inflected = (
                [word[0].replace("ё", "е") for word in forms[case].split()]  # ёж, ежа
                for case in ("nominative", "genitive")
            )
            assert words == inflected, (name, forms)


def test_numerals_agree_with_what_is_counted():
    forms = load_class_names("clevr_counts", "ru").names
    for count in range(3, 11):
        noun = "предмета" if count < 5 else "предметов"
        assert forms[str(count)]["nominative"].split()[1] == noun
        assert forms[str(count)]["genitive"].split()[1] == "предметов"


# What the installed TFDS says its labels are, read without TensorFlow.
TFDS_FILES = {
    "food101": "image_classification/food-101_classes.txt",
    "dtd": "image_classification/dtd_key_attributes.txt",
    "caltech101": "image_classification/caltech101_labels.txt",
    "sun397": "image_classification/sun397_labels.txt",
    "imagenet": "datasets/imagenet2012/labels.txt",
}
TFDS_CONSTANTS = {
    "stanford_cars": "image_classification/cars196.py",
    "oxford_flowers102": "datasets/oxford_flowers102/oxford_flowers102_dataset_builder.py",
    "oxford_pets": "datasets/oxford_iiit_pet/oxford_iiit_pet_dataset_builder.py",
}


def tfds_labels(name):
    import tensorflow_datasets as tfds

    folder = Path(tfds.__file__).parent
    if name in TFDS_FILES:
        return (folder / TFDS_FILES[name]).read_text().split()
    module = ast.parse((folder / TFDS_CONSTANTS[name]).read_text())
    [labels] = [
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("_NAMES", "_LABEL_CLASSES")
    ]
    return labels


@pytest.mark.parametrize("name", [*TFDS_FILES, *TFDS_CONSTANTS])
def test_labels_of_tfds_are_covered(name):
    labels = tfds_labels(name)
    assert len(labels) == CLASSES[name]
    for language in LANGUAGES:
        names = load_class_names(name, language)
        assert {names.key(label) for label in labels} == set(names.names)


def test_any_order_and_spelling_gives_the_same_prompts():
    names = load_class_names("cifar100", "ru")
    labels = list(names.names)
    forward = dict(zip(labels, names.prompts(labels), strict=True))
    assert dict(zip(labels[::-1], names.prompts(labels[::-1]), strict=True)) == forward
    spelled = ["Maple Tree", "maple-tree", "MAPLE_TREE", " maple/tree"]
    assert [names.prompts([label]) for label in spelled] == 4 * [[forward["maple tree"]]]
    places = load_class_names("sun397", "ru")
    assert places.prompts(["/b/bakery/shop"]) == places.prompts(["bakery shop"])
    cars = load_class_names("stanford_cars", "ru")
    assert cars.prompts(["BMW 3 Series Sedan 2012"])[0][0] == "BMW 3 серии, седан, 2012 год"
    birds = load_class_names("birdsnap", "ru")
    assert birds.prompts(["Allen's Hummingbird"]) == birds.prompts(["Allens_Hummingbird"])
    flowers = load_class_names("oxford_flowers102", "ru")
    assert flowers.prompts(["colts foot"]) == flowers.prompts(["Colt’s_foot"])


def test_labels_of_other_loaders():
    assert normalised("/a/apartment_building/outdoor") == "apartment building outdoor"
    digits = load_class_names("mnist", "ru")
    assert digits.prompts(["7 - seven"]) == digits.prompts(["7"])
    assert digits.prompts(["7"])[0][0] == "рукописная цифра семь"
    flowers = load_class_names("oxford_flowers102", "en")
    assert flowers.prompts(["air plant"]) == flowers.prompts(["ball_moss"])
    tissue = load_class_names("patch_camelyon", "en")
    assert tissue.prompts(["1", "0"]) == tissue.prompts(["tumor", "no_tumor"])


def test_imagenet_by_wordnet_id():
    """Words that English has for two classes; wnids in an order that is not the sorted one."""
    twins = {
        "n02012849": ("crane bird", "птица журавль"),
        "n03126707": ("construction crane", "подъёмный кран"),
        "n03710637": ("tights", "облегающее трико"),
        "n03710721": ("one-piece swimsuit", "слитный купальник"),
        "n02963159": ("cardigan", "кофта кардиган"),
        "n02113186": ("Cardigan Welsh corgi", "вельш-корги кардиган"),
        "n01440764": ("tench", "рыба линь"),
        "n15075141": ("toilet paper", "рулон туалетной бумаги"),
    }
    for place, language in enumerate(LANGUAGES):
        prompts = load_class_names("imagenet", language).prompts(list(twins))
        assert [filled[0] for filled in prompts] == [names[place] for names in twins.values()]


def test_uncovered_doubled_and_unknown():
    names = load_class_names("cifar10", "ru")
    with pytest.raises(InputError, match="'unicorn'"):
        names.prompts(["cat", "unicorn"])
    with pytest.raises(InputError, match="'cat' and 'Cat' are one class"):
        names.prompts(["cat", "Cat"])
    with pytest.raises(InputError, match="'cifar11'.*cifar10"):
        load_class_names("cifar11", "ru")
    with pytest.raises(InputError, match="'de'.*en.*ru"):
        load_class_names("cifar10", "de")


def written(folder, **changes):
    table = {"version": 1, "set": "own", "templates": ["{}"], "names": {"a_b": "слово"}}
    path = folder / "own.json"
    path.write_text(json.dumps(table | changes), encoding="utf-8")
    return path


def test_own_file_and_its_hash(tmp_path):
    names = read_class_names(written(tmp_path), {"word": "a_b"})
    assert names.prompts(["A b"]) == names.prompts(["Word"]) == [["слово"]]
    other = read_class_names(written(tmp_path, version=2))
    assert len(names.sha256) == 64 and names.sha256 != other.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": ["фото"]}, "'фото' needs exactly one placeholder"),
        ({"templates": ["{} и {}"]}, "exactly one placeholder"),
        ({"templates": ["{0}"]}, "exactly one placeholder"),
        ({"templates": ["{!r}"]}, "exactly one placeholder"),
        ({"templates": ["{"]}, "exactly one placeholder"),
        ({"templates": ["{genitive}"]}, "needs the genitive of class 'a_b'"),
        ({"templates": []}, "'templates' is"),
        ({"version": "1"}, "'version' is '1'"),
        ({"names": {"a_b": "один", "A-B": "два"}}, "two labels read 'a b'"),
        ({"names": {"a": {"genitive": "слова"}}}, "class 'a' is"),
        ({"names": {"a": {"nominative": "слово", "vocative": "слово"}}}, "class 'a' is"),
        ({"extra": 1}, "expected an object of version"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_class_names(written(tmp_path, **changes))


def test_aliases_name_classes(tmp_path):
    with pytest.raises(InputError, match="'word' cannot stand for class 'c'"):
        read_class_names(written(tmp_path), {"word": "c"})
    aliases = json.loads((FOLDER / "aliases.json").read_text(encoding="utf-8"))
    assert set(aliases) <= set(CLASSES)


def test_the_wheel_carries_the_files():
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["experiments.evaluation.prompts"]
    package = root / "experiments/evaluation/prompts"
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for path in FOLDER.rglob("*") if path.is_file()} <= carried
