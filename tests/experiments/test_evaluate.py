"""The command `python -m experiments.evaluate`, at tiny size."""

import json
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.evaluate import main
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.image_features import FeatureExtractor
from experiments.evaluation.report.system_results import (
    SystemResults,
    compare,
    published,
    published_numbers,
)
from experiments.evaluation.report.tables import numbers
from experiments.evaluation.sets import RECORDS
from experiments.evaluation.sets.table import REPORT
from experiments.evaluation.tasks import options

COLOURS = {"зелёный": (20, 200, 30), "красный": (210, 30, 20), "синий": (20, 30, 220)}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Pictures of three colours, without a validation split."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sets") / "mine"
    for split, count in (("train", 6), ("test", 5)):
        for label, colour in COLOURS.items():
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.array(colour) + rng.integers(-20, 21, (24, 24, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / split / label / f"{i}.png")
    return folder


@pytest.fixture
def command(ruclip, tmp_path, data_directory, monkeypatch):
    """Arguments of a task. On one device: test_encoder.py has eight, which take longer."""
    one = jax.local_devices()[:1]
    monkeypatch.setattr(options.jax, "local_devices", lambda: one)

    def arguments(task, *more):
        return [
            task, f"--model=tiny={ruclip}", f"--out={tmp_path / 'out'}", "--batch-size=4",
            f"--cache={tmp_path / 'cache'}", f"--data-dir={data_directory}", *more,
        ]  # fmt: skip

    return arguments


def test_a_set_without_a_test_split_names_the_one_that_it_has(command, mine, tmp_path, capsys):
    other = tmp_path / "other"
    for old, new in (("train", "train"), ("test", "val")):
        shutil.copytree(mine / old, other / new)
    assert main(command("zero-shot", f"--sets={other}")) == 2
    line = capsys.readouterr().err
    assert line.endswith("has no split 'test'; found train, val; --test-split=val measures on it\n")
    assert main(command("zero-shot", f"--sets={other}", "--test-split=val")) == 0
    shutil.rmtree(other / "val")
    assert main(command("zero-shot", f"--sets={other}")) == 2
    assert capsys.readouterr().err.endswith("has no split 'test'; found train\n")


def test_a_prepared_set_without_a_test_split_too(command, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "prepared"
    source.mkdir()
    lines = ["image,caption"]
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(source / f"{i}.png")
        lines.append(f"{i}.png,оттенок {i}")
    (source / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    prepare(SourceConfig(str(source)), out, WriteConfig(validation=0.5))
    assert main(command("retrieval", f"--sets={out}")) == 2
    line = capsys.readouterr().err
    assert line.endswith("has no split 'test'; expected one of train, validation; "
                         "--test-split=validation measures on it\n")  # fmt: skip
    assert main(command("retrieval", f"--sets={out}", "--test-split=validation")) == 0


def test_report(command, mine, tmp_path, monkeypatch, capsys):
    asked = command(
        "report", f"--sets={mine},cifar10", "--shots=1", "--draws=2",
        "--retrieval=digits_ru:test",
    )  # fmt: skip
    assert main(asked) == 0
    assert "missing: cifar10: not in" in capsys.readouterr().err
    out = tmp_path / "out"
    page, tables = ((out / f"report.{kind}").read_text("utf-8") for kind in ("html", "md"))
    assert set(re.findall(r'src="([^"]{5})', page)) == {"data:"}
    assert not re.search(r"<script|<link|@import", page)
    images = {"zero-shot.png", "few-shot.png", "correlation.png", "similarity-0.png"}
    assert images <= {file.name for file in out.iterdir()}
    (folder,) = out.glob("tiny-*")
    zero_shot = json.loads((folder / "zero-shot" / "mine.json").read_text())
    probe = json.loads((folder / "linear-probe-pre" / "mine.json").read_text())
    assert f"| mine | accuracy | {zero_shot['value']:.3f} |" in tables
    assert "| CIFAR10 | accuracy | not on disk |" in tables
    assert "tfds.builder('cifar10:3.0.2'" in tables and "0.818 / 0.917" in tables
    assert zero_shot["prompts"]["by_class"]["красный"][0] == "красный"
    assert zero_shot["examples"] == 15 and zero_shot["system"]["sha256"]
    (one,) = probe["shots"]
    assert one["mean"] == 1.0 and one["draws"] == 2  # colours can be told apart
    for run in one["runs"]:
        assert len(run["train"]) == len(run["validation"]) == 3
        assert not set(run["train"]) & set(run["validation"])
        assert run["same_pixels_in_test"] == 0
    assert one["runs"][0]["train"] != one["runs"][1]["train"]
    retrieval = json.loads((folder / "retrieval" / "digits_ru-test.json").read_text())
    assert retrieval["pictures"] == 167 and retrieval["different_captions"] == 60
    assert 0 <= retrieval["image_to_text"]["recall@1"] <= retrieval["image_to_text"]["recall@10"]

    # Fields that people's programs read, and by which earlier versions' results are found again.
    shared = {
        *("task", "system", "set", "title", "version", "split", "source_sha256"),
        *("preprocessing", "ignored", "images", "unreadable", "made_with"),
    }
    measured = "metric value examples accuracy top5 mean_per_class calibration per_class confused"
    lacking = {f"classes_without_{part}" for part in ("training", "validation", "test")}
    asked = "train validation features metric seed asked_shots asked_draws examples shots"
    ways = "pictures captions different_captions image_to_text text_to_image"
    assert set(zero_shot) == {*shared, *measured.split(), "prompts", "classes_without_test"}
    assert set(probe) == {*shared, *asked.split(), *lacking}
    assert set(retrieval) == {*shared, *ways.split()}

    # What is there is not computed again; what is not, is.
    monkeypatch.setattr(FeatureExtractor, "_encode", lambda *_: pytest.fail("encoded again"))
    (folder / "linear-probe-pre" / "mine.json").write_text('{"task": "linear-pro')
    assert main(command("linear-probe", f"--sets={mine}", "--shots=1", "--draws=2")) == 0
    assert json.loads((folder / "linear-probe-pre" / "mine.json").read_text()) == probe
    capsys.readouterr()
    monkeypatch.setattr(ClipModel, "class_latents", lambda *_: pytest.fail("compared again"))
    assert main(command("zero-shot", f"--sets={mine}")) == 0
    printed = capsys.readouterr().out
    assert f"tiny  mine: accuracy {zero_shot['value']:.4f}, top-5 1.0000" in printed
    assert main(command("figure")) == 0
    assert "of 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("zero-shot", ["--sets=nothing"], "data set 'nothing' is unknown"),
        ("zero-shot", ["--sets=cifar10"], "no set is on disk; cifar10: not in"),
        ("zero-shot", ["--sets=,"], "--sets is empty"),
        ("zero-shot", ["--batch-size=0", "--sets=cifar10"], "batch size is 0"),
        ("linear-probe", ["--shots=few", "--sets=digits_ru"], "--shots has 'few'"),
        ("report", ["--parts=speed"], "--parts has 'speed'"),
        ("report", ["--retrieval=digits_ru", "--sets=cifar10", "--parts=figure"], "SET:SPLIT"),
        ("figure", ["--translated=nowhere"], "expected FOLDER=FILE"),
    ],
)
def test_mistakes_are_one_line(command, task, more, message, capsys):
    assert main(command(task, *more)) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("error: ") and message in told[-1]


def test_a_model_is_needed(capsys):
    assert main(["figure"]) == 2
    assert "--model=FOLDER is needed" in capsys.readouterr().err


def test_published_numbers_are_of_known_systems_and_sets():
    systems = published()["systems"]
    assert len(systems) == 9
    for name, known in systems.items():
        assert set(known) == {"title", "zero-shot", "linear-probe"}
        lacking = {"imagenet"} if name == "ruclip-small" else set()
        assert set(known["zero-shot"]) == set(REPORT) - lacking
        without = set(REPORT) - {"imagenet", "oxford_flowers102"}
        probed = "small" not in name and "opus" not in name
        assert set(known["linear-probe"]) == (without if probed else set())
        assert all(0 < value < 1 for task in ("zero-shot", "linear-probe")
                   for value in known[task].values())  # fmt: skip
    openai = SimpleNamespace(preset="clip-vit-base-patch16", translations=None)
    assert published_numbers(openai, "zero-shot")["imagenet"] == 0.638
    translated = SimpleNamespace(preset="clip-vit-base-patch16", translations="some")
    assert published_numbers(translated, "zero-shot")["imagenet"] == 0.392
    assert published_numbers(SimpleNamespace(preset=None, translations=None), "zero-shot") == {}


def test_differences_are_marked():
    assert compare(0.5, None) == "0.500"
    assert compare(0.5, 0.52) == "0.500 (0.520, -0.020)"
    assert compare(0.5, 0.44) == "0.500 (0.440, +0.060 ▲)"
    assert compare(0.5, 0.56) == "0.500 (0.560, -0.060 ▼)"


def test_averages_with_and_without_three_sets():
    names = ["cifar10", "dtd", "oxford_pets", "mnist"]
    found = {"cifar10": 0.9, "dtd": 0.5, "oxford_pets": 0.1}
    known = {"cifar10": 0.8, "dtd": 0.4, "oxford_pets": 0.6, "mnist": 0.4}
    one = SystemResults("system", {}, {"zero-shot": known}, missing={"mnist": "fetch it"})
    table = numbers("Zero-shot", [one], names, "zero-shot", [found]).content
    assert [row[2] for row in table.rows] == [
        "0.900 (0.800, +0.100 ▲)", "0.500 (0.400, +0.100 ▲)", "0.100 (0.600, -0.500 ▼)",
        "not on disk", "0.500 (0.600, -0.100 ▼) of 3", "0.700 (0.600, +0.100 ▲) of 2",
    ]  # fmt: skip
    assert table.rows[2][1] == RECORDS["oxford_pets"].metric.replace("_", " ")
