"""Parquet and Arrow sources: good rows as they are, and what became of the others."""

import importlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepared_sources import picture, prepared

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig


def table(i=0):
    """Ten rows, of which the first six are good; the struct is what the hub's images are."""
    images = [{"bytes": picture(i + k), "path": None} for k in range(5)]
    images += [
        {"bytes": None, "path": "inside.jpg"},
        {"bytes": None, "path": "../outside.jpg"},
        {"bytes": picture(i)[:-100], "path": "x.jpg"},
        None,
        {"bytes": picture(i), "path": None},
    ]
    captions = [f"подпись {i + k}".encode() for k in range(9)] + [b"\xff\xff"]
    array = pa.array(captions, pa.binary())
    text = pa.StringArray.from_buffers(len(array), *array.buffers()[1:])
    return pa.table({"image": pa.array(images), "caption": text, "other": pa.array(range(10))})


BAD_ROWS = {
    6: "path leaves the folder",
    7: "image cannot be read",
    8: "image is missing",
    9: "column 'caption' is not UTF-8",
}


def check_tables(source, files, options, out):
    """`files` hold `table(0)` and `table(10)`."""
    (source / "inside.jpg").write_bytes(picture(99))
    (source.parent / "outside.jpg").write_bytes(picture(98))
    found, lines = prepared(options, out, WriteConfig(shard_records=4))
    assert set(found) == {f"{name}:{row}" for name in files for row in range(6)}
    assert found[f"{files[1]}:3"] == (picture(13), ["подпись 13"])
    assert found[f"{files[0]}:5"] == (picture(99), ["подпись 5"])
    assert {(line["file"], line["row"]): line["why"].partition(":")[0] for line in lines} == {
        (name, row): why for name in files for row, why in BAD_ROWS.items()
    }


def test_parquet_as_the_hub_stores_it(tmp_path):
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    files = [f"data/train-0000{i}-of-00002.parquet" for i in range(2)]
    for i, name in enumerate(files):
        pq.write_table(table(10 * i), source / name, row_group_size=3)
    pq.write_table(table(50), source / "data" / "test-00000-of-00001-0a1b2c.parquet")
    check_tables(source, files, SourceConfig(str(source)), tmp_path / "out")
    with pytest.raises(InputError, match="has no split 'dev'; say --from-split, one of test, tr"):
        prepare(SourceConfig(str(source), from_split="dev"), tmp_path / "dev")
    (source / "ru").mkdir()
    (source / files[0]).rename(source / "ru" / "train-00000-of-00001.parquet")
    with pytest.raises(InputError, match="in several folders; name one as SOURCE: data, ru"):
        prepare(SourceConfig(str(source)), tmp_path / "several")


def test_parquet_of_plain_bytes_and_a_damaged_file(tmp_path):
    plain = pa.table({"jpg": [picture(1), picture(2)], "title": [["а", "б"], [""]]})
    pq.write_table(plain, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    options = SourceConfig(str(tmp_path), image_column="jpg")
    found, lines = prepared(options, tmp_path / "out")
    assert found == {"a.parquet:0": (picture(1), ["а", "б"])}
    assert [(line["file"], line["row"]) for line in lines] == [("a.parquet", 1), ("b.parquet", 0)]
    assert "cannot be read" in lines[1]["why"]
    with pytest.raises(InputError, match="none of the columns is called image, .* jpg, title"):
        prepare(SourceConfig(str(tmp_path / "a.parquet")), tmp_path / "none")


def save_to_disk(folder, tables, format=pa.ipc.new_stream):
    """In the form of `datasets.Dataset.save_to_disk`."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, rows in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, format(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return names


@pytest.mark.parametrize("format", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_as_saved_to_disk(tmp_path, format):
    source = tmp_path / "source"
    files = save_to_disk(source, [table(0), table(10)], format)
    check_tables(source, files, SourceConfig(str(source)), tmp_path / "out")


def test_arrow_with_splits_and_a_file_that_is_cut_off(tmp_path):
    source = tmp_path / "source"
    (name,) = save_to_disk(source / "train", [table()])
    save_to_disk(source / "test", [table(30)])
    (source / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match="has no split 'dev'; say --from-split, one of test, tr"):
        prepare(SourceConfig(str(source), from_split="dev"), tmp_path / "dev")
    file = source / "train" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found, lines = prepared(SourceConfig(str(source)), tmp_path / "out")
    assert 0 < len(found) < 6
    assert "rows from here on cannot be read" in lines[-1]["why"]
    assert lines[-1]["row"] == len(found)


def test_pyarrow_is_asked_for_by_name(tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'rudolph-jax\[prepare\]'"):
        prepare(SourceConfig(str(tmp_path)), tmp_path / "out")
