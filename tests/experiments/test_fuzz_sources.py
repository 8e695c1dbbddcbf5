"""A source with one byte changed loses or changes the record of that byte, and no other."""

import csv
import io
import json
import re
import shutil
import tarfile
import time

import numpy as np
import pytest
from label_sources import add, picture
from prepared_sources import rejected

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.tables import QuotesWarning

CAPTIONS = (
    'Красный круг, "большой"', "синий круг", '5" диск, да', "ёж; йод, нет", 'он: "да"', "a\u2028b",
    "конец, конец",
)  # fmt: skip
# No change of a byte makes one of these another.
NAMES = [f"{i}{i}{i}{i}{i}{i}.png" for i in range(len(CAPTIONS))]
IMAGES = [picture(i) for i in range(len(CAPTIONS))]
CHANGES = 125  # of each of four sources
# Those that mean something in one of the forms come more often.
BYTES = [*range(256), *b'"",,\t\t\n\n\r\r\\\\{}[]:;  ..\0\0\xef\xbb\xbf' * 4]
SECONDS = 5  # of one preparation; the mean is under 0.2


def make_csv():
    opened = io.StringIO(newline="")
    rows = zip(NAMES, CAPTIONS, strict=True)
    csv.writer(opened, lineterminator="\n").writerows([["image", "caption"], *rows])
    return opened.getvalue().encode()


def make_tsv():
    rows = ["image\tcaption", *map("\t".join, zip(NAMES, CAPTIONS, strict=True))]
    return "".join(f"{row}\n" for row in rows).encode()


def make_jsonl():
    rows = zip(NAMES, CAPTIONS, strict=True)
    lines = [json.dumps({"image": n, "caption": c}, ensure_ascii=False) for n, c in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def make_tar():
    """Records side by side, of dotted keys, and apart."""
    opened = io.BytesIO()
    with tarfile.open(fileobj=opened, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for i in range(5):
            add(tar, f"{i}.v{i}.png" if i % 2 else f"й{i}.png", IMAGES[i])
            add(tar, f"{i}.v{i}.txt" if i % 2 else f"й{i}.txt", CAPTIONS[i].encode())
        for i in (5, 6):
            add(tar, f"{i}.png", IMAGES[i])
        for i in (5, 6):
            add(tar, f"{i}.json", json.dumps({"caption": CAPTIONS[i]}).encode())
    return opened.getvalue()


SOURCES = {"a.csv": make_csv, "a.tsv": make_tsv, "a.jsonl": make_jsonl, "a.tar": make_tar}


def table_records(data):
    """The record of each byte of a table, -1 for the header, by physical lines."""
    first = 0 if data.startswith(b"{") else -1
    lines = re.findall(rb"[^\n]*\n", data)
    return np.repeat(np.arange(len(lines)) + first, [len(line) for line in lines])


def tar_records(data):
    """The record of each byte of a member's contents, -1 for heads and padding."""
    found = np.full(len(data), -1)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            record = int(member.name.lstrip("й")[0])
            found[member.offset_data : member.offset_data + member.size] = record
    return found


def items_in(name, data):
    """Count rows or members in another way; None where that is not possible."""
    if name.endswith(".tar"):
        count = 0
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                for _ in tar:
                    count += 1
                end = data[tar.offset : tar.offset + 512]
        except tarfile.TarError:
            return count + 1
        return count + bool(end.strip(b"\0"))
    lines = data.removesuffix(b"\n").split(b"\n")
    return len(lines) - (not name.endswith(".jsonl"))


def check(name, change, records, summary, changed):
    """change: place, the byte that was there, the byte that is there now."""
    place, before, after = change
    told = f"{name}: byte {place} {before!r} -> {after!r}"
    rows = [
        (row["image"], text) for row in Split(summary.folder, "train") for text in row["captions"]
    ]
    touched = {int(records[place])}
    if before == b"\n":
        touched.add(int(records[place]) + 1)
    wanted = dict(enumerate(zip(IMAGES, (text.strip() for text in CAPTIONS), strict=True)))
    lost = {i for i, pair in wanted.items() if pair not in rows}
    # What differs from the source has the image or the caption of the byte's record.
    others = [pair for pair in rows if pair not in wanted.values()]
    assert len(others) <= len(touched - {-1}), told
    mine = [part for i in touched & set(wanted) for part in wanted[i]]
    assert all(image in mine or caption in mine for image, caption in others), told
    # Nothing else is lost, unless the byte is one on which other records hang.
    quote = name == "a.csv" and b'"' in (before, after)
    if not quote and touched != {-1}:
        assert lost <= touched, told
    lines = rejected(summary.folder)
    assert len(lines) >= bool(len(lost) > len(others)), told
    counts = summary.counts
    # An end of line inside of quotes makes no row.
    joins = name == "a.csv" and after == b"\n"
    assert items_in(name, changed) - joins <= counts.all <= items_in(name, changed), told
    if not name.endswith(".tar"):
        assert counts.kept == len(rows) and counts.rejected == len(lines), told
    return "part" if lines else "whole"


@pytest.mark.slow
@pytest.mark.filterwarnings(f"ignore::{QuotesWarning.__module__}.QuotesWarning")
@pytest.mark.parametrize("name", SOURCES)
def test_one_byte_changed(tmp_path, name):
    source = tmp_path / "source"
    source.mkdir()
    is_tar = name.endswith(".tar")
    if not is_tar:
        for file, image in zip(NAMES, IMAGES, strict=True):
            (source / file).write_bytes(image)
    data = SOURCES[name]()
    records = (tar_records if is_tar else table_records)(data)
    assert len(records) == len(data) and set(records) >= set(range(len(CAPTIONS)))
    random = np.random.default_rng(sum(name.encode()))
    seen = dict.fromkeys(("whole", "part", "error"), 0)
    for step in range(CHANGES):
        # Half of the changes of a tar are where one costs nothing but its record.
        places = np.flatnonzero(records >= 0) if is_tar and step % 2 else np.arange(len(data))
        place, value = int(random.choice(places)), int(random.choice(BYTES))
        changed = data[:place] + bytes([value]) + data[place + 1 :]
        (source / name).write_bytes(changed)
        change = place, data[place : place + 1], bytes([value])
        began, out = time.monotonic(), tmp_path / str(step)
        try:
            summary = prepare(SourceConfig(str(source)), out)
        except InputError:
            with pytest.raises(InputError):
                Split(out, "train")
            assert records[place] == -1, change  # only what all records hang on may cost them all
            seen["error"] += 1
        else:
            seen[check(name, change, records, summary, changed)] += 1
        assert time.monotonic() - began < SECONDS, change
        shutil.rmtree(out, ignore_errors=True)
    assert seen["whole"] and seen["part"], seen
