"""Images that cannot be read, classes that a split lacks, shots that are not there: all said."""

import dataclasses
import json
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError
from experiments.config.extensions import NO_EXTENSIONS
from experiments.evaluate import main
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.clip_model import ClipModel, open_clip
from experiments.evaluation.during_training import evaluators, set_evaluators
from experiments.evaluation.during_training.sharded_model import as_sharded
from experiments.evaluation.image_features import FeatureExtractor
from experiments.evaluation.methods.retrieval import number, retrieve_both
from experiments.evaluation.remarks import LogOnce, remarks, shots_found
from experiments.evaluation.report.charts import shot_label
from experiments.evaluation.report.system_results import SystemResults
from experiments.evaluation.report.tables import all_remarks, numbers
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun
from experiments.evaluation.sets import open_captioned, open_set
from experiments.evaluation.sets.question_set import QuestionSet
from experiments.evaluation.tasks import (
    captions,
    drawing,
    image_tokens,
    options,
    perplexity,
    questions,
    retrieval,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning"),
    pytest.mark.filterwarnings("ignore::experiments.evaluation.metrics.frechet.FewImagesWarning"),
]
COLOURS = {"зелёный": (20, 200, 30), "красный": (210, 30, 20), "синий": (20, 30, 220)}


@pytest.fixture
def mine(tmp_path):
    """Pictures of three colours. Red has 3 for training, blue has none, a test image is broken."""
    rng = np.random.default_rng(0)
    counts = {"train": (6, 3, 0), "validation": (2, 1, 1), "test": (4, 4, 2)}
    for split, of_classes in counts.items():
        for (label, colour), count in zip(COLOURS.items(), of_classes, strict=True):
            folder = tmp_path / "mine" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.array(colour) + rng.integers(-20, 21, (24, 24, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "mine" / "test" / "красный" / "1.png").write_bytes(b"not an image")
    return tmp_path / "mine"


@pytest.fixture
def command(ruclip, tmp_path, monkeypatch):
    one = jax.local_devices()[:1]
    monkeypatch.setattr(options.jax, "local_devices", lambda: one)

    def arguments(task, *more):
        return [
            task, f"--model=tiny={ruclip}", f"--out={tmp_path / 'out'}", "--batch-size=4",
            f"--cache={tmp_path / 'cache'}", *more,
        ]  # fmt: skip

    return arguments


def result_of(tmp_path, task):
    return json.loads(next((tmp_path / "out").glob(f"tiny-*/{task}/mine.json")).read_text("utf-8"))


def test_one_unreadable_image_does_not_end_zero_shot(command, mine, tmp_path, capsys, monkeypatch):
    asked = command("zero-shot", f"--sets={mine}")
    assert main(asked) == 7
    printed = capsys.readouterr()
    assert "9 images, 1 of 10 images left out" in printed.out
    assert "left out: mine test красный/1.png: image bytes: not a readable image" in printed.err
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: 1 image could not be read and did not take part, mine test крас")
    found = result_of(tmp_path, "zero-shot")
    assert (found["examples"], found["images"]) == (9, 10)
    (row,) = found["unreadable"]
    assert (row["split"], row["key"]) == ("test", "красный/1.png") and "not a read" in row["why"]
    assert {row["class"]: row["examples"] for row in found["per_class"]}["красный"] == 3
    # The same command, from what is kept: the same words, and the same status.
    with monkeypatch.context() as patch:
        patch.setattr(ClipModel, "set_features", lambda *_: pytest.fail("encoded again"))
        assert main(asked) == 7
    assert capsys.readouterr() == printed
    # The features that are kept know it too.
    next((tmp_path / "out").glob("tiny-*/zero-shot/mine.json")).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "_encode", lambda *_: pytest.fail("encoded again"))
        assert main(asked) == 7
    assert result_of(tmp_path, "zero-shot") == found and capsys.readouterr() == printed
    # An image that was mended takes part again.
    good = (mine / "test" / "красный" / "0.png").read_bytes()
    (mine / "test" / "красный" / "1.png").write_bytes(good)
    assert main(asked) == 0
    assert "10 images\n" in capsys.readouterr().out
    assert result_of(tmp_path, "zero-shot")["unreadable"] == []


def test_features_of_others_stay_as_they_are(ruclip, mine, tmp_path):
    model = open_clip(ruclip, batch_size=4)
    broken = model.set_features(open_set(str(mine)))
    (place,) = broken.unreadable
    assert np.isnan(broken.values[place]).all() and broken.readable.tolist() == [
        i for i in range(10) if i != place
    ]  # fmt: skip
    Image.new("RGB", (24, 24)).save(mine / "test" / "красный" / "1.png")
    whole = model.set_features(open_set(str(mine))).values
    np.testing.assert_array_equal(whole[broken.readable], broken.values[broken.readable])


def test_a_missing_file_is_left_out(ruclip, mine):
    opened = open_set(str(mine))
    (mine / "test" / "зелёный" / "0.png").unlink()
    features = open_clip(ruclip, batch_size=4).set_features(opened)
    assert set(features.unreadable) == {0, 5} and "No such file" in features.unreadable[0]


def test_a_set_without_a_readable_image_is_an_error(command, mine, capsys):
    for file in (mine / "test").glob("*/*.png"):
        file.write_bytes(b"")
    assert main(command("zero-shot", f"--sets={mine}")) == 2
    assert "none of the 10 images of the split can be read" in capsys.readouterr().err


def test_an_earlier_releases_result_is_not_reused(command, mine, tmp_path, capsys):
    asked = command("zero-shot", f"--sets={mine}")
    main(asked)
    file = next((tmp_path / "out").glob("tiny-*/zero-shot/mine.json"))
    earlier = {**result_of(tmp_path, "zero-shot"), "value": 0.5}
    del earlier["preprocessing"]
    file.write_text(json.dumps(earlier))
    main(asked)
    assert result_of(tmp_path, "zero-shot")["value"] != 0.5


def test_a_probe_says_what_is_not_there(command, mine, tmp_path, capsys):
    asked = command("linear-probe", f"--sets={mine}", "--shots=1,16,all", "--draws=1")
    assert main(asked) == 7
    printed = capsys.readouterr().out
    assert "images a class 16 (0 to 6 found; 4 for validation, 1 to 2 found): accuracy" in printed
    assert "1 class (синий) without training images, which are never predicted" in printed
    fewer = "3 classes (зелёный 6, красный 3, синий 0) with fewer training images than the 16"
    assert fewer in printed
    found = result_of(tmp_path, "linear-probe-pre")
    assert found["classes_without_training"] == ["синий"]
    assert found["classes_without_validation"] == found["classes_without_test"] == []
    assert (found["examples"], found["images"]) == (9, 23)
    one, sixteen, every = found["shots"]
    assert one["found"] == {"fewest": 0, "most": 1, "classes_with_fewer": {"синий": 0}}
    assert sixteen["found"]["classes_with_fewer"] == {"зелёный": 6, "красный": 3, "синий": 0}
    assert sixteen["validation_shots"] == 4 and sixteen["validation_found"]["most"] == 2
    assert every["found"] == {"fewest": 0, "most": 6, "classes_with_fewer": {}}
    assert shots_found(every) == "all (0 to 6 found)"


def test_an_unreadable_training_image_is_not_drawn(command, mine, tmp_path):
    (mine / "train" / "красный" / "2.png").write_bytes(b"GIF89a")
    assert main(command("linear-probe", f"--sets={mine}", "--shots=16", "--draws=1")) == 7
    (row,) = result_of(tmp_path, "linear-probe-pre")["shots"]
    assert row["found"]["classes_with_fewer"]["красный"] == 2
    assert "train/красный/2.png" not in row["runs"][0]["train"] and row["runs"][0]["learned"] == 8


def test_splits_of_other_classes_are_refused(command, mine, capsys):
    for label in ("зелёный", "красный"):
        for file in (mine / "test" / label).iterdir():
            file.unlink()
    assert main(command("linear-probe", f"--sets={mine}", "--shots=1")) == 2
    assert "no class of split 'test' has images in 'train'" in capsys.readouterr().err


def test_zero_shot_says_which_classes_it_did_not_measure(command, mine, tmp_path, capsys):
    for file in (mine / "test" / "синий").iterdir():
        file.unlink()
    (mine / "test" / "__MACOSX").mkdir()
    assert main(command("zero-shot", f"--sets={mine}")) == 7
    printed = capsys.readouterr()
    assert "1 class (синий) without test images, on which nothing is measured" in printed.out
    assert printed.err.count("mine: ignored: 1 hidden or system folders: test/__MACOSX") == 1
    found = result_of(tmp_path, "zero-shot")
    assert found["classes_without_test"] == ["синий"]
    assert found["ignored"][0] == "1 hidden or system folders: test/__MACOSX"
    assert found["ignored"][1] == "2 folders without images: test/синий, train/синий"


def test_the_report_says_it_too(command, mine, tmp_path, capsys):
    asked = command(
        "report", f"--sets={mine}", "--shots=16", "--draws=1", "--parts=zero-shot,linear-probe"
    )
    assert main(asked) == 7
    tables = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "## Remarks" in tables and "1 of 10 images cannot be read and are left out" in tables
    assert "1 class (синий) without training images" in tables
    assert f"| mine | accuracy | {result_of(tmp_path, 'zero-shot')['value']:.3f} * |" in tables
    row = result_of(tmp_path, "linear-probe-pre")["shots"][0]
    assert shot_label([row]) == "16\n0–6"
    assert shot_label([{**row, "found": {**row["found"], "classes_with_fewer": {}}}]) == "16"


def test_whole_results_have_no_remarks():
    found = {"fewest": 16, "most": 16, "classes_with_fewer": {}}
    row = {"shots": 16, "found": found, "validation_shots": 4, "validation_found": found}
    whole = {"images": 9, "unreadable": [], "ignored": [], "shots": [row], "value": 0.5}
    assert remarks(whole) == [] and shots_found(row) == "16"
    one = SystemResults("s", {}, {"zero-shot": {}}, zero_shot={"mine": whole})
    assert all_remarks([one]) == []
    assert numbers("Z", [one], ["mine"], "zero-shot", [{"mine": 0.5}]).content.rows[0][2] == "0.500"


def broken_at(examples, *places):
    """A set of which these images are no images."""
    pictures = [b"broken" if i in places else examples.image(i) for i in range(7)]
    return dataclasses.replace(examples.at(range(7)), images=pictures)


@pytest.fixture
def run(small_rudolph, tmp_path):
    model = RudolphModel("tiny", small_rudolph, batch_size=4)
    return EvalRun(model, first=6, out=tmp_path, cache=ArrayCache(tmp_path / "c"))


def test_unreadable_images_do_not_end_rudolphs_tasks(run, ruclip, data_directory, monkeypatch):
    digits = open_captioned("digits_ru", "test", data_directory)
    labelled = open_set("digits_ru", "test", data_directory)
    broken, others, clip = broken_at(digits, 1), [0, 2, 3, 4, 5], open_clip(ruclip)
    alone = dataclasses.replace(run, out=None, cache=None)
    asked = QuestionSet(
        "q", "test", ("что?",) * 7, (("семь",),) * 7, ("",) * 7, digits.images[:7], True,
        tuple(f"test[{i}]" for i in range(7)),
    )  # fmt: skip
    measured = [
        (captions.measure_set, digits, {}, ("captions", "bleu")),
        (image_tokens.measure_set, digits, {}, ("image_loss", "right_text_loss")),
        (perplexity.measure_set, labelled, {"template": "цифра {}"}, ("value", "per_class")),
        (drawing.measure_set, digits, {"clip": clip}, ("ruclip_score", "frechet")),
        (questions.measure_set, asked, {}, ("answers", "f1")),
    ]
    for measure, examples, more, fields in measured:
        broken = broken_at(examples, 1)
        found = measure(run, broken, **more)
        assert (found["examples"], found["images"]) == (5, 6), measure
        (row,) = found["unreadable"]
        assert (row["split"], row["key"]) == ("test", examples.keys[1])
        expected = measure(alone, examples.at(others), **more)
        for field in fields:
            assert found[field] == expected[field], (measure, field)
        # From what is kept, until the image is mended.
        with monkeypatch.context() as patch:
            patch.setattr(EvalRun, "cached_map", lambda *_: pytest.fail("measured again"))
            assert measure(run, broken, **more) == found
        mended = dataclasses.replace(broken, images=examples.images[:7])
        mended.__dict__["source_hash"] = broken.source_hash  # as where it is none of the hashed
        assert measure(run, mended, **more)["examples"] == 6


def test_nothing_readable_is_an_error_of_rudolphs_tasks(run, data_directory):
    digits = open_captioned("digits_ru", "test", data_directory)
    with pytest.raises(InputError, match="none of the 6 images of the split can be read"):
        image_tokens.measure_set(run, broken_at(digits, *range(7)))


def test_retrieval_without_an_unreadable_picture(ruclip, data_directory, monkeypatch):
    digits = broken_at(open_captioned("digits_ru", "test", data_directory), 2)
    monkeypatch.setattr(retrieval, "open_captioned", lambda *_: digits)
    model = open_clip(ruclip, batch_size=4)
    found = retrieval.measure_set(EvalRun(model), "digits_ru", "test")
    assert (found["pictures"], found["images"]) == (6, 7)
    assert [row["key"] for row in found["unreadable"]] == [digits.keys[2]]
    readable = digits.at([0, 1, 3, 4, 5, 6])
    names = number(readable.captions)
    expected = retrieve_both(
        model.set_features(readable).values, model.class_latents([[t] for t in names.texts]), names
    )
    assert found["image_to_text"] == expected.recalls()["image_to_text"]
    assert found["captions"] == sum(map(len, readable.captions))


class Rows(list):
    """A split of a training set."""

    name, has_images = "validation", True

    def __init__(self, rows, features):
        super().__init__(rows)
        self.features = features


def test_evaluators_of_a_run_go_on(ruclip, data_directory, capsys, monkeypatch):
    labelled = open_set("digits_ru", "test", data_directory)
    clip, places = as_sharded(open_clip(ruclip).clip), range(12)
    label = SimpleNamespace(names=list(labelled.class_names), num_classes=10)
    rows = [
        {"image": b"" if i == 3 else labelled.image(i), "label": int(labelled.labels[i])}
        for i in places
    ]
    config = SimpleNamespace(data=SimpleNamespace(split="train"), extensions=NO_EXTENSIONS)
    split = evaluators.ReadableSplit(Rows(rows, {"label": label}), config, LogOnce("zero-shot:v"))
    whole = Rows([row for i, row in enumerate(rows) if i != 3], {"label": label})
    found = evaluators._measure(evaluators.zero_shot_accuracy, split, clip)
    assert found == evaluators.zero_shot_accuracy(None, whole, clip)
    assert evaluators._measure(evaluators.zero_shot_accuracy, split, clip) == found
    assert capsys.readouterr().err.count("1 of 12 images cannot be read and are left out") == 1
    nothing = evaluators.ReadableSplit(
        Rows([{"image": b"", "label": 0}], {"label": label}), config, LogOnce("zero-shot:v")
    )
    assert evaluators._measure(evaluators.zero_shot_accuracy, nothing, clip) == {}
    # The training split of a probe: one image broken, and no example of all classes but two.
    monkeypatch.setattr(evaluators, "open_split", lambda data, name, own: Rows(rows[:4], {}))
    assert "accuracy" in evaluators._measure(evaluators.probe_accuracy, split, clip)
    evaluators._measure(evaluators.probe_accuracy, split, clip)
    told = capsys.readouterr().err
    assert told.count("1 of 4 images cannot be read") == told.count("without training images") == 1


def test_evaluation_sets_of_a_run_go_on(ruclip, data_directory, capsys, monkeypatch):
    labelled = open_set("digits_ru", "test", data_directory)
    clip = open_clip(ruclip).clip
    config = SimpleNamespace(data=SimpleNamespace(directory=data_directory), evaluation_sets="")
    found = []
    for broken in ([], [1], range(7)):
        given = broken_at(labelled, *broken)
        monkeypatch.setattr(set_evaluators, "open_set", lambda *_, given=given: given)
        for task in ("zero-shot", "linear-probe"):
            evaluate = set_evaluators.set_evaluator(config, f"{task}:digits_ru")
            found.append(evaluate(clip))
            assert evaluate(clip) == found[-1]
        told = capsys.readouterr().err
        assert told.count("1 of 7 images cannot be read") == 2 * (len(broken) == 1)
        assert told.count("none of the 7 images") == 2 * (len(broken) == 7)
    assert [set(values) for values in found] == [{"accuracy"}] * 4 + [set()] * 2


@pytest.mark.filterwarnings("default")
def test_names_that_print_badly(command, mine, capsys):
    """Invisible characters are a line, once; a folder that is no UTF-8 prints and is measured."""
    (mine / "train" / "зелёный").rename(mine / "train" / "зелё\u00adный")
    (mine / "test" / "синий").rename(mine / "test" / os.fsdecode(b"\xffblue"))
    assert main(command("linear-probe", f"--sets={mine}", "--shots=1", "--draws=1")) == 7
    printed = capsys.readouterr()
    warned = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1 and "mine: label" in warned[0] and "SOFT HYPHEN" in warned[0]
    assert "\\udcffblue" in printed.out
    assert main(command("zero-shot", f"--sets={mine}")) == 2
    assert r"class name '\udcffblue' is not Unicode" in capsys.readouterr().err
