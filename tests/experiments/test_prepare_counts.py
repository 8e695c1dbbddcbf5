"""Kept, rejected and ignored items are all that a source of any kind has, stopped or not."""

import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from label_sources import tf_record_file
from prepared_sources import picture, rejected

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.source import build_builtin_set
from experiments.data.sources import chunks
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig, write_chunk


def counts(options, out, **rules):
    return str(prepare(options, out, WriteConfig(**rules)).counts)


@pytest.fixture
def table(tmp_path):
    """Nine rows: two of one image, one with a bad caption of its own, a bad image of two rows."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.jpg").write_bytes(picture(i))
    rows = ["0.jpg,а", "0.jpg,б", "1.jpg,в", "1.jpg, ", "", "absent.jpg,г", "absent.jpg,д"]
    rows += ["2.jpg,е,ж", "3.jpg,з"]
    (source / "list.csv").write_text("\n".join(["image,caption", *rows]), "utf-8")
    return SourceConfig(str(source))


def test_rows_of_a_table(table, tmp_path):
    told = "read 9 rows: 4 kept, 4 rejected, 1 ignored (1 blank line)"
    assert counts(table, tmp_path / "out") == told
    assert counts(table, tmp_path / "out") == told
    lines = rejected(tmp_path / "out")
    assert [(line["row"], line["why"].partition(":")[0]) for line in lines] == [
        (5, "caption is empty"), (7, "image is missing"), (9, "row has 3 cells; the header has 2")
    ]  # fmt: skip


def test_counts_survive_an_interruption(table, tmp_path, monkeypatch):
    def stop_at_two(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return write_chunk(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "write_chunk", stop_at_two)
        with pytest.raises(KeyboardInterrupt):
            prepare(table, tmp_path / "out", WriteConfig(shard_records=1))
    assert not (tmp_path / "out" / "summary.json").exists()
    assert counts(table, tmp_path / "out", shard_records=1) == (
        "read 9 rows: 4 kept, 4 rejected, 1 ignored (1 blank line)"
    )


def test_several_captions_of_a_row_are_one_row(tmp_path):
    (tmp_path / "0.jpg").write_bytes(picture(0))
    rows = [["а", "", None], ["", "б"], ["", 5], []]
    lines = [json.dumps({"image": "0.jpg", "caption": row}) for row in rows]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    assert counts(SourceConfig(str(tmp_path)), tmp_path / "out") == (
        "read 4 rows: 2 kept, 2 rejected, 0 ignored"
    )
    assert [line["row"] for line in rejected(tmp_path / "out")] == [1, 1, 2, 3, 3, 4]


def test_rows_of_parquet(tmp_path):
    images = [picture(0), b"", picture(1), picture(2)]
    table = pa.table({"image": images, "caption": [["а", " "], ["б"], [" "], ["в"]]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, compression="none")
    assert counts(SourceConfig(str(tmp_path)), tmp_path / "out") == (
        "read 4 rows: 2 kept, 2 rejected, 0 ignored"
    )
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    assert counts(SourceConfig(str(tmp_path)), tmp_path / "damaged") == (
        "read 5 rows: 2 kept, 3 rejected, 0 ignored"
    )
    (tmp_path / "b.parquet").unlink()
    pq.write_table(table, tmp_path / "c.parquet")
    page = pq.ParquetFile(tmp_path / "c.parquet").metadata.row_group(0).column(0)
    with (tmp_path / "c.parquet").open("r+b") as file:
        file.seek(page.dictionary_page_offset)
        file.write(b"\xff" * 40)
    assert counts(SourceConfig(str(tmp_path)), tmp_path / "rest") == (
        "read 8 rows: 2 kept, 6 rejected, 0 ignored"
    )


@pytest.mark.parametrize("cut", ["inside", "between"])
def test_rows_of_a_tfds_file_that_is_cut_off(tmp_path, data_directory, cut):
    """Between two records nothing in the file itself says that there were more."""
    folder = build_builtin_set("digits_ru", data_directory)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("features.json", "label.labels.txt"):
        (source / name).write_bytes((folder / name).read_bytes())
    info = (folder / "dataset_info.json").read_text("utf-8")
    (source / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"), "utf-8")
    (file,) = folder.glob("*-test.array_record*")
    with ArrayRecordDataSource([str(file)]) as records:
        data = [records[i] for i in range(len(records))]
    kept = tf_record_file(data[:10] if cut == "between" else data[:11])
    target = source / file.name.replace("array_record", "tfrecord")
    target.write_bytes(kept if cut == "between" else kept[:-5])
    told = counts(SourceConfig(str(source), from_split="test"), tmp_path / "out")
    assert told == f"read {len(data)} rows: 10 kept, {len(data) - 10} rejected, 0 ignored"
    (line,) = rejected(tmp_path / "out")
    assert line["row"] == 9 and line["why"].startswith("records after this one cannot be read: ")


def test_entries_of_fbc2(tmp_path):
    """Keys meet in NFC; an answer without its question is no less left out than the reverse."""
    part = [{"type": "text", "content": "что?"}]
    asked = {"ёж": part, "b": part, "c": []}
    answered = {unicodedata.normalize("NFD", "ёж"): part, "c": part, "d": part}
    for name, entries in (("q.json", asked), ("q_answer.json", answered)):
        (tmp_path / name).write_text("\ufeff" + json.dumps(entries), "utf-8")
    source = SourceConfig(str(tmp_path / "q.json"), form="questions")
    assert counts(source, tmp_path / "out") == "read 4 entries: 1 kept, 3 rejected, 0 ignored"
    assert {line["key"]: line["why"] for line in rejected(tmp_path / "out")} == {
        "b": "answer is missing", "c": "question is empty", "d": "question is missing"
    }  # fmt: skip
    (tmp_path / "q.json").write_text('{"a": [], "a": []}')
    with pytest.raises(InputError, match="q.json: not JSON .key 'a' is there twice."):
        prepare(source, tmp_path / "twice")
