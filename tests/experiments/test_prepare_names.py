"""Names of images and sources: NFC against NFD, names that are no UTF-8, surrogates in messages."""

import json
import os
import unicodedata

import pytest
from label_sources import make_table
from prepared_sources import picture, prepared, rejected

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.evaluation.sets import open_set
from experiments.prepare import main

NFC = "папка й/ёж.jpg"
NFD = unicodedata.normalize("NFD", NFC)
MIXED = NFD.split("/")[0] + "/" + NFC.split("/")[1]


def write(folder, name, data):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


@pytest.mark.parametrize("stored", [NFC, NFD, MIXED])
def test_an_image_is_found_whatever_the_form_of_its_name(tmp_path, stored):
    write(tmp_path, stored, picture(0))
    rows = [f"{name}\tподпись {i}" for i, name in enumerate((NFD, NFC, MIXED))]
    text = "\n".join(["image\tcaption", *rows, "папка й/../папка й/нет.jpg\tнет"])
    (tmp_path / "list.tsv").write_text(text, "utf-8")
    found, lines = prepared(SourceConfig(str(tmp_path)), tmp_path / "out")
    assert found == {NFC: (picture(0), ["подпись 0", "подпись 1", "подпись 2"])}
    assert [(line["row"], line["why"].partition(":")[0]) for line in lines] == [
        (5, "image is missing")
    ]


def test_two_files_whose_names_differ_in_their_form_stay_two(tmp_path):
    (tmp_path / NFC.split("/")[0]).mkdir()
    folder = NFC.split("/")[0]
    names = [f"{folder}/{part}" for part in ("ёж.jpg", unicodedata.normalize("NFD", "ёж.jpg"))]
    for i, name in enumerate(names):
        write(tmp_path, name, picture(i))
    text = "".join(f"{name}\tподпись {i}\n" for i, name in enumerate([*names, names[1]]))
    (tmp_path / "list.tsv").write_text(f"image\tcaption\n{text}", "utf-8")
    found, _ = prepared(SourceConfig(str(tmp_path)), tmp_path / "out")
    assert found == {
        NFC: (picture(0), ["подпись 0"]), f"{NFC}#2": (picture(1), ["подпись 1", "подпись 2"])
    }  # fmt: skip


def test_a_name_in_another_form_does_not_leave_the_folder(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    write(tmp_path, NFD, picture(0))
    (source / NFD.split("/")[0]).symlink_to(tmp_path / NFD.split("/")[0])
    (source / "list.tsv").write_text(f"image\tcaption\n../{NFC}\tа\n{NFC}\tб\n", "utf-8")
    with pytest.raises(InputError, match="none of its 2 records .* path leaves the folder"):
        prepare(SourceConfig(str(source)), tmp_path / "out")


def test_texts_keep_their_form_unless_asked(tmp_path):
    write(tmp_path, "0.jpg", picture(0))
    text = unicodedata.normalize("NFD", "ёжик")
    (tmp_path / "list.csv").write_text(f"image,caption\n0.jpg,{text}\n", "utf-8")
    assert main([str(tmp_path), str(tmp_path / "a"), "--workers=1"]) == 0
    assert main([str(tmp_path), str(tmp_path / "b"), "--workers=1", "--normalize-text"]) == 0
    assert [Split(tmp_path / out, "train")[0]["captions"] for out in "ab"] == [[text], ["ёжик"]]
    assert main([str(tmp_path), str(tmp_path / "b"), "--workers=1"]) == 2


def test_tables_of_labels_find_images_by_any_form(tmp_path):
    make_table(tmp_path, "test.csv", ["йод", unicodedata.normalize("NFD", "йод"), "а"])
    (tmp_path / "img" / "0.png").rename(tmp_path / "img" / unicodedata.normalize("NFD", "ё.png"))
    table = tmp_path / "test.csv"
    table.write_text(table.read_text("utf-8").replace("img/0.png", "img/ё.png"), "utf-8")
    found = open_set(str(tmp_path))
    assert found.class_names == ("а", "йод") and found.labels.tolist() == [1, 1, 0]
    assert found.keys[0] == "img/ё.png" and found.image(0)
    table.write_text(table.read_text("utf-8") + 'img/1.png,"а\n', "utf-8")
    with pytest.raises(InputError, match="test.csv: row 5: a quote mark is never closed"):
        open_set(str(tmp_path))


def test_a_table_that_is_none_matters_where_it_is_a_split(tmp_path):
    make_table(tmp_path, "test.csv", ["а", "б"])
    (tmp_path / "notes.csv").write_text("who;when\nme;now\n")
    assert open_set(str(tmp_path)).class_names == ("а", "б")
    (tmp_path / "train.csv").write_text("image;label\nimg/0.png;а\n", "utf-8")
    with pytest.raises(InputError, match="train.csv: header is one column, 'image;label', with"):
        open_set(str(tmp_path))


def test_sources_and_images_whose_names_are_not_utf8(tmp_path, capsys):
    source = tmp_path / os.fsdecode(b"\xff\xfe")
    write(source, os.fsdecode(b"\xf0.jpg"), picture(0))
    table = b"image,caption\n\xf0.jpg,good\n\xf1.jpg,absent\n\xf0.jpg,\xff\n"
    (source / os.fsdecode(b"\xe0.csv")).write_bytes(table)
    for _ in range(2):
        assert main([str(source), str(tmp_path / "out"), "--workers=1"]) == 7
        assert "read 3 rows: 1 kept, 2 rejected, 0 ignored" in capsys.readouterr().out
    assert [row["key"] for row in Split(tmp_path / "out", "train")] == ["\\udcf0.jpg"]
    assert [line["why"] for line in rejected(tmp_path / "out")] == [
        "caption is not UTF-8", "image is missing: '\\udcf1.jpg'"
    ]  # fmt: skip
    assert main([str(source), str(source / "out"), "--workers=1"]) == 2
    assert "OUT '" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "b"), "--kind=parquet"]) == 2
    assert main([str(tmp_path / os.fsdecode(b"\xfd")), str(tmp_path / "b")]) == 2
    (source / "a.parquet").write_bytes(b"")
    assert main([str(source / "a.parquet"), str(tmp_path / "b")]) == 2
    assert "is not Unicode" in capsys.readouterr().err
    good = tmp_path / "good"
    write(good, os.fsdecode(b"\xff.parquet"), b"")
    assert main([str(good), str(tmp_path / "b")]) == 2
    assert "file '\\udcff.parquet' is not Unicode" in capsys.readouterr().err


def test_an_old_set_is_read_and_an_old_unfinished_one_refused(tmp_path, capsys):
    write(tmp_path, "0.jpg", picture(0))
    (tmp_path / "list.csv").write_text("image,caption\n0.jpg,a\n1.jpg,b\n")
    out = tmp_path / "out"
    command = [str(tmp_path), str(out), "--workers=1"]
    assert main(command) == 7
    asked = json.loads((out / "prepare.json").read_text("utf-8"))
    for key in ("format", "normalize_text"):  # which earlier versions did not have
        del asked[key]
    (out / "prepare.json").write_text(json.dumps(asked))
    (out / "summary.json").unlink()
    capsys.readouterr()
    assert main(command) == 7
    told = capsys.readouterr()
    assert told.out.startswith(f"{out}: train 1; 1 rejected\n  1 image is missing")
    assert "without 50.00% of the source" in told.err
    (out / "dataset_info.json").unlink()
    assert main(command) == 2
    assert "was begun by another version, which read and counted otherwise; remove it or" in (
        capsys.readouterr().err
    )




@pytest.mark.parametrize(
    "shard",
    [
        ["train", "../../victim", 1], ["../../x", "piece-000000-../../x-000", 1], ["train", 3, 1],
        ["train", "piece-000001-train-000", 1], ["..", "piece-000000-..-000", 1], ["train"], 7,
        ["train", "piece-000000-train-000", "1"],
    ],
)  # fmt: skip
def test_an_unfinished_set_names_no_file_but_its_own(tmp_path, capsys, shard):
    write(tmp_path, "0.jpg", picture(0))
    (tmp_path / "list.csv").write_text("image,caption\n0.jpg,a\n")
    (tmp_path / "victim").write_text("the user's")
    out = tmp_path / "out"
    command = [str(tmp_path / "list.csv"), str(out), "--workers=1"]
    assert main(command) == 0
    (out / "dataset_info.json").unlink()
    result = {"shards": [shard], "records": 1, "rejected": [], "kept_items": 1,
              "rejected_items": 0, "ignored_items": {}}  # fmt: skip
    write(out, "unfinished/piece-000000.json", json.dumps(result).encode())
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(command) == 2
    line = capsys.readouterr().err
    assert f"is no result of preparing data; remove {out}/unfinished\n" in line
    assert before == sorted(tmp_path.rglob("*"))
