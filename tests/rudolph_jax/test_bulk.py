"""Bulk work of the shell: rows are those of the small forms; a killed process loses nothing."""

import collections
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax.__main__ import main as clip_main
from clip_jax.bulk.prompts import PromptFile
from clip_jax.bulk.run import run_bulk
from experiments.data.digits_ru import digits, encode_png
from rudolph_jax import tasks
from rudolph_jax.__main__ import main
from rudolph_jax.bulk.draw import DrawConfig, DrawTask
from rudolph_jax.generation import GenerationConfig
from rudolph_jax.sampling import SamplingParams

ROOT = Path(__file__).parents[2]
DIGITS = 60


@pytest.fixture(autouse=True)
def two_devices(monkeypatch):
    """Uses two devices of the eight, for each of which every program is compiled."""
    found = jax.local_devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda: found)


@pytest.fixture(scope="module")
def models(folders):
    return [f"--model={folders / 'rudolph'}", f"--vqgan={folders / 'vqgan'}"]


@pytest.fixture(scope="module")
def rudolph(folders):
    return rudolph_jax.load(folders / "rudolph", folders / "vqgan")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Tars of digits, ten a tar, and a damaged image in the last."""
    folder = tmp_path_factory.mktemp("digits")
    images, _ = digits()
    for shard in range(DIGITS // 10):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(10 * shard, 10 * shard + 10):
                _add(tar, f"{number:03d}.png", encode_png(images[number]).getvalue())
            if shard == DIGITS // 10 - 1:
                _add(tar, "broken.png", b"no image")
                _add(tar, "notes.md", b"x")
    return folder


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _rows(out):
    files = sorted((out / "rows").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def _rounded(rows):
    """Rows with their floats rounded, of programs that another process has compiled."""
    return [
        {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def test_a_drawing_is_that_of_its_text_with_its_seed(rudolph, models, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    texts = ["лес", "дом у реки", "кот"]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    out = tmp_path / "out"
    line = ["draw", f"--prompts={prompts}", f"--out={out}", "--count=2", "--candidates=3",
            "--batch-size=6", "--seed=5", *models]  # fmt: skip
    assert main(line) == 0
    rows = _rows(out)
    assert [(row["key"], row["rank"]) for row in rows] == [(k, r) for k in "123" for r in (0, 1)]
    assert [row["text"] for row in rows[::2]] == texts
    for row in rows:
        codes = tasks.generate_codebooks(rudolph, row["text"], 3, seed=row["seed"], quiet=True)
        order, scores = tasks.rank_images(rudolph, row["text"], codes)
        assert row["candidate"] == order[row["rank"]]
        assert row["score"] == pytest.approx(scores["score"][row["candidate"]], abs=1e-4)
        (expected,) = rudolph.decode_images(codes[[row["candidate"]]])
        with Image.open(io.BytesIO(row["image"])) as found:
            assert found.text["prompt"] == row["text"] and found.text["seed"] == str(row["seed"])
            # Decoded alone, a value between two levels may round to the other one.
            difference = np.asarray(found, int) - np.asarray(expected, int)
            assert np.abs(difference).max() <= 1


def test_drawings_as_shards_with_guidance_and_ruclip(models, goldens, tmp_path):
    converters.convert("ruclip", goldens / "ruclip", tmp_path / "ruclip")
    (tmp_path / "prompts.txt").write_text("лес\n\nдом\n")
    out = tmp_path / "out"
    line = ["draw", f"--prompts={tmp_path / 'prompts.txt'}", f"--out={out}", "--count=1",
            "--candidates=2", "--guidance=0.2", f"--ruclip={tmp_path / 'ruclip'}",
            "--format=webdataset", *models]  # fmt: skip
    assert main(line) == 0 and not (out / "rows").exists()
    with tarfile.open(out / "shards" / "00000-00000.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    assert sorted(files) == [
        f"00000-00000000{n}.{kind}" for n in (0, 1) for kind in ("json", "png", "txt")
    ]  # fmt: skip
    assert files["00000-000000001.txt"].decode() == "дом"
    about = json.loads(files["00000-000000001.json"])
    assert about["key"] == "3" and -1 <= about["cosine"] <= 1


def test_drawings_are_the_same_on_any_number_of_devices(rudolph, tmp_path):
    (tmp_path / "prompts.txt").write_text("лес\nдом\nкот\nпоезд\nмяч\n")
    generation = GenerationConfig(SamplingParams(), 1, 2, True)
    for count in (1, 2):
        task = DrawTask(rudolph, DrawConfig(generation), devices=jax.devices()[:count])
        source, out = PromptFile(tmp_path / "prompts.txt"), tmp_path / str(count)
        run_bulk(task, source, out, {}, piece_items=4, quiet=True)
    assert _rows(tmp_path / "1") == _rows(tmp_path / "2") and len(_rows(tmp_path / "1")) == 5


def test_captions_and_classes_are_those_of_the_small_forms(rudolph, models, photos, tmp_path):
    source, out = photos / "0.tar", tmp_path / "out"
    few = ["--candidates=6", "--count=2", "--template=лес", "--top-k=2"]
    assert main(["caption", str(source), f"--out={out}", "--batch-size=12", *few, *models]) == 0
    found = collections.defaultdict(list)
    for row in _rows(out):
        found[row["key"]].append(row)
    images, _ = digits()
    assert len({row["count"] for row in _rows(out)}) > 1  # by which scores are divided
    assert list(found) == [f"0.tar/{number:03d}.png" for number in range(10)]
    for number, rows in enumerate(found.values()):
        expected = tasks.image_captioning(
            rudolph, images[number], 2, generations_num=6, r_template="лес", top_k=2,
            seed=rows[0]["seed"], quiet=True,
        )  # fmt: skip
        assert [(row["caption"], row["count"]) for row in rows] == [
            (each["text"], each["count"]) for each in expected
        ]
        for row, each in zip(rows, expected, strict=True):
            assert row["score"] == pytest.approx(each["score"], abs=1e-3)
    for left in ("", "это {}"):
        out = tmp_path / f"classes{len(left)}"
        line = ["classify", str(source), "--classes=ноль,один,два", f"--out={out}"]
        assert main([*line, f"--left-template={left}", *models]) == 0
        for row, image in zip(_rows(out), images[:3], strict=False):
            expected = tasks.zs_clf(rudolph, image, ["ноль", "один", "два"], l_template=left)
            assert row["class"] == expected["class"]
            np.testing.assert_allclose(row["scores"], expected["scores"], rtol=1e-4)


def test_captions_as_shards_are_pairs_that_score_reads(models, goldens, photos, tmp_path, capsys):
    converters.convert("ruclip", goldens / "ruclip", tmp_path / "ruclip")
    out = tmp_path / "out"
    line = ["caption", str(photos), f"--out={out}", "--candidates=1", "--count=1",
            "--temperature=0", "--format=webdataset", "--part=5/6", *models]  # fmt: skip
    assert main(line) == 7
    assert "read 12 = 10 done + 1 rejected + 1 ignored" in capsys.readouterr().out
    source = out / "shards" / "00005-00000.tar"
    with tarfile.open(source) as tar:
        images, _ = digits()
        data = tar.extractfile("00005-000000003.png").read()
        assert data == encode_png(images[53]).getvalue()
        text = tar.extractfile("00005-000000003.txt").read().decode()
    line = ["score", str(source), f"--model={tmp_path / 'ruclip'}", f"--out={tmp_path / 'scores'}"]
    assert clip_main(line) == 0
    assert _rows(tmp_path / "scores")[3]["text"] == text


def _start(command, *arguments):
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, "-m", *command, *map(str, arguments)], env=variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_one_killed_and_back(models, goldens, photos, tmp_path):
    """Digits are captioned and scored without parts: the processes share the pieces."""
    converters.convert("ruclip", goldens / "ruclip", tmp_path / "ruclip")
    out, whole = tmp_path / "captions", tmp_path / "whole"
    options = ["--candidates=2", "--count=1", "--batch-size=4", "--piece-items=3"]
    line = [photos, f"--out={out}", *options, *models]
    first, second = (_start(["rudolph_jax", "caption"], *line) for _ in range(2))
    while first.poll() is None and not (out / "done").exists():
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = _start(["rudolph_jax", "caption"], *line)
    ends = [process.communicate() for process in (second, third)]
    assert [process.returncode for process in (second, third)] == [7, 7], ends
    rows = _rows(out)
    keys = [f"{n // 10}.tar/{n:03d}.png" for n in range(DIGITS)]
    assert [row["key"] for row in rows] == keys  # none twice, none lost
    assert main(["caption", str(photos), f"--out={whole}", *options, *models]) == 7
    assert _rounded(rows) == _rounded(_rows(whole))
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 1

    scores = tmp_path / "scores"
    line = [photos, f"--model={tmp_path / 'ruclip'}", f"--captions={out}", f"--out={scores}"]
    for number in range(2):
        given = [*line, "--min=-1", "--piece-items=7", f"--part={number}/2"]
        assert clip_main(["score", *map(str, given)]) in (0, 7)
    _check_scores(scores, rows, tmp_path / "ruclip")


@pytest.mark.slow
def test_two_parts_of_scores_one_killed_and_back(models, goldens, photos, tmp_path):
    converters.convert("ruclip", goldens / "ruclip", tmp_path / "ruclip")
    out = tmp_path / "captions"
    options = ["--candidates=2", "--count=1", "--batch-size=4", "--piece-items=3"]
    assert main(["caption", str(photos), f"--out={out}", *options, *models]) == 7
    scores = tmp_path / "scores"
    line = [photos, f"--model={tmp_path / 'ruclip'}", f"--captions={out}", f"--out={scores}"]
    line += ["--min=-1", "--piece-items=7"]
    first, second = (
        _start(["clip_jax", "score"], *line, f"--part={number}/2") for number in range(2)
    )
    while first.poll() is None and not (scores / "done").exists():
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = _start(["clip_jax", "score"], *line, "--part=0/2")
    ends = [process.communicate() for process in (second, third)]
    assert {process.returncode for process in (second, third)} <= {0, 7}, ends
    _check_scores(scores, _rows(out), tmp_path / "ruclip")


def _check_scores(scores, rows, model):
    """Compares the scores of captions, and the filtered set, with a predictor's cosines."""
    found = _rows(scores)
    assert [(row["key"], row["text"]) for row in found] == [
        (row["key"], row["caption"]) for row in rows
    ]
    predictor = clip_jax.Predictor(clip_jax.load(model), quiet=True)
    images, _ = digits()
    latents = predictor.get_image_latents(list(images[:DIGITS]))
    texts = predictor.encode_texts([row["caption"] for row in rows])
    cosines = (latents * texts).sum(1) / np.linalg.norm(texts, axis=1)
    np.testing.assert_allclose([row["score"] for row in found], cosines, atol=1e-4)
    samples = collections.Counter()
    for file in sorted((scores / "shards").iterdir()):
        with tarfile.open(file) as tar:
            samples.update(member.name for member in tar)
    assert len(samples) == 2 * DIGITS and set(samples.values()) == {1}


def test_forms_that_do_not_go_together(models, folders, tmp_path, capsys):
    red = folders / "red.png"
    (tmp_path / "a.txt").write_text("лес\n")
    for line, said in (
        (["draw"], "give one, or --prompts=FILE"),
        (["draw", "лес", f"--prompts={tmp_path / 'a.txt'}"], "leave one out"),
        (["draw", "лес", "--part=0/2"], "--part is only with --prompts"),
        (["caption", red, f"--out={tmp_path / 'out'}"], "--out is only for one folder"),
        (["draw", f"--prompts={tmp_path / 'a.txt'}", "--part=2/2"], "expected K/N"),
        (["draw", f"--prompts={tmp_path / 'a.txt'}", "--column=x"], "expected a table"),
        (["draw", f"--prompts={tmp_path / 'no.txt'}"], "no.txt"),
        (["caption", tmp_path, f"--out={tmp_path / 'out'}"], "holds no image; 1 other"),
    ):
        assert main([*map(str, line), *models]) == 2
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()
