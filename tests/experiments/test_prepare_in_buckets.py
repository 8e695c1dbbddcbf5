"""Preparation from and to a bucket of an emulator on loopback."""

import io
import json
import re
import tarfile
import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("gcsfs", reason="the extra gcs is not installed")

from cli_commands import ROOT, main_of
from prepared_sources import picture

from clip_jax import InputError, load_tokenizer
from clip_jax.paths import as_path
from experiments.data.parts import Part
from experiments.data.preparation import prepare, prepare_part
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.evaluation.sets import open_set

SHARDS_OF_TWO = WriteConfig(shard_records=2, validation=0.3)


@pytest.fixture
def tars(tmp_path):
    """A folder of two tars; one record has a picture that cannot be read."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for i in range(3):
                key, image = f"{number}{i}", picture(10 * number + i)
                for name, data in (
                    (f"{key}.jpg", image[:40] if key == "11" else image),
                    (f"{key}.txt", f"подпись {key}".encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def put_folder(store, folder, name):
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def same_sets(store, local, name):
    """Returns whether a set in the bucket has a local one's files, byte for byte."""
    files = {str(file.relative_to(local)) for file in local.rglob("*") if file.is_file()}
    assert {found.removeprefix(f"{name}/") for found in store.names(f"{name}/")} == files
    for file in files - {"prepare.json", "dataset_info.json"}:  # which name places
        assert store.content(f"{name}/{file}") == (local / file).read_bytes(), file


def test_images_that_stay_in_the_tars_of_a_bucket(store, tars, tmp_path):
    put_folder(store, tars, "tars")
    how = WriteConfig(shard_records=2, index_only=True)
    prepare(SourceConfig("gs://bucket/tars"), "gs://bucket/index", how)
    prepare(SourceConfig(str(tars)), tmp_path / "copy")
    found = Split(as_path("gs://bucket/index"), "train")
    assert list(found) == list(Split(tmp_path / "copy", "train"))
    store.put("tars/1.tar", store.content("tars/0.tar"))
    with pytest.raises(InputError, match="gs://bucket/tars/1.tar: .* the tar has changed"):
        list(found)


def test_tars(store, tars, tmp_path):
    put_folder(store, tars, "tars")
    local = prepare(SourceConfig(str(tars)), tmp_path / "out", SHARDS_OF_TWO)
    there = prepare(SourceConfig("gs://bucket/tars"), "gs://bucket/out", SHARDS_OF_TWO, workers=2)
    assert there.splits == local.splits and there.reasons == local.reasons
    same_sets(store, tmp_path / "out", "out")
    for split in local.splits:
        assert list(Split(as_path("gs://bucket/out"), split)) == list(
            Split(tmp_path / "out", split)
        )


def test_parts(store, tars, tmp_path):
    put_folder(store, tars, "in-parts")
    prepare(SourceConfig(str(tars)), tmp_path / "out", SHARDS_OF_TWO)
    source, out = SourceConfig("gs://bucket/in-parts"), "gs://bucket/parts"
    prepare_part(source, out, Part(1, 2), SHARDS_OF_TWO)
    with pytest.raises(InputError, match="1 of 2 chunks are missing, of 1 of 2 parts: 0;"):
        prepare(source, out, SHARDS_OF_TWO, finish=True)
    prepare_part(source, out, Part(0, 2), SHARDS_OF_TWO)
    prepare(source, out, SHARDS_OF_TWO, finish=True)
    same_sets(store, tmp_path / "out", "parts")


def test_parquet_and_prepared_sets(store, tars, tmp_path):
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path / "parquet"
    folder.mkdir()
    rows = [{"image": {"bytes": picture(i)}, "caption": f"подпись {i}"} for i in range(5)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "a.parquet", row_group_size=2)
    put_folder(store, folder, "parquet")
    prepare(SourceConfig(str(folder)), tmp_path / "one", SHARDS_OF_TWO)
    prepare(SourceConfig("gs://bucket/parquet"), "gs://bucket/one", SHARDS_OF_TWO)
    same_sets(store, tmp_path / "one", "one")
    again = SourceConfig("gs://bucket/one", from_split="train")
    prepare(again, "gs://bucket/two")
    assert list(Split(as_path("gs://bucket/two"), "train")) == [
        {**row, "key": key}
        for row, key in zip(
            Split(tmp_path / "one", "train"),
            [row["key"] for row in Split(as_path("gs://bucket/two"), "train")],
            strict=True,
        )
    ]


def photos(folder):
    """A folder of eight images, two of them named in another Unicode form than the table has."""
    (folder / "a").mkdir(parents=True)
    names = [f"a/{i}.jpg" for i in range(6)] + ["йод.jpg", unicodedata.normalize("NFD", "чай.jpg")]
    for i, name in enumerate(names):
        (folder / name).write_bytes(picture(i)[: 40 if i == 3 else None])
    named = [*names[:6], unicodedata.normalize("NFD", "йод.jpg"), "чай.jpg", names[-1]]
    named += ["absent.jpg", "../x", "a/0.jpg", "a", "/x"]
    return [(name, f"подпись {name}") for name in named]


def csv_folder(folder):
    rows = photos(folder)
    text = "image,caption\n" + "".join(f'{name},"{text}, да"\n' for name, text in rows)
    (folder / "list.csv").write_text(text, encoding="utf-8")


def tsv_folder(folder):
    rows = photos(folder)
    text = "image\tcaption\n" + "".join(f'{name}\tс " {text}\n' for name, text in rows)
    (folder / "list.tsv").write_text(text, encoding="utf-8")


def jsonl_folder(folder):
    lines = [json.dumps({"image": name, "caption": text}) for name, text in photos(folder)]
    (folder / "list.jsonl").write_text("\n".join([*lines, "{", ""]), encoding="utf-8")


def arrow_folder(folder):
    import pyarrow

    rows = [{"image": {"bytes": picture(i), "path": None}, "caption": f"{i}"} for i in range(6)]
    rows.append({"image": {"bytes": None, "path": "a/1.jpg"}, "caption": "рядом"})
    photos(folder)
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(folder / "data.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": "data.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def parquet_beside_images(folder):
    import pyarrow
    from pyarrow import parquet

    rows = [{"image": name, "caption": text} for name, text in photos(folder)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)


def fbc2_folder(folder):
    photos(folder)
    asked = {f"{i}": [{"type": "image", "content": f"a/{i}.jpg"},
                      {"type": "text", "content": f"что {i}?"}] for i in range(7)}  # fmt: skip
    answers = {key: [{"type": "text", "content": f"ответ {key}"}] for key in asked}
    for name, value in (("q.json", asked), ("q_answer.json", answers)):
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    "make, file, form, workers",
    [(csv_folder, "", "captions", 2),
     (csv_folder, "list.csv", "captions", 1),
     (tsv_folder, "", "captions", 1),
     (jsonl_folder, "list.jsonl", "captions", 1),
     (arrow_folder, "", "captions", 1), (parquet_beside_images, "", "captions", 1),
     (fbc2_folder, "q.json", "picture-questions", 1)],
)  # fmt: skip
def test_other_sources(make, file, form, workers, store, tmp_path):
    """Folders of images with a table, Arrow and FBC2: set and rejects are the local ones."""
    folder, name = tmp_path / "source", f"{make.__name__}{len(file)}"
    make(folder)
    put_folder(store, folder, name)
    place = f"/{file}" if file else ""
    rules = WriteConfig(shard_records=2)
    config = SourceConfig(f"{folder}{place}", form=form, chunk_records=3)
    local = prepare(config, tmp_path / "out", rules, workers=1)
    there = SourceConfig(f"gs://bucket/{name}{place}", form=form, chunk_records=3)
    summary = prepare(there, f"gs://bucket/{name}-out", rules, workers=workers)
    assert summary.splits == local.splits and sum(local.splits.values()) >= 5
    assert summary.reasons == local.reasons
    same_sets(store, tmp_path / "out", f"{name}-out")


def test_resumes_what_is_whole(store, tars, tmp_path, monkeypatch):
    """An upload that was cut off is made again; a chunk whose result is there is not."""
    prepare(SourceConfig(str(tars)), tmp_path / "out", SHARDS_OF_TWO)
    broken = "resumed/unfinished/piece-000001.json"
    store.refused.add(broken)
    with pytest.raises(OSError, match="denied"):
        prepare(SourceConfig(str(tars)), "gs://bucket/resumed", SHARDS_OF_TWO)
    assert "resumed/unfinished/piece-000000.json" in store.names()
    assert "resumed/dataset_info.json" not in store.names()
    with pytest.raises(InputError, match="no prepared data set here"):
        Split(as_path("gs://bucket/resumed"), "train")
    store.refused.clear()
    store.written.clear()
    prepare(SourceConfig(str(tars)), "gs://bucket/resumed", SHARDS_OF_TWO)
    same_sets(store, tmp_path / "out", "resumed")
    pieces = [name for name in store.written if "/piece-" in name]
    assert pieces and not any("piece-000000" in name for name in pieces)


@pytest.mark.parametrize(
    "source, out, said",
    [
        ("gs://missing/tars", "out", "gs://missing/tars: no such file or folder"),
        ("gs://forbidden/tars", "out", "Permission denied"),
        ("{T}", "gs://missing/out", "No such bucket"),
        ("{T}", "gs://read-only/out", "Permission denied"),
        ("gs://bucket/table", "out", "gs://bucket/table/list.csv: none of the columns is called"),
        ("gs://bucket/alone", "out", "holds 1 images and no table; expected gs://bucket/alone/"),
    ],
)
def test_errors(store, tars, tmp_path, source, out, said, monkeypatch, capsys):
    store.put("table/list.csv", b"a,b\n")
    store.put("alone/a.jpg", picture(1))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    argv = [source.replace("{T}", str(tars)), out, "--workers=1"]
    assert main_of("experiments.prepare")(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert set(tmp_path.iterdir()) == before


def test_the_vocabulary_of_the_pods_page(store, tars, tmp_path):
    """The page's own lines, for a vocabulary of forty pieces."""
    page = (ROOT / "docs/tpu_pod.md").read_text("utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    prepare(SourceConfig(str(tars)), "gs://bucket/words", SHARDS_OF_TWO)
    for found, given in (("BUCKET/pairs", "bucket/words"), ("BUCKET", "bucket"), ("49408", "40")):
        assert found in lines
        lines = lines.replace(found, given)
    exec(lines, {})
    tokenizer = load_tokenizer("gs://bucket/tokenizer.model")
    assert tokenizer.vocab_size == 40
    assert tokenizer.decode(tokenizer.encode("подпись 01")) == "подпись 01"


def test_codes(store, tars, small_vqgan_folder, tmp_path):
    put_folder(store, tars, "for-codes")
    put_folder(store, Path(small_vqgan_folder), "vqgan")
    prepare(SourceConfig(str(tars)), tmp_path / "out", vqgan=small_vqgan_folder, image_size=8)
    source = SourceConfig("gs://bucket/for-codes")
    prepare(source, "gs://bucket/coded", vqgan="gs://bucket/vqgan", image_size=8)
    same_sets(store, tmp_path / "out", "coded")


def test_labelled_sets(store, tmp_path):
    """Tars by CLIP_benchmark's layout, and Parquet files by the hub's."""
    import pyarrow
    from pyarrow import parquet

    tars, tables = tmp_path / "digits", tmp_path / "tables"
    (tars / "test").mkdir(parents=True)
    tables.mkdir()
    (tars / "classnames.txt").write_text("ноль\nодин\n", encoding="utf-8")
    (tables / "classnames.txt").write_text("ноль\nодин\n", encoding="utf-8")
    with tarfile.open(tars / "test" / "0.tar", "w") as tar:
        for i in range(3):
            for name, data in ((f"{i}.jpg", picture(i)), (f"{i}.cls", str(i % 2).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    rows = [{"image": {"bytes": picture(i)}, "label": i % 2} for i in range(3)]
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tables / "test-00000-of-00001.parquet", row_group_size=2)
    for folder in (tars, tables):
        put_folder(store, folder, folder.name)
        here, there = open_set(str(folder)), open_set(f"gs://bucket/{folder.name}")
        assert there.labels.tolist() == [0, 1, 0] and there.class_names == ("ноль", "один")
        assert (there.name, there.keys, list(there.images)) == (
            here.name, here.keys, list(here.images),
        )  # fmt: skip
