"""Every kind of source gives its good records as they are, and says what became of the others."""

import csv
import io
import json
import os
import tarfile

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from label_sources import tf_record_file
from PIL import Image
from prepared_sources import picture, prepared

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.source import Split, build_builtin_set
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig


def test_pictures_with_a_csv(tmp_path):
    source = tmp_path / "source"
    (source / "more").mkdir(parents=True)
    rows = []
    for i in range(8):
        name = f"more/{i}.png" if i % 2 else f"{i}.jpg"
        (source / name).write_bytes(picture(i, "PNG" if i % 2 else "JPEG"))
        rows.append([name, f" подпись, {i}\n"])
    rows.append(["0.jpg", "ещё одна"])
    (tmp_path / "secret.jpg").write_bytes(picture(9))
    (source / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (source / "cut.jpg").write_bytes(picture(10)[:-200])
    (source / "text.jpg").write_text("no picture")
    (source / "nothing.jpg").write_bytes(b"")
    os.mkfifo(source / "pipe.jpg")
    bad = {
        "../secret.jpg": "path leaves the folder",
        "/etc/hostname": "path leaves the folder",
        "link.jpg": "path leaves the folder",
        "absent.jpg": "image is missing",
        "pipe.jpg": "image is no file",
        "more": "image is no file",
        "cut.jpg": "image cannot be read",
        "text.jpg": "image cannot be read",
        "nothing.jpg": "image is empty",
        "": "image is missing",
    }
    rows += [[name, "подпись"] for name in bad]
    rows += [["2.jpg", "  "], ["4.jpg"], ["4.jpg", "\udcff\udcfe"]]
    with (source / "list.csv").open("w", encoding="utf-8-sig", errors="surrogateescape",
                                    newline="") as file:  # fmt: skip
        csv.writer(file).writerows([["file_name", "text"], *rows])
    found, lines = prepared(SourceConfig(str(source)), tmp_path / "out")
    names = [row[0] for row in rows[:8]]
    assert set(found) == set(names)
    assert found["0.jpg"] == (picture(0), ["подпись, 0", "ещё одна"])
    assert found["more/3.png"] == (picture(3, "PNG"), ["подпись, 3"])
    why = {line["row"]: line["why"] for line in lines}
    assert {line["file"] for line in lines} == {"list.csv"}
    for i, reason in enumerate(bad.values()):
        assert why.pop(11 + i).startswith(reason)
    # Of images with another good caption: one line for each bad one.
    assert why == {
        21: "caption is empty",
        22: "row has 1 cells; the header has 2: put a text with commas into quotes",
        23: "caption is not UTF-8",
    }
    # Eight rows are on two lines each.
    assert [line["line"] - line["row"] for line in lines] == [8] * 13


def test_pictures_with_jsonl(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.webp").write_bytes(picture(i, "WEBP"))
    lines = [
        b'{"img": "0.webp", "about": {"ru": ["\xd0\xb0", "\xd0\xb1"]}}',
        b'{"img": "1.webp", "about": {"ru": 7}}',
        b'{"img": "1.webp"}',
        b'{"img": "2.webp", "about": {"ru": "\xff"}}',
        b"[1]",
        b"{",
        b"",
        b'{"img": 5, "about": {"ru": "a"}}',
    ]
    (tmp_path / "list.jsonl").write_bytes(b"\n".join(lines))
    options = SourceConfig(
        str(tmp_path / "list.jsonl"), image_column="img", caption_column="about/ru"
    )
    found, lines = prepared(options, tmp_path / "out")
    assert found == {"0.webp": (picture(0, "WEBP"), ["а", "б"])}
    assert {line["row"]: line["why"].partition(":")[0] for line in lines} == {
        2: "caption is no text",
        3: "column 'about/ru' is missing",
        4: "caption is not UTF-8",
        5: "row is no JSON object",
        6: "row is not JSON",
        8: "image is missing",
    }


def add(tar, name, data=b"", **changes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def tars(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with tarfile.open(source / "a.tar", "w") as tar:
        for i in range(4):
            add(tar, f"{i}.jpg", picture(i))
            add(tar, f"{i}.txt", f"подпись {i}\n".encode())
        add(tar, "5.PNG", picture(5, "PNG"))
        add(tar, "5.json", json.dumps({"caption": ["а", "б"], "extra": 1}).encode())
        add(tar, "../../escaped.jpg", picture(6))
        add(tar, "../../escaped.txt", b"odd name")
        add(tar, "/absolute/7.jpg", picture(7))
        add(tar, "/absolute/7.txt", b"odd name")
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/hostname")
        add(tar, "link.txt", b"a link is no picture")
        add(tar, "alone.jpg", picture(8))
        add(tar, "broken.jpg", picture(8)[:-100])
        add(tar, "broken.txt", b"cut off")
        add(tar, "wrong.jpg", picture(8))
        add(tar, "wrong.json", b"{nothing")
        add(tar, "twice.txt", b"a")
        add(tar, "twice.txt", b"b")
        add(tar, "bytes.jpg", picture(8))
        add(tar, "bytes.txt", b"\xff\xfe\xfd")
        add(tar, "unknown.xyz", b"left alone")
    with tarfile.open(source / "b.tar", "w") as tar:
        add(tar, "0.webp", picture(9, "WEBP"))
        add(tar, "0.txt", "другой файл".encode())
        add(tar, "1.txt", b"whole")
        add(tar, "1.jpg", picture(10))
    whole = (source / "b.tar").read_bytes()
    (source / "b.tar").write_bytes(whole[: whole.index(picture(10)) + 100])
    return source


def test_tars(tars, tmp_path):
    found, lines = prepared(SourceConfig(str(tars)), tmp_path / "out")
    assert found["a.tar/2"] == (picture(2), ["подпись 2"])
    assert found["a.tar/5"] == (picture(5, "PNG"), ["а", "б"])
    assert found["b.tar/0"] == (picture(9, "WEBP"), ["другой файл"])
    assert set(found) == {
        *(f"a.tar/{i}" for i in (0, 1, 2, 3, 5)), "a.tar/../../escaped", "a.tar//absolute/7",
        "b.tar/0",
    }  # fmt: skip
    assert {(line["file"], line.get("key")): line["why"].partition(":")[0] for line in lines} == {
        ("a.tar", "link"): "image is missing",
        ("a.tar", "alone"): "caption is missing",
        ("a.tar", "broken"): "image cannot be read",
        ("a.tar", "wrong"): "json cannot be read",
        ("a.tar", "twice"): "two members are called txt",
        ("a.tar", "bytes"): "caption is not UTF-8",
        ("b.tar", "1"): "tar is damaged here",
        ("b.tar", None): "tar is damaged",
    }
    assert not (tmp_path.parent / "escaped.jpg").exists()
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_tar_that_ends_in_rubbish_says_so(tars, tmp_path):
    file = tars / "a.tar"
    data = bytearray(file.read_bytes())
    place = data.index(b"2.jpg\0")
    data[place : place + 512] = b"?" * 512
    file.write_bytes(data)
    found, lines = prepared(SourceConfig(str(file)), tmp_path / "out")
    assert set(found) == {"a.tar/0", "a.tar/1"}
    assert [line["why"] for line in lines] == [f"tar is damaged: no header at byte {place}"]


def test_tfds_by_folder_and_by_name(tmp_path, data_directory):
    folder = build_builtin_set("digits_ru", data_directory)
    rows = list(Split(folder, "test"))
    by_folder, _ = prepared(SourceConfig(str(folder), from_split="test"), tmp_path / "a")
    assert len(by_folder) == len(rows)
    assert list(by_folder.values())[7] == (rows[7]["image"], rows[7]["captions"])
    by_name, lines = prepared(
        SourceConfig("digits_ru", data_dir=data_directory, from_split="test"), tmp_path / "b"
    )
    assert by_name == by_folder and not lines
    with pytest.raises(InputError, match="no prepared TFDS set here"):
        prepare(SourceConfig("digits", data_dir=data_directory), tmp_path / "c")
    with pytest.raises(InputError, match="feature 'label' is no image"):
        prepare(SourceConfig(str(folder), image_column="label"), tmp_path / "c")


def test_tfds_in_tfrecord_form(tmp_path, data_directory):
    folder = build_builtin_set("digits_ru", data_directory)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("features.json", "label.labels.txt"):
        (source / name).write_bytes((folder / name).read_bytes())
    info = (folder / "dataset_info.json").read_text("utf-8")
    (source / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"), "utf-8")
    rows = list(Split(folder, "test"))
    (file,) = folder.glob("*-test.array_record*")
    with ArrayRecordDataSource([str(file)]) as records:
        data = [records[i] for i in range(len(records))]
    data[3] = b"\xff" * 20
    written = tf_record_file(data)
    target = source / file.name.replace("array_record", "tfrecord")
    target.write_bytes(written[:-5])
    options = SourceConfig(str(source), from_split="test")
    found, lines = prepared(options, tmp_path / "out")
    assert [image for image, _ in found.values()] == [
        row["image"] for i, row in enumerate(rows[:-1]) if i != 3
    ]
    assert [line["why"].partition(":")[0] for line in lines] == [
        "record cannot be parsed", "records after this one cannot be read",
    ]  # fmt: skip
    assert lines[0]["row"] == 3


def test_kinds_that_cannot_be_told(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        prepare(SourceConfig(str(tmp_path / "absent")), tmp_path / "out")
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(InputError, match="is of no known kind; say --kind, one of pictures, tar"):
        prepare(SourceConfig(str(source)), tmp_path / "out")
    (source / "0.png").write_bytes(picture(0, "PNG"))
    for options, columns in (
        ({}, "image, caption"), ({"kind": "pictures"}, "image, caption"),
        ({"form": "picture-questions"}, "image, question, answers"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            prepare(SourceConfig(str(source), **options), tmp_path / "out")
        assert str(caught.value) == (
            f"{source}: holds 1 images and no table; expected {source}/list.csv (or list.tsv, "
            f"list.jsonl) with columns {columns}"
        )
    (source / "a.csv").write_text("image,caption\n")
    (source / "b.csv").write_text("image,caption\n")
    with pytest.raises(InputError, match="found a.csv, b.csv; name it with --table"):
        prepare(SourceConfig(str(source)), tmp_path / "out")
    (source / "c.tar").write_bytes(b"")
    with pytest.raises(InputError, match="could be pictures or tar; say --kind"):
        prepare(SourceConfig(str(source)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_formats_and_large_pictures_are_encoded_anew(tmp_path):
    names = {"a.gif": "GIF", "b.bmp": "BMP", "c.tiff": "TIFF", "d.jpg": "JPEG", "e.png": "PNG"}
    with (tmp_path / "list.tsv").open("w", encoding="utf-8") as file:
        file.write("image\tcaption\n")
        for i, (name, format) in enumerate(names.items()):
            (tmp_path / name).write_bytes(picture(i, format, (60, 40)))
            file.write(f"{name}\tподпись\n")
    (tmp_path / "f.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with (tmp_path / "list.tsv").open("a", encoding="utf-8") as file:
        file.write("f.eps\tподпись\n")
    found, lines = prepared(SourceConfig(str(tmp_path)), tmp_path / "whole")
    opened = {key: Image.open(io.BytesIO(image)) for key, (image, _) in found.items()}
    assert [opened[name].format for name in names] == ["PNG", "PNG", "PNG", "JPEG", "PNG"]
    np.testing.assert_array_equal(
        np.asarray(opened["b.bmp"]), np.asarray(Image.open(tmp_path / "b.bmp"))
    )
    assert found["d.jpg"][0] == (tmp_path / "d.jpg").read_bytes()
    assert lines[0]["why"].startswith("image cannot be read: not one of JPEG")
    small, _ = prepared(SourceConfig(str(tmp_path)), tmp_path / "small", WriteConfig(max_side=30))
    sizes = {Image.open(io.BytesIO(image)).size for image, _ in small.values()}
    assert sizes == {(30, 20)} and len(small) == 5


def test_rules_that_nothing_could_follow(tmp_path):
    for change, message in (
        ({"split": "a b"}, "--split is 'a b'"),
        ({"split": "all"}, "--split is 'all'; expected .* not 'all'"),
        ({"validation": 1.0}, "--validation is 1.0"),
        ({"max_side": 0}, "--max-side is 0"),
        ({"shard_records": 0}, "--shard-records is 0"),
        ({"split": "validation", "validation": 0.1}, "rename one"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(SourceConfig(str(tmp_path)), tmp_path / "out", WriteConfig(**change))
