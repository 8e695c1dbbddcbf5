"""Bulk work on prepared sets and in buckets, and preparation of what it wrote."""

import io
import json
import tarfile

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_commands import main_of
from prepared_sources import picture

import clip_jax
from clip_jax import InputError, Predictor
from clip_jax.bulk.images import open_images
from clip_jax.bulk.pairs import open_pairs
from clip_jax.bulk.run import run_bulk
from clip_jax.bulk.score import ScoreTask
from clip_jax.paths import as_path
from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig

TEXTS = ("красный круг", "синий дом", "кошка", "поле", "машина", "лес")


@pytest.fixture(scope="module")
def clip(ruclip):
    return clip_jax.load(ruclip)


@pytest.fixture
def tars(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for i in range(3 * number, 3 * number + 3):
                for name, data in ((f"{i}.jpg", picture(i)), (f"{i}.txt", TEXTS[i].encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def _score(clip, source, out, least=None, **options):
    task = ScoreTask(clip, least, batch_size=2, devices=jax.devices()[:1])
    return run_bulk(task, source, out, {}, piece_items=2, quiet=True, **options)


def _rows(out):
    found = []
    for file in sorted((out / "rows").iterdir(), key=str):
        with file.open("rb") as opened:
            found += pq.read_table(opened).to_pylist()
    return found


def test_a_prepared_set_and_the_preparation_of_what_is_kept(clip, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    lines = []
    for i, text in enumerate(TEXTS):
        (photos / f"{i}.jpg").write_bytes(picture(i))
        lines += [
            {"image": f"{i}.jpg", "caption": each} for each in (text, f"и {text}")[: 1 + i % 2]
        ]
    (photos / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    prepare(SourceConfig(str(photos)), tmp_path / "set", WriteConfig(validation=0.4))
    with open_images(tmp_path / "set").open(0) as listing:
        images = [item.read().image for item in listing.items(range(listing.count))]
    assert images and set(images) <= {picture(i) for i in range(6)}

    report = _score(clip, open_pairs(tmp_path / "set"), tmp_path / "all", -1)
    rows = _rows(tmp_path / "all")
    assert report.done == 6 and report.rows == 9 == len(rows) and report.rejected == 0
    assert {row["key"].partition("/")[0] for row in rows} == {"train", "validation"}
    predictor = Predictor(clip, quiet=True)
    for row in rows:
        text = row["text"].removeprefix("и ")
        (latent,) = predictor.get_image_latents([picture(TEXTS.index(text))])
        (encoded,) = predictor.encode_texts([row["text"]])
        assert row["score"] == pytest.approx(latent @ encoded / np.linalg.norm(encoded), abs=1e-5)

    least = sorted(row["score"] for row in rows)[4]
    kept = [row for row in rows if row["score"] >= least]
    assert _score(clip, open_pairs(tmp_path / "set"), tmp_path / "some", least).samples < 9
    prepare(SourceConfig(str(tmp_path / "some" / "shards")), tmp_path / "again", WriteConfig())
    records = list(Split(tmp_path / "again", "train"))
    pairs = {(bytes(r["image"]), text) for r in map(_plain, records) for text in r["captions"]}
    wanted = {(picture(TEXTS.index(r["text"].removeprefix("и "))), r["text"]) for r in kept}
    assert pairs == wanted and len(wanted) == 5


def _plain(record):
    captions = [c.decode() if isinstance(c, bytes) else c for c in record["captions"]]
    return {"image": record["image"], "captions": captions}


def test_in_a_bucket(clip, store, tars, tmp_path):
    pytest.importorskip("gcsfs", reason="the extra gcs is not installed")
    for file in tars.iterdir():
        store.put(f"bulk/{file.name}", file.read_bytes())
    source, out = open_pairs("gs://bucket/bulk"), "gs://bucket/scored"
    with pytest.raises(InputError, match="a bucket has no locks.*give --part=K/N, 0/1 for a sing"):
        _score(clip, source, out, -1)
    from clip_jax.part import Part

    for number in range(2):
        report = _score(clip, source, out, -1, part=Part(number, 2))
    assert report.is_whole and report.computed == 3
    _score(clip, open_pairs(tars), tmp_path / "local", -1)
    assert _rows(as_path(out)) == _rows(tmp_path / "local")
    for file in (tmp_path / "local" / "shards").iterdir():
        assert store.content(f"scored/shards/{file.name}") == file.read_bytes()
    assert _score(clip, source, out, -1, part=Part(0, 2)).computed == 0


def test_an_address_that_is_none(ruclip, capsys):
    assert main_of("clip_jax")(["score", "s3://b/c", f"--model={ruclip}"]) == 2
    assert "s3:// cannot be read" in capsys.readouterr().err
