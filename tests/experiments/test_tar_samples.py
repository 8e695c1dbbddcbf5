"""Samples of tars: webdataset's keys, dots in names, members apart; every member is counted."""

import gzip
import io
import json
import shutil
import tarfile
import unicodedata

import numpy as np
import pytest
from label_sources import add
from prepared_sources import picture, prepared, rejected

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.tar_samples import Sample, Wanted, samples
from experiments.evaluation.sets import open_set

JPEG = picture(0)


@pytest.fixture
def read(tmp_path):
    """names -> {key: caption}, {key: why}, counts; a text is its own name, as JSON has it too."""

    def read(*names, **options):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name in names:
                text = name if name.endswith("txt") else json.dumps({"caption": name})
                is_text = name.lower().endswith(("txt", "json"))
                add(tar, name, text.encode() if is_text else JPEG)
        out = tmp_path / "out"
        summary = prepare(SourceConfig(str(tmp_path / "a.tar"), **options), out)
        found = {
            row["key"].removeprefix("a.tar/"): row["captions"][0] for row in Split(out, "train")
        }
        why = {line["key"]: line["why"].partition(":")[0] for line in rejected(out)}
        assert summary.counts.all == len(names)
        return found, why, str(summary.counts)

    return read


def test_dots_in_names_are_records_of_their_own(read):
    found, why, counts = read("cat.v2.jpg", "cat.v2.txt", "d/1.5.png", "d/1.5.json", "dog.JPG",
                              "dog.txt")  # fmt: skip
    assert found == {"cat.v2": "cat.v2.txt", "d/1.5": "d/1.5.json", "dog": "dog.txt"}
    assert not why and counts == "read 6 members: 6 kept, 0 rejected, 0 ignored"


def test_several_dotted_names_of_one_key(read):
    found, why, counts = read(
        "cat.jpg", "cat.txt", "cat.v1.jpg", "cat.v1.txt", "cat.v2.jpg", "dog.v1.jpg", "dog.v1.txt",
        "dog.v2.jpg", "dog.v3.txt",
    )  # fmt: skip
    assert found == {"cat": "cat.txt", "cat.v1": "cat.v1.txt", "dog.v1": "dog.v1.txt"}
    # To webdataset cat.v2.jpg is the field "v2.jpg" of a whole sample; dog has none.
    assert why == {"dog.v2": "caption is missing", "dog.v3": "image is missing"}
    assert counts == "read 9 members: 6 kept, 2 rejected, 1 ignored (1 extra field)"


def test_names_that_agree_up_to_the_first_dot_are_webdatasets_sample(read):
    found, why, _ = read("cat.v2.jpg", "cat.txt", "dog.jpg", "dog.en.txt", "cow.a.jpg", "cow.b.txt",
                         "hen.a.jpg", "hen.b.jpg", "hen.txt")  # fmt: skip
    assert found == {"cat": "cat.txt", "dog": "dog.en.txt"}
    assert set(why) == {"cow.a", "cow.b", "hen.a", "hen.b", "hen"}


def test_members_apart_are_put_together(read):
    keys = ("a", "b", "c.1", "d")
    found, why, counts = read(
        *(f"{k}.jpg" for k in keys), "lone.jpg", *(f"{k}.txt" for k in keys), "e.txt",
        *(f"{k}.json" for k in keys),
    )  # fmt: skip
    assert found == {key: f"{key}.txt" for key in keys}
    assert why == {"lone": "caption is missing", "e": "image is missing"}
    assert counts == "read 14 members: 8 kept, 2 rejected, 4 ignored (4 extra field)"


def test_json_apart_from_whole_samples_is_an_extra_field(read):
    found, why, counts = read("a.jpg", "a.txt", "b.jpg", "b.txt", "a.json", "b.json", "b.txt")
    assert found == {"a": "a.txt", "b": "b.txt"} and why == {"b": "image is missing"}
    assert counts == "read 7 members: 4 kept, 1 rejected, 2 ignored (2 extra field)"


def test_two_samples_of_one_key_both_count(read):
    found, why, counts = read("a.jpg", "a.txt", "b.jpg", "b.txt", "a.png", "a.txt")
    assert found == {"a": "a.txt", "b": "b.txt", "a#2": "a.txt"} and not why
    found = read("c.jpg", "c.txt", "c.jpg", "c.txt", "d.jpg", "d.txt")
    assert found[:2] == ({"d": "d.txt"}, {"c": "two members are called jpg"})
    found = read("c.jpg", "d.jpg", "c.jpg", "c.txt", "d.txt")
    assert found[:2] == ({"c": "c.txt", "d": "d.txt"}, {"c": "caption is missing"})


def test_every_ignored_member_has_a_rule(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("./", "d"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("a.txt")
            entry.type, entry.linkname = kind, "./0.txt"
            tar.addfile(entry)
        add(tar, "./0.jpg", JPEG)
        add(tar, "./._0.jpg", b"metadata")
        add(tar, "__MACOSX/0.txt", b"metadata")
        add(tar, ".DS_Store", b"")
        add(tar, ".cache/0.txt", b"")
        add(tar, "./0.txt", "\ufeffда\n".encode())
        add(tar, "./0.cls", b"3")
        add(tar, "./0.seg.png", JPEG)
        add(tar, "README", b"")
        add(tar, "no.", b"")
    found, lines = prepared(SourceConfig(str(tmp_path / "a.tar")), tmp_path / "out")
    assert found == {"a.tar/./0": (JPEG, ["да"])} and not lines
    summary = prepare(SourceConfig(str(tmp_path / "a.tar")), tmp_path / "out")
    assert str(summary.counts) == (
        "read 15 members: 2 kept, 0 rejected, 13 ignored (3 other extension, 2 directory, "
        "2 hidden file, 2 link, 2 macOS metadata, 1 extra field, 1 special file)"
    )


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_in_any_form_and_of_any_length(tmp_path, format):
    name = "й" * 90 + ".v2"
    names = [unicodedata.normalize("NFD", name) + ".jpg", f"{name}.txt"]
    with tarfile.open(tmp_path / "a.tar", "w", format=format, errors="surrogateescape") as tar:
        add(tar, names[0], JPEG)
        add(tar, names[1], b"caption")
        add(tar, "\udcff\udcfe.jpg", JPEG)
        add(tar, "\udcff\udcfe.txt", b"odd")
    found, lines = prepared(SourceConfig(str(tmp_path / "a.tar")), tmp_path / "out")
    assert found[f"a.tar/{name}"] == (JPEG, ["caption"])
    assert len(found) == 2 and not lines
    assert [captions for _, captions in found.values()] == [["caption"], ["odd"]]


def test_marks_and_encodings_of_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for key, kind, data in (
            ("0", "json", '\ufeff{"caption": "да"}'.encode()),
            ("1", "txt", "да".encode("utf-16")),
            ("2", "txt", "да".encode("cp1251")),
            ("3", "json", b'{"caption": "a", "caption": "b"}'),
            ("4", "json", '{"caption": "да"}'.encode("utf-16")),
        ):
            add(tar, f"{key}.jpg", JPEG)
            add(tar, f"{key}.{kind}", data)
    found, lines = prepared(SourceConfig(str(tmp_path / "a.tar")), tmp_path / "out")
    assert found == {"a.tar/0": (JPEG, ["да"])}
    assert [(line["key"], line["why"].partition(";")[0]) for line in lines] == [
        ("1", "caption is not UTF-8: is UTF-16 text"),
        ("2", "caption is not UTF-8: is not UTF-8 text (invalid continuation byte at byte 0)"),
        ("3", "json cannot be read: not JSON (key 'caption' is there twice)"),
        ("4", "json cannot be read: is UTF-16 text"),
    ]


def test_compressed_tars_are_named(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        add(tar, "0.jpg", JPEG)
        add(tar, "0.txt", b"caption")
    message = "is a compressed tar; uncompress it first"
    for name in ("b.tar.gz", "b.TGZ", "b.tar.zst"):
        (source / name).write_bytes(gzip.compress(data.getvalue()))
        for place in (source, source / name):
            with pytest.raises(InputError, match=f"{name}: {message}"):
                prepare(SourceConfig(str(place)), tmp_path / "out")
        (source / name).unlink()
    (source / "A.TAR").write_bytes(data.getvalue())
    assert list(prepared(SourceConfig(str(source)), tmp_path / "first")[0]) == ["A.TAR/0"]
    (source / "b.tar.gz").write_bytes(gzip.compress(data.getvalue()))
    with pytest.raises(InputError, match=f"b.tar.gz: {message}"):
        prepare(SourceConfig(str(source)), tmp_path / "out")
    (source / "b.tar.gz").rename(source / "b.tar")
    with pytest.raises(InputError, match=f"b.tar: {message}"):
        prepare(SourceConfig(str(source)), tmp_path / "out")


def test_labels_in_tars_by_the_same_rules(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "classnames.txt").write_text("кот\nпёс\n", encoding="utf-8")
    with tarfile.open(tmp_path / "test" / "0.tar", "w") as tar:
        add(tar, "img.1.jpg", JPEG)
        add(tar, "img.2.gif", picture(2, "GIF"))
        add(tar, "._img.1.jpg", b"metadata")
        add(tar, "img.1.cls", "\ufeff1".encode())
        add(tar, "img.2.cls", b"0")
        add(tar, "img.2.json", b"{}")
    found = open_set(str(tmp_path))
    assert found.keys == ("img.1", "img.2") and found.labels.tolist() == [1, 0]
    assert [found.image(i) for i in (0, 1)] == [JPEG, picture(2, "GIF")]
    with tarfile.open(tmp_path / "test" / "1.tar", "w") as tar:
        add(tar, "img.3.jpg", JPEG)
    with pytest.raises(InputError, match="1.tar: img.3: has no image or no cls: label is miss"):
        open_set(str(tmp_path))


def webdatasets_samples(names):
    """Runs of one key, and each run's members by field; None where it would stop at a second."""
    runs = []
    for place, name in enumerate(names):
        key, _, field = name.partition(".")
        if not runs or runs[-1][0] != key:
            runs.append((key, {}))
        if field in runs[-1][1]:
            return None
        runs[-1][1][field] = place
    return [fields for _, fields in runs]


def test_whole_samples_of_webdataset_are_records(tmp_path):
    random, compared = np.random.default_rng(0), 0
    for _ in range(400):
        kinds = ("jpg", "txt", "json", "png", "cls", "v1.jpg", "v1.txt", "v2.png")
        count = random.integers(2, 8)
        names = [f"{random.choice(['a', 'b'])}.{random.choice(kinds)}" for _ in range(count)]
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name in names:
                add(tar, name, b"data")
        found = list(samples(tmp_path / "a.tar", Wanted(("jpg", "png"), ("txt", "json"), "text")))
        assert sum(part.items for part in found) == len(names), names
        records = [part for part in found if isinstance(part, Sample)]
        # A head and one block of data each.
        used = [{(place - 512) // 1024 for place, _ in part.members.values()} for part in records]
        assert sum(map(len, used)) == len(set().union(*used)), names
        assert len({part.key for part in records}) == len(records), names
        for fields in webdatasets_samples(names) or ():
            pair = [
                next((fields[kind] for kind in some if kind in fields), None)
                for some in (("jpg", "png"), ("txt", "json"))
            ]
            if None not in pair:
                compared += 1
                assert set(pair) in used, names
    assert compared > 50
