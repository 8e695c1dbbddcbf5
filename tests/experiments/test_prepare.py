"""Preparing can be stopped anywhere, and gives the same bytes however it is carried out."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from clip_jax import InputError
from experiments.config.data import DataConfig
from experiments.data.examples import ImageTextExamples
from experiments.data.preparation import prepare
from experiments.data.source import Split, open_split
from experiments.data.sources import chunks
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig, split_of, write_chunk
from experiments.data.stream import batches
from experiments.data.vocabulary import train_tokenizer
from experiments.prepare import main

FIVE = WriteConfig(shard_records=5)


def write_table(source, count, start=0):
    rows = []
    for i in range(start, start + count):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / f"{i}.png")
        rows.append([f"{i}.png", f"подпись номер {i}"])
    with (source / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *rows, ["absent.png", "нет"]])


@pytest.fixture
def source(tmp_path):
    """Eighteen good records and a bad one."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_table(folder, 18)
    return folder


@pytest.fixture
def options(source):
    return SourceConfig(str(source))


def contents(out):
    """Return all files but the one that names the source's path."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != "prepare.json"
    }


def test_the_same_bytes_whatever_the_workers(options, tmp_path, capfd):
    rules = dataclasses.replace(FIVE, validation=0.3)
    summary = prepare(options, tmp_path / "one", rules)
    assert summary.reasons == {"image is missing": 1}
    assert sum(summary.splits.values()) == 18 and set(summary.splits) == {"train", "validation"}
    prepare(options, tmp_path / "three", rules, workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert "chunk 4/4  18 records  1 rejected" in capfd.readouterr().err
    names = set(contents(tmp_path / "one"))
    assert {"rejected.jsonl", "features.json", "dataset_info.json"} < names
    assert "prepared-train.array_record-00003-of-00004" in names


def test_shards_are_full_by_bytes_too(options, tmp_path):
    prepare(options, tmp_path / "records", FIVE)
    rows = list(Split(tmp_path / "records", "train"))
    small = dataclasses.replace(FIVE, shard_bytes=2 * len(rows[0]["image"]))
    prepare(options, tmp_path / "bytes", small)
    info = tfds.builder_from_directory(str(tmp_path / "bytes")).info
    # Two images and their texts are more than two images.
    assert info.splits["train"].shard_lengths == [2, 2, 1, 2, 2, 1, 2, 2, 1, 2, 1]
    assert list(Split(tmp_path / "bytes", "train")) == rows


def test_validation_is_a_hash_of_the_key(options, tmp_path):
    found = {}
    for size in (5, 7):
        rules = WriteConfig(validation=0.3, shard_records=size)
        prepare(options, tmp_path / str(size), rules)
        for name in ("train", "validation"):
            split = Split(tmp_path / str(size), name)
            keys = {row["key"] for row in split}
            assert found.setdefault(name, keys) == keys
    assert len(found["train"] | found["validation"]) == 18
    rules = WriteConfig(validation=0.25)
    shares = [split_of(str(i).encode(), rules) == "validation" for i in range(4000)]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_finished_is_not_written_again(options, tmp_path, monkeypatch, error):
    expected, out = tmp_path / "expected", tmp_path / "out"
    prepare(options, expected, FIVE)

    def stop_at_two(*arguments):
        if arguments[-1] == 2:
            raise error("stopped")
        return write_chunk(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "write_chunk", stop_at_two)
        with pytest.raises(error):
            prepare(options, out, FIVE)
    with pytest.raises(InputError, match="no prepared data set here"):
        Split(out, "train")
    written = []

    def note(*arguments):
        written.append(arguments[-1])
        return write_chunk(*arguments)

    monkeypatch.setattr(chunks, "write_chunk", note)
    prepare(options, out, FIVE)
    assert written == [2, 3]
    assert contents(out) == contents(expected)
    prepare(options, out, FIVE)
    assert written == [2, 3]


def test_stopping_between_shards_and_metadata(options, tmp_path, monkeypatch):
    expected, out = tmp_path / "expected", tmp_path / "out"
    prepare(options, expected, FIVE)
    replaced, real = [], os.replace

    def stop(source, target):
        if "metadata" in str(source) or len(replaced) == 12:
            raise KeyboardInterrupt
        replaced.append(target)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(options, out, FIVE)
    with pytest.raises(InputError, match="no prepared data set here"):
        Split(out, "train")
    prepare(options, out, FIVE)
    assert contents(out) == contents(expected)


def test_another_command_or_source_is_refused(options, source, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "write_chunk", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(options, out, FIVE)
    with pytest.raises(InputError, match="was begun with max_side = None, not 9; go on with"):
        prepare(options, out, dataclasses.replace(FIVE, max_side=9))
    with pytest.raises(InputError, match="was begun with shard_records = 5, not 4096"):
        prepare(options, out)
    prepare(options, out, FIVE)
    with pytest.raises(InputError, match="holds a set prepared with validation = 0.0, not 0.5"):
        prepare(options, out, dataclasses.replace(FIVE, validation=0.5))
    write_table(source, 17)
    with pytest.raises(InputError, match="another state of the source: list.csv has changed"):
        prepare(options, out, FIVE)
    with pytest.raises(InputError, match="source: already exists"):
        prepare(options, source, FIVE)


def test_sources_without_a_good_record(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    table = source / "list.csv"
    for text, message in (
        ("", "none of the columns is called image"),
        ("image,caption\n", "holds no records"),
        ("image,words\na.png,b\n", "none of the columns is called caption"),
    ):
        table.write_text(text)
        assert main([str(source), str(out), "--workers=1"]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    assert main([str(source), str(out), "--caption-column=wurds"]) == 2
    assert "has no column 'wurds'; name one with --caption-column; columns are image, words" in (
        capsys.readouterr().err
    )
    table.write_text("image,caption\na.png,b\nb.png,\n../c.png,d\ne.png,f\n")
    assert main([str(source), str(out), "--workers=1"]) == 2
    error = capsys.readouterr().err
    assert "none of its 4 records can be used, most often because image is missing" in error
    lines = (out / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [2, 3, 4, 5]
    with pytest.raises(InputError, match="no prepared data set here"):
        Split(out, "train")


def test_the_command(source, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(source), str(out), "--workers=1", "--split=good", "--max-side=8"]
    printed = (
        f"{out}: good 18; 1 rejected\n  read 19 rows: 18 kept, 1 rejected, 0 ignored\n"
        f"  1 image is missing\n  each in {out}/rejected.jsonl\n"
        f"  found: nothing remarkable\n  look at {out}/preview.html\n"
    )
    for options, status in (([], 7), ([], 7), (["--max-rejected=0.06"], 0)):
        assert main([*command, *options]) == status
        told = capsys.readouterr()
        assert told.out == printed
        assert ("is prepared without 5.26% of the source" in told.err) == bool(status)
    assert main([*command, "--max-rejected=0.05"]) == 7
    assert main([*command, "--max-rejected=2"]) == 2
    assert Image.open(io.BytesIO(Split(out, "good")[3]["image"])).size == (8, 6)
    assert main([str(source), str(out), "--vqgan=x"]) == 2
    assert "--vqgan and --image-size are needed together" in capsys.readouterr().err


def test_a_prepared_set_is_a_source(options, tmp_path):
    prepare(options, tmp_path / "first", FIVE)
    summary = prepare(SourceConfig(str(tmp_path / "first")), tmp_path / "again", WriteConfig("dev"))
    assert summary.splits == {"dev": 18} and not summary.reasons
    first, again = Split(tmp_path / "first", "train"), Split(tmp_path / "again", "dev")
    assert [(row["image"], row["captions"]) for row in first] == [
        (row["image"], row["captions"]) for row in again
    ]


def test_tensorflow_is_never_imported(source, tmp_path):
    code = (
        "import sys; from experiments.prepare import main;"
        f" print(main([{str(source)!r}, {str(tmp_path / 'out')!r}, '--workers=1']),"
        " 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("7 False\n")


def test_a_prepared_set_trains(options, tmp_path, small_config):
    out = tmp_path / "out"
    prepare(options, out, FIVE)
    config = DataConfig(name=str(out), batch_size=6)
    split = open_split(config, "train")
    tokenizer = train_tokenizer([c for row in split for c in row["captions"]], 60)
    examples = ImageTextExamples(split, config, small_config, tokenizer)
    batch = next(batches(examples, config, seed=1))
    assert batch["image"].shape == (6, 24, 24, 3) and batch["image"].dtype == np.uint8
    assert batch["input_ids"].shape == (6, 12)
    assert len({image.tobytes() for image in batch["image"]}) == 6
