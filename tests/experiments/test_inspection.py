"""Inspection of images and captions by `prepare`, its page, groups, and a set's background."""

import csv
import dataclasses
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image, ImageDraw
from prepared_sources import picture

from clip_jax import InputError
from clip_jax.config import WHITE
from experiments.config.data import DataConfig
from experiments.config.run import TrainConfig, default_config
from experiments.data import inspection, preview
from experiments.data.background import use_background
from experiments.data.inspection import _near
from experiments.data.preparation import prepare
from experiments.data.source import Split, open_split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.prepare import main


def smooth(i):
    pixels = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def drawn(width):
    """A black ellipse on transparent pixels, whose hidden colour is black too."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((10, 10, width, 40), fill=(0, 0, 0, 255))
    return encoded(image)


@pytest.fixture
def source(tmp_path):
    files = {f"{i}.png": (encoded(smooth(i)), f"вид {i}") for i in range(6)}
    files["copy.webp"] = encoded(smooth(3), "WEBP", lossless=True), "копия"
    files["small.jpg"] = encoded(smooth(4).resize((100, 75)), "JPEG", quality=60), "меньше"
    files["red.jpg"] = encoded(Image.new("RGB", (50, 50), (200, 10, 10)), "JPEG"), "красное"
    files |= {f"t{i}.png": (drawn(30 + 10 * i), "чёрный <круг>") for i in range(3)}
    folder = tmp_path / "source"
    folder.mkdir()
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        rows = ((name, caption) for name, (_, caption) in files.items())
        csv.writer(file).writerows([("image", "caption"), *rows])
    return folder


def findings(out):
    """{kind: sets of keys}"""
    found = {}
    for line in (out / "inspection.jsonl").read_text("utf-8").splitlines():
        found.setdefault(json.loads(line)["finding"], []).append(set(json.loads(line)["keys"]))
    return found


CIRCLES = {"t0.png", "t1.png", "t2.png"}


def test_findings_are_those_of_the_images_without_a_background(source, tmp_path):
    """Without the alpha channel each circle is one black square: a duplicate, and uniform."""
    rules = WriteConfig(shard_records=5)  # in several chunks
    summary = prepare(SourceConfig(str(source)), tmp_path / "out", rules, workers=2)
    found = findings(tmp_path / "out")
    assert found["transparent"] == [{name} for name in sorted(CIRCLES)]
    assert found["nearly uniform"] == [{"red.jpg"}, *({name} for name in sorted(CIRCLES))]
    assert found["exact duplicates"] == [{"3.png", "copy.webp"}, CIRCLES]
    assert found["near duplicates"] == [{"4.png", "small.jpg"}]
    assert found["repeated captions"] == [CIRCLES]
    assert summary.findings == {
        "transparent": 3, "nearly uniform": 4, "exact duplicates": 3, "near duplicates": 1,
        "repeated captions": 3,
    }  # fmt: skip


def test_a_background_makes_the_images_differ(source, tmp_path):
    rules = WriteConfig(background="white")
    prepare(SourceConfig(str(source)), tmp_path / "out", rules)
    found = findings(tmp_path / "out")
    assert found["nearly uniform"] == [{"red.jpg"}]
    assert found["exact duplicates"] == [{"3.png", "copy.webp"}]
    assert found["transparent"] == [{name} for name in sorted(CIRCLES)]
    kept = {row["key"]: row["image"] for row in Split(tmp_path / "out", "train")}
    assert kept["t0.png"] == (source / "t0.png").read_bytes()  # the file is not changed


def test_duplicates_in_both_splits_are_counted(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "out"), "--validation=0.5", "--workers=1"]) == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / "inspection.jsonl").read_text("utf-8").splitlines()
    ]
    places = {
        row["key"]: name
        for name in ("train", "validation")
        for row in Split(tmp_path / "out", name)
    }
    for line in lines:
        both = len({places[key] for key in line["keys"]}) == 2
        assert line.get("across_splits", False) == both, line
    duplicates = [line for line in lines if line["finding"].endswith("duplicates")]
    count = sum("across_splits" in line for line in duplicates)
    assert count  # by the hash of these names
    printed = capsys.readouterr().out
    assert f"{count} groups of duplicates lie in both splits; --group-by keeps" in printed
    assert "3 transparent, 4 nearly uniform, 3 exact duplicates" in printed
    assert "--background=white puts white under transparent pixels" in printed


def test_inspection_can_be_left_out(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "out"), "--no-inspect", "--workers=1"]) == 0
    assert not (tmp_path / "out" / "inspection.jsonl").exists()
    assert "found:" not in capsys.readouterr().out


def test_large_sets_are_not_compared(source, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_COMPARED", 11)
    prepare(SourceConfig(str(source)), tmp_path / "out")
    assert set(findings(tmp_path / "out")) == {"transparent", "nearly uniform"}


def test_near_duplicates_are_those_of_all_pairs():
    """Random hashes, some with up to five bits changed, against a comparison of every pair."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for i in range(100):
        bits = rng.choice(64, i % 6, replace=False).astype(np.uint64)
        hashes[200 + i] = hashes[i] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=0)
    close = np.bitwise_count(hashes[:, None] ^ hashes) <= inspection.NEAR_BITS
    expected = {frozenset(np.flatnonzero(row).tolist()) for row in close if row.sum() > 1}
    assert len(expected) > 50
    assert {frozenset(rows) for rows in _near(hashes)} == expected


def test_the_page_shows_records_with_their_texts(source, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "RECORDS", 10)
    for out in ("one", "two"):
        prepare(SourceConfig(str(source)), tmp_path / out)
    page = (tmp_path / "one" / "preview.html").read_text("utf-8")
    assert page.count("<figure>") == page.count("<img src=") == 10
    assert "чёрный &lt;круг&gt;" in page and "<li>3 transparent</li>" in page
    again = (tmp_path / "two" / "preview.html").read_text("utf-8")
    assert page == again


@pytest.mark.parametrize("background,left", [("black", 0), ("", WHITE)])
def test_a_model_keeps_the_background_of_its_data(source, tmp_path, background, left):
    prepare(SourceConfig(str(source)), tmp_path / "out", WriteConfig(background=background))
    config = TrainConfig(data=DataConfig(name=str(tmp_path / "out")))
    changed = use_background(config, open_split(config.data, "train"))
    expected = (left,) * 3 if background else left
    assert changed.model.image.background == expected
    assert changed.data.background == background
    stated = dataclasses.replace(config, data=dataclasses.replace(config.data, background="none"))
    assert use_background(stated, Split(tmp_path / "out", "train")).model.image.background is None
    vqgan = dataclasses.replace(default_config("vqgan"), data=config.data)
    changed = use_background(vqgan, open_split(config.data, "train"))
    assert changed.model.background == ((0, 0, 0) if background else vqgan.model.background)


def test_sets_with_different_backgrounds_do_not_mix_in_silence(source, tmp_path):
    for name in ("white", "black"):
        prepare(SourceConfig(str(source)), tmp_path / name, WriteConfig(background=name))
    data = DataConfig(mix=(f"{tmp_path / 'white'}=1", f"{tmp_path / 'black'}=1"))
    config = TrainConfig(data=data)
    with pytest.raises(InputError, match=r"different backgrounds \(black, white\)"):
        use_background(config, open_split(data, "train"))
    stated = dataclasses.replace(config, data=dataclasses.replace(data, background="white"))
    assert use_background(stated, open_split(data, "train")).model.image.background == WHITE


def test_a_background_that_there_is_not(source, tmp_path):
    with pytest.raises(InputError, match="--background is 'green'; expected one of white, black"):
        prepare(SourceConfig(str(source)), tmp_path / "out", WriteConfig(background="green"))


# Groups.


def write_table(folder, rows, columns=("image", "caption")):
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        file = folder / row[0]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture(number, "PNG"))
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def split_of_keys(out):
    return {row["key"]: name for name in ("train", "validation") for row in Split(out, name)}


FAMILIES = [(f"{i % 4}/{i % 10}_{i}.png", f"вид {i}", f"монета {i % 7}") for i in range(60)]


@pytest.mark.parametrize(
    "group_by,family",
    [
        ("folder", lambda row: row[0].split("/")[0]),
        ("prefix", lambda row: row[0].split("_")[0]),
        ("coin", lambda row: row[2]),
    ],
)
def test_a_group_stays_in_one_split(tmp_path, group_by, family):
    write_table(tmp_path / "source", FAMILIES, ("image", "caption", "coin"))
    config = SourceConfig(str(tmp_path / "source"), group_by=group_by)
    prepare(config, tmp_path / "out", WriteConfig(validation=0.4, shard_records=7))
    places = split_of_keys(tmp_path / "out")
    assert set(places.values()) == {"train", "validation"} and len(places) == 60
    found = {}
    for row in FAMILIES:
        found.setdefault(family(row), set()).add(places[row[0]])
    assert all(len(splits) == 1 for splits in found.values())
    prepare(SourceConfig(str(tmp_path / "source")), tmp_path / "alone", WriteConfig(validation=0.4))
    assert split_of_keys(tmp_path / "alone") != places


def test_a_row_without_a_group_is_rejected(tmp_path):
    rows = [("a.png", "а", "1"), ("b.png", "б", " ")]
    write_table(tmp_path / "source", rows, ("image", "caption", "coin"))
    config = SourceConfig(str(tmp_path / "source"), group_by="coin")
    summary = prepare(config, tmp_path / "out")
    assert summary.reasons == {"group (coin) is missing": 1} and summary.splits == {"train": 1}


def test_a_column_that_there_is_not(tmp_path):
    write_table(tmp_path / "source", FAMILIES[:2], ("image", "caption", "coin"))
    config = SourceConfig(str(tmp_path / "source"), group_by="coins")
    with pytest.raises(InputError, match="has no column 'coins'; expected --group-by to be folder"):
        prepare(config, tmp_path / "out")


def test_groups_of_parquet_are_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [
        {"image": picture(i), "caption": f"вид {i}", "about": {"coin": i % 5}} for i in range(40)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    config = SourceConfig(str(tmp_path / "rows.parquet"), group_by="about/coin")
    prepare(config, tmp_path / "out", WriteConfig(validation=0.5))
    places = split_of_keys(tmp_path / "out")
    found = {}
    for key, name in places.items():
        found.setdefault(int(key.rpartition(":")[2]) % 5, set()).add(name)
    assert set(places.values()) == {"train", "validation"}
    assert all(len(splits) == 1 for splits in found.values())
    with pytest.raises(InputError, match="--group-by is 'prefix', and the records here have no"):
        prepare(dataclasses.replace(config, group_by="prefix"), tmp_path / "other")


def test_groups_of_tars_are_fields_of_the_json(tmp_path):
    source = tmp_path / "shard.tar"
    with tarfile.open(source, "w") as tar:
        for i in range(40):
            about = json.dumps({"caption": f"вид {i}", "coin": i % 5}).encode()
            for name, data in (("png", picture(i, "PNG")), ("json", about), ("txt", b"no coin")):
                member = tarfile.TarInfo(f"{i:02d}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    config = SourceConfig(str(source), group_by="coin")
    prepare(config, tmp_path / "out", WriteConfig(validation=0.5))
    places = split_of_keys(tmp_path / "out")
    found = {}
    for key, name in places.items():
        found.setdefault(int(key.rpartition("/")[2]) % 5, set()).add(name)
    assert len(places) == 40 and set(places.values()) == {"train", "validation"}
    assert all(len(splits) == 1 for splits in found.values())
