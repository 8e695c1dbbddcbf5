"""Bulk work: pieces, what resumes, what is shared, scores and filtered pairs."""

import collections
import contextlib
import errno
import io
import json
import tarfile

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clip_jax
import converters
from clip_jax import InputError, Predictor
from clip_jax.__main__ import main
from clip_jax.bulk import run as bulk_run
from clip_jax.bulk.images import open_images
from clip_jax.bulk.items import Item, Record
from clip_jax.bulk.pairs import open_pairs
from clip_jax.bulk.pieces import Piece, Pieces
from clip_jax.bulk.prompts import PromptFile
from clip_jax.bulk.run import Row, Task, run_bulk
from clip_jax.bulk.score import ScoreTask
from clip_jax.part import Part

TEXTS = ("красный круг", "синий дом", "кошка на окне", "зелёное поле", "жёлтая машина")


@pytest.fixture(autouse=True)
def two_devices(monkeypatch):
    """Uses two devices of the eight, for each of which every program is compiled."""
    found = jax.local_devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda: found)


@pytest.fixture(scope="module")
def model(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return folder


@pytest.fixture(scope="module")
def clip(model):
    return clip_jax.load(model)


class Shout(Task):
    """Writes each text in capitals; notes what it has read."""

    columns = {"key": "string", "text": "string", "seed": "uint32"}
    writes_rows, batch_items = True, 2

    def __init__(self, fail_at=None):
        self.models, self.keys, self._fail_at = ["a", "b"], [], fail_at

    def prepare(self, item, record):
        if self._fail_at == item.key:
            raise RuntimeError("the machine stops")
        self.keys.append(item.key)
        return item.key, record.texts[0], item.seed(7)

    def compute(self, model, items):
        return [
            "says nothing: " + text if text == "ничего"
            else [Row({"key": key, "text": text.upper(), "seed": seed})]
            for key, text, seed in items
        ]  # fmt: skip


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join([*(f"слово {n}" for n in range(9)), "", "ничего"]) + "\n")
    return file


def _rows(out):
    files = sorted((out / "rows").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def _run(task, source, out, **options):
    return run_bulk(task, source, out, {"command": "shout"}, piece_items=4, quiet=True, **options)


def test_every_item_once_in_order_with_counts(prompts, tmp_path):
    task = Shout()
    report = _run(task, PromptFile(prompts), tmp_path / "out")
    rows = _rows(tmp_path / "out")
    assert [row["key"] for row in rows] == [str(n) for n in range(1, 10)]
    assert [row["text"] for row in rows] == [f"СЛОВО {n}" for n in range(9)]
    assert (report.read, report.done, report.rejected, report.ignored) == (11, 9, 1, 1)
    assert report.reasons == {"says nothing": 1} and report.computed == 10 and report.is_whole
    line = json.loads((tmp_path / "out" / "rejected.jsonl").read_text())
    assert line == {"key": "11", "why": "says nothing: ничего"}
    assert [file.name for file in sorted((tmp_path / "out" / "rows").iterdir())] == [
        "00000-00000.parquet", "00000-00001.parquet", "00000-00002.parquet",
    ]  # fmt: skip


def test_an_interrupted_run_does_only_unfinished_pieces(prompts, tmp_path):
    with pytest.raises(RuntimeError, match="stops"):
        _run(Shout(fail_at="6"), PromptFile(prompts), tmp_path / "out")
    assert len(_rows(tmp_path / "out")) == 4
    task = Shout()
    report = _run(task, PromptFile(prompts), tmp_path / "out")
    assert sorted(task.keys, key=int) == ["5", "6", "7", "8", "9", "11"]
    assert (report.read, report.done, report.computed) == (11, 9, 6)
    assert [row["key"] for row in _rows(tmp_path / "out")] == [str(n) for n in range(1, 10)]


def test_parts_have_the_rows_of_one_process(prompts, tmp_path):
    _run(Shout(), PromptFile(prompts), tmp_path / "one")
    done = []
    for number in (1, 0):
        task = Shout()
        report = _run(task, PromptFile(prompts), tmp_path / "two", part=Part(number, 2))
        done += task.keys
    assert report.is_whole and sorted(done) == sorted(set(done)) and len(done) == 10
    assert _rows(tmp_path / "two") == _rows(tmp_path / "one")
    assert len({row["seed"] for row in _rows(tmp_path / "one")}) == 9


def test_a_piece_that_another_process_holds_is_not_done_twice(prompts, tmp_path, monkeypatch):
    source, out = PromptFile(prompts), tmp_path / "out"
    other, waits = Pieces(out, source, 4, Part(0, 1)), []
    with other.claim(Piece(0, 1, 3)) as mine:
        assert mine
        monkeypatch.setattr(bulk_run.time, "sleep", lambda _: (_ for _ in ()).throw(TimeoutError))
        task = Shout()
        with pytest.raises(TimeoutError):  # it waits for the piece of the other
            _run(task, source, out)
        assert sorted(task.keys, key=int) == ["1", "2", "3", "4", "9", "11"]
    # The other one has died: the piece is taken over.
    monkeypatch.setattr(bulk_run.time, "sleep", waits.append)
    task = Shout()
    _run(task, source, out)
    assert sorted(task.keys, key=int) == ["5", "6", "7", "8"] and not waits
    assert len(_rows(out)) == 9


def test_a_piece_whose_holder_dies_meanwhile_is_done(prompts, tmp_path, monkeypatch):
    source, out = PromptFile(prompts), tmp_path / "out"
    other = contextlib.ExitStack()
    assert other.enter_context(Pieces(out, source, 4, Part(0, 1)).claim(Piece(0, 1, 3)))
    monkeypatch.setattr(bulk_run.time, "sleep", lambda _: other.close())
    task = Shout()
    assert _run(task, source, out).is_whole and len(task.keys) == 10
    assert len(_rows(out)) == 9


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT])
def test_an_error_of_the_storage_ends_the_run_and_rejects_no_item(prompts, tmp_path, number):
    class Failing(Shout):
        def prepare(self, item, record):
            if item.key == "3":
                raise OSError(number, "cannot be read", "a.png")
            return super().prepare(item, record)

    if number == errno.EIO:
        with pytest.raises(OSError, match="cannot be read"):
            _run(Failing(), PromptFile(prompts), tmp_path / "out")
        assert not list((tmp_path / "out").glob("done/*"))
        assert _run(Shout(), PromptFile(prompts), tmp_path / "out").done == 9
    else:
        report = _run(Failing(), PromptFile(prompts), tmp_path / "out")
        assert report.done == 8 and report.reasons["cannot be read"] == 1


def test_a_piece_is_finished_only_when_its_rows_are_there(prompts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bulk_run.output, "write_rows", lambda *_: (_ for _ in ()).throw(OSError(28)))
        with pytest.raises(OSError):
            _run(Shout(), PromptFile(prompts), tmp_path / "out")
    assert _run(Shout(), PromptFile(prompts), tmp_path / "out").computed == 10
    assert len(_rows(tmp_path / "out")) == 9


def test_a_finished_piece_cannot_be_claimed(prompts, tmp_path):
    pieces = Pieces(tmp_path, PromptFile(prompts), 4, Part(0, 1))
    with pieces.claim(Piece(0, 1, 3)) as mine:
        assert mine
        pieces.finish(Piece(0, 1, 3), {})
    with pieces.claim(Piece(0, 1, 3)) as mine:
        assert not mine


def test_other_settings_or_another_source_are_refused(prompts, tmp_path):
    _run(Shout(), PromptFile(prompts), tmp_path / "out")
    with pytest.raises(InputError, match='begun with command "shout", and this is "whisper"'):
        run_bulk(
            Shout(), PromptFile(prompts), tmp_path / "out", {"command": "whisper"}, piece_items=4
        )
    prompts.write_text("другое слово\n")
    with pytest.raises(InputError, match="begun with source"):
        _run(Shout(), PromptFile(prompts), tmp_path / "out")


def test_seeds_follow_from_the_place_alone():
    def item(group, number):
        return Item("key", group, number, "", Record)

    assert item(0, 1).seed(0) == item(0, 1).seed(0)
    seeds = {item(g, n).seed(s) for g in range(3) for n in range(3) for s in range(3)}
    assert len(seeds) == 27 and all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.csv", "prompt,size\nкот,1\n,2\nдом,3\n"),
        ("a.tsv", "size\tcaption\n1\tкот\n2\t\n3\tдом\n"),
        ("a.jsonl", '{"text": "кот"}\n\n{"text": null}\n{"text": "дом"}\n'),
    ],
)
def test_prompts_of_tables(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    report = _run(Shout(), PromptFile(tmp_path / name), tmp_path / "out")
    assert [row["text"] for row in _rows(tmp_path / "out")] == ["КОТ", "ДОМ"]
    assert report.reasons == {"has no text": 1}
    with pytest.raises(InputError, match="expected other: name one with --column"):
        PromptFile(tmp_path / name, "other")


def _png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    """Three tars of five samples; in the first also faulty ones."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number, text in enumerate(TEXTS):
                _add(tar, f"{number}.png", _png(5 * shard + number))
                _add(tar, f"{number}.txt", text.encode())
                _add(tar, f"{number}.json", b'{"url": "a"}')
            if not shard:
                _add(tar, "broken.jpg", b"no image")
                _add(tar, "broken.txt", b"text")
                _add(tar, "alone.txt", b"text")
                _add(tar, "silent.png", _png(3))
                _add(tar, ".hidden", b"")
    return folder


def _expected(clip, shards):
    """Cosines by key, as the predictor computes them."""
    found, predictor = {}, Predictor(clip, quiet=True)
    for shard in range(3):
        images = predictor.get_image_latents([_png(5 * shard + n) for n in range(5)])
        texts = predictor.encode_texts(TEXTS)
        texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
        for number, score in enumerate((images * texts).sum(1)):
            found[f"{shard}.tar/{number}"] = score
    return found


def _score(clip, source, out, least=None, **options):
    task = ScoreTask(clip, least, batch_size=4)
    return run_bulk(task, source, out, {}, piece_items=3, quiet=True, **options)


def test_scores_are_the_models_cosines_and_the_filtered_set_is_byte_for_byte(
    clip, shards, tmp_path
):
    expected = _expected(clip, shards)
    least = float(np.median(list(expected.values())))
    report = _score(clip, open_pairs(shards), tmp_path / "out", least)
    rows = {row["key"]: row for row in _rows(tmp_path / "out")}
    assert set(rows) == set(expected)
    for key, row in rows.items():
        assert row["score"] == pytest.approx(expected[key], abs=1e-5)
        assert row["kept"] == (row["score"] >= least)
        assert row["text"] == TEXTS[int(key[-1])]
    assert (report.read, report.done, report.rejected, report.ignored) == (19, 15, 3, 1)
    whys = [json.loads(x)["why"] for x in (tmp_path / "out/rejected.jsonl").open()]
    assert "not a readable image" in whys[0]
    assert whys[1:] == ["has no image beside it", "has no text beside it"]
    kept = {}
    for file in sorted((tmp_path / "out" / "shards").iterdir()):
        with tarfile.open(file) as tar:
            for member in tar:
                kept[f"{int(file.name[:5])}.tar/{member.name}"] = tar.extractfile(member).read()
    wanted = {}
    for key, row in rows.items():
        if row["kept"]:
            shard, number = int(key[0]), int(key[-1])
            wanted[f"{key}.png"] = _png(5 * shard + number)
            wanted[f"{key}.txt"] = TEXTS[number].encode()
            wanted[f"{key}.json"] = b'{"url": "a"}'
    assert kept == wanted and report.samples == len(wanted) / 3 and 0 < report.samples < 15


def test_parts_of_tars_have_whole_tars_and_other_numbers_of_parts_pieces(clip, shards, tmp_path):
    opened = []

    class Noted(type(open_pairs(shards))):
        def list_tar(self, group, tar):
            opened.append(group)
            return super().list_tar(group, tar)

    source = open_pairs(shards)
    source.__class__ = Noted
    _score(clip, source, tmp_path / "a", part=Part(1, 2))
    assert opened == [1]
    _score(clip, source, tmp_path / "a", part=Part(0, 2))
    opened.clear()
    for number in range(5):  # more parts than tars
        _score(clip, open_pairs(shards), tmp_path / "b", part=Part(number, 5))
    _score(clip, open_pairs(shards), tmp_path / "one")
    assert _rows(tmp_path / "a") == _rows(tmp_path / "b") == _rows(tmp_path / "one")
    assert len(_rows(tmp_path / "one")) == 15


def test_the_result_is_the_same_on_any_number_of_devices(clip, shards, tmp_path):
    for count in (1, 3):
        task = ScoreTask(clip, batch_size=2, devices=jax.devices()[:count])
        run_bulk(task, open_pairs(shards), tmp_path / str(count), {}, piece_items=5, quiet=True)
    assert _rows(tmp_path / "1") == _rows(tmp_path / "3")


def test_pairs_of_folders(clip, shards, tmp_path):
    folder = tmp_path / "beside"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.png").write_bytes(_png(number))
        (folder / f"{number}.txt").write_text(text + "\n")
    table = tmp_path / "table"
    table.mkdir()
    lines = [f"{n}.png,{text}" for n, text in enumerate(TEXTS)] + ["../0.png,x", "no.png,y"]
    (table / "list.csv").write_text("image,caption\n" + "\n".join(lines))
    for number in range(5):
        (table / f"{number}.png").write_bytes(_png(number))
    expected = [score for key, score in _expected(clip, shards).items() if key[0] == "0"]
    _score(clip, open_pairs(folder), tmp_path / "a", least=-1)
    report = _score(clip, open_pairs(table), tmp_path / "b", least=-1)
    for out in ("a", "b"):
        assert [row["score"] for row in _rows(tmp_path / out)] == pytest.approx(expected, abs=1e-5)
    assert report.reasons == {"path leaves the folder": 1, "No such file or directory": 1}
    with tarfile.open(tmp_path / "b" / "shards" / "00000-00000.tar") as tar:
        assert tar.extractfile("00000-000000001.png").read() == _png(1)
        assert tar.extractfile("00000-000000001.txt").read() == TEXTS[1].encode()


def test_a_damaged_tar_is_one_rejected_item(clip, shards, tmp_path):
    whole = (shards / "1.tar").read_bytes()
    (shards / "1.tar").write_bytes(whole[: len(whole) // 2] + b"x" * 3000)
    report = _score(clip, open_pairs(shards), tmp_path / "out")
    assert report.done < 15 and any("tar" in why for why in report.reasons)
    assert report.read == report.done + report.rejected + report.ignored
    keys = collections.Counter(row["key"].partition("/")[0] for row in _rows(tmp_path / "out"))
    assert keys["0.tar"] == keys["2.tar"] == 5 > keys["1.tar"] > 0


def test_images_of_each_kind_of_source_are_listed(shards, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(_png(0))
    (tmp_path / "photos" / "notes.md").write_text("x")
    with open_images(tmp_path / "photos").open(0) as listing:
        assert [item.key for item in listing.items(range(1))] == ["a.png"]
        assert listing.ignored == 1
    source = open_images(shards)
    assert source.groups == 3
    with source.open(1) as listing:
        assert listing.count == 5
        item = listing.items(range(2, 3))[0]
        assert item.key == "1.tar/2.png" and item.read().image == _png(7)


def test_the_command(model, shards, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["score", str(shards), f"--model={model}", "--min=-1", f"--out={out}"]
    assert main(line) == 7
    printed = capsys.readouterr()
    assert "read 19 = 15 done + 3 rejected + 1 ignored; 15 rows, 15 samples" in printed.out
    assert "3 of 19 items were rejected" in printed.err
    assert main(line) == 7  # nothing is computed again
    assert "; 0 items now" in capsys.readouterr().out
