"""Evaluation sets as real folders and files are: junk, normal forms, marks, other encodings."""

import json
import os
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_sources import make_parquet, make_table, make_tars, make_tree, picture

from clip_jax import InputError
from clip_jax.text import InvisibleCharacterWarning, read_lines
from experiments.data.sources.labels import LabelledRows
from experiments.evaluation.prompts.class_names import (
    load_class_names,
    normalised,
    read_class_names,
)
from experiments.evaluation.prompts.class_prompts import prompts_for
from experiments.evaluation.prompts.translations import read_translations
from experiments.evaluation.sets import open_set
from experiments.evaluation.sets.labelled_set import labelled_set

COMPOSED = "йод"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
BROKEN = os.fsdecode(b"\xffcat")  # a folder's name that is not UTF-8


def class_names_file(path, names, mark=""):
    table = {"version": 1, "set": "own", "templates": ["{}", "фото: {}"], "names": names}
    path.write_text(mark + json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return path


def test_junk_folders_are_no_classes(tmp_path):
    make_tree(tmp_path, {
        "test": {"кот": 2, "пёс": 1, "empty": 0, "__MACOSX": 1, ".ipynb_checkpoints": 1},
        "train": {"кот": 1, "$RECYCLE.BIN": 1, "@eaDir": 1, "notes": 0, "only_train": 1},
        "__MACOSX": {"кот": 1, "ghost": 2},
        "docs": {"english": 0},
    })  # fmt: skip
    test = tmp_path / "test"
    for name in ("Thumbs.db", ".DS_Store", "._0.jpg", "list.txt"):
        (test / "кот" / name).write_bytes(b"junk")
    (test / "кот" / "more").mkdir()
    (test / "кот" / "more" / "3.png").write_bytes(picture(3))
    (test / "кот" / "thumb.jpg").mkdir()  # Synology makes a folder for each image
    (test / "loose.png").write_bytes(picture(4))
    (test / "empty" / "readme.md").write_text("nothing")
    opened = open_set(str(tmp_path))
    assert opened.class_names == ("only_train", "кот", "пёс")
    assert opened.keys == ("кот/0.png", "кот/1.png", "пёс/0.png")
    assert opened.ignored == (
        "5 hidden or system folders: __MACOSX, test/.ipynb_checkpoints, test/__MACOSX, "
        "train/$RECYCLE.BIN, train/@eaDir",
        "3 folders without images: docs, test/empty, train/notes",
        "2 folders inside of classes: test/кот/more, test/кот/thumb.jpg",
        "1 images outside of classes: test/loose.png",
        "4 files that are no images: test/кот/.DS_Store, test/кот/._0.jpg, test/кот/Thumbs.db, "
        "test/кот/list.txt",
    )
    assert open_set(str(tmp_path), "train").labels.tolist() == [0, 1]


def test_parquet_beside_junk(tmp_path):
    make_parquet(tmp_path, {"test": [0, 1]}, ["кот", "пёс"])
    (tmp_path / "data" / "._test-00000-of-00002.parquet").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "test-00000-of-00002.parquet").write_bytes(b"\x00\x05\x16\x07")
    assert open_set(str(tmp_path)).labels.tolist() == [0, 1]


def test_folders_in_two_normal_forms_are_one_class(tmp_path):
    make_tree(tmp_path, {"test": {COMPOSED: 2, DECOMPOSED: 1}, "train": {DECOMPOSED: 1, "дом": 1}})
    test = open_set(str(tmp_path))
    assert test.class_names == ("дом", COMPOSED) and test.labels.tolist() == [1, 1, 1]
    assert len(set(test.keys)) == 3  # two files are called 0.png
    train = open_set(str(tmp_path), "train")
    assert train.keys == ("дом/0.png", f"{COMPOSED}/0.png") and train.labels.tolist() == [0, 1]


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl"])
def test_a_table_in_two_normal_forms_has_one_class(tmp_path, kind):
    make_table(tmp_path, f"test{kind}", [COMPOSED, DECOMPOSED, "дом"])
    test = open_set(str(tmp_path))
    assert test.class_names == ("дом", COMPOSED) and test.labels.tolist() == [1, 1, 0]


def test_parquet_in_two_normal_forms_has_one_class(tmp_path):
    table = pa.table({"image": [picture(i) for i in range(3)],
                      "label": [COMPOSED, DECOMPOSED, "дом"]})  # fmt: skip
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    assert open_set(str(tmp_path)).labels.tolist() == [1, 1, 0]


def test_numbered_classes_in_two_normal_forms_are_refused(tmp_path):
    make_parquet(tmp_path, {"test": [0, 1]}, [COMPOSED, DECOMPOSED])
    with pytest.raises(InputError, match=r"classes 0 and 1 are .*one name in two normal forms"):
        open_set(str(tmp_path))
    rows = LabelledRows((DECOMPOSED,), [0], [f"{DECOMPOSED}.png"], lambda i: b"")
    made = labelled_set("own", "test", "folder", rows)  # TFDS's names come this way
    assert made.class_names == (COMPOSED,) and made.keys == (f"{COMPOSED}.png",)


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_label_that_is_missing_is_no_class(tmp_path, missing):
    column = pa.array(["кот", missing], pa.string()) if missing in (None, "") else [1.0, missing]
    table = pa.table({"image": [picture(0), picture(1)], "label": column})
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match="split 'test', label 1: is .*; expected a name or a numb"):
        open_set(str(tmp_path))


def test_labels_as_bytes_are_texts(tmp_path):
    column = pa.array(["кот".encode(), "пёс".encode()], pa.binary())
    table = pa.table({"image": [picture(0), picture(1)], "label": column})
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    assert open_set(str(tmp_path)).class_names == ("кот", "пёс")


def test_classnames_with_a_mark_and_windows_lines(tmp_path):
    make_tars(tmp_path, {"test": [0, 1]}, ["-", "-"])
    file = tmp_path / "classnames.txt"
    file.write_bytes(f"\ufeff{DECOMPOSED}\r\nдом\r\n\r\n".encode())
    assert open_set(str(tmp_path)).class_names == (COMPOSED, "дом")
    file.write_bytes(f"{COMPOSED}\nдом\n".encode("utf-16"))
    with pytest.raises(InputError, match="classnames.txt: is UTF-16 text; save it as UTF-8"):
        open_set(str(tmp_path))
    # An empty line, or one that str.splitlines breaks, would shift all numbers after it.
    file.write_text("а\n\nб\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2 is empty; expected a name a line"):
        open_set(str(tmp_path))
    file.write_text("синий\u2028круг\nдом\n", encoding="utf-8")
    with pytest.warns(InvisibleCharacterWarning, match="LINE SEPARATOR"):
        assert open_set(str(tmp_path)).class_names[1] == "дом"


def test_two_numbers_of_one_name(tmp_path):
    make_tars(tmp_path, {"test": [0, 2]}, ["маяк", "дом", "маяк"])
    opened = open_set(str(tmp_path))
    assert opened.labels.tolist() == [0, 2]  # a probe needs no names
    with pytest.raises(InputError, match="classes 0 and 2 are both called 'маяк'"):
        prompts_for(opened, "ru")


def test_class_names_in_another_normal_form_match(tmp_path):
    make_tree(tmp_path / DECOMPOSED, {"test": {DECOMPOSED: 1, "дом": 1}})
    opened = open_set(str(tmp_path / COMPOSED))  # the folder as it is typed
    assert opened.name == COMPOSED
    names = {COMPOSED: "вода", DECOMPOSED.upper() + "ы": "много", "дом": DECOMPOSED}
    file = class_names_file(tmp_path / "names.json", names, mark="\ufeff")
    assert prompts_for(opened, "ru", file).by_class == [
        [COMPOSED, f"фото: {COMPOSED}"], ["вода", "фото: вода"],
    ]  # fmt: skip
    assert normalised(DECOMPOSED.upper()) == normalised(COMPOSED) == COMPOSED
    for label in load_class_names("imagenet", "ru").names:
        assert normalised(label) == label
    with pytest.raises(InputError, match=f"two labels read '{COMPOSED}'"):
        read_class_names(class_names_file(file, {COMPOSED: "а", DECOMPOSED: "б"}))
    file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16 text; save it as UTF-8"):
        read_class_names(file)
    file.write_text('{"names": {"a": 1, "a": 2}}')
    with pytest.raises(InputError, match="key 'a' is there twice"):
        read_class_names(file)


def test_translations_in_another_normal_form_match(tmp_path):
    file = tmp_path / "t.json"
    content = {"format": 1, "translator": {}, "texts": {DECOMPOSED: "iodine"}}
    file.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert read_translations(file).translate([COMPOSED, DECOMPOSED]) == ["iodine"] * 2
    content["texts"][COMPOSED] = "other"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="in two normal forms with two translations"):
        read_translations(file)
    file.write_bytes(json.dumps(content).encode("utf-16"))
    with pytest.raises(InputError, match="is UTF-16 text"):
        read_translations(file)


def test_lines_of_any_system(tmp_path):
    (tmp_path / "texts").write_bytes("\ufeffодин\r\nдва\u2028два\rтри\n".encode())
    assert read_lines(tmp_path / "texts") == ["один", "два\u2028два", "три", ""]


def test_invisible_characters_are_warned_of(tmp_path):
    make_tree(tmp_path / "own", {"test": {"ко\u00adшка": 1, "дом": 1}})
    with pytest.warns(InvisibleCharacterWarning, match="own: label .*SOFT HYPHEN"):
        open_set(str(tmp_path / "own"))
    file = class_names_file(tmp_path / "names.json", {"дом": "до\u200bм"})
    with pytest.warns(InvisibleCharacterWarning, match="names.json: label .*ZERO WIDTH SPACE"):
        read_class_names(file)


def test_a_name_that_is_no_unicode(tmp_path):
    make_tree(tmp_path / "own", {"test": {BROKEN: 2, "дом": 1}})
    opened = open_set(str(tmp_path / "own"))
    assert opened.class_names == ("дом", BROKEN) and len(opened.source_hash) == 64
    np.testing.assert_array_equal(opened.labels, [0, 1, 1])
    with pytest.raises(InputError, match=r"own: class name '\\udcffcat' is not Unicode"):
        prompts_for(opened, "ru")
