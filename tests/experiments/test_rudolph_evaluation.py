"""RUDOLPH's tasks of `python -m experiments.evaluate`, on an untrained model: right bookkeeping."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from clip_jax.errors import InputError
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.evaluate import main
from experiments.evaluation.array_cache import ArrayCache, cached_map
from experiments.evaluation.clip_model import open_clip
from experiments.evaluation.methods.perplexity import class_captions
from experiments.evaluation.methods.sequence_losses import sequence_losses
from experiments.evaluation.metrics import classification
from experiments.evaluation.metrics.captions import caption_metrics
from experiments.evaluation.metrics.frechet import FewImagesWarning, fit, frechet_distance
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun
from experiments.evaluation.sets import open_captioned, open_set
from experiments.evaluation.sets.question_set import open_questions
from experiments.evaluation.tasks import captions, drawing, image_tokens, perplexity, questions
from rudolph_jax import tasks
from rudolph_jax.sampling import SamplingParams

pytestmark = pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")


@pytest.fixture
def run(small_rudolph):
    """Five images, four at once."""
    return EvalRun(RudolphModel("tiny", small_rudolph, batch_size=4), first=5)


@pytest.fixture(scope="module")
def digits(data_directory):
    return open_captioned("digits_ru", "test", data_directory)


def test_classes_by_perplexity(run, data_directory, digits):
    pictures = open_set("digits_ru", "test", data_directory)
    result = perplexity.measure_set(run, pictures, "цифра {}")
    names = [f"цифра {name}" for name in pictures.class_names]
    assert result["captions"] == names and result["examples"] == 5
    found = tasks.class_perplexities(run.model.rudolph, digits.images[:5], names, batch_size=4)
    predicted, labels = found.argmin(axis=1), pictures.labels[:5]
    assert result["value"] == result["accuracy"] == (predicted == labels).mean()
    assert result["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert sum(each["examples"] for each in result["per_class"]) == 5


def test_macro_f1_is_scikit_learns(rng):
    labels, predicted = rng.integers(0, 6, 40), rng.integers(2, 9, 40)
    expected = f1_score(labels, predicted, average="macro")
    assert classification.macro_f1(labels, predicted) == pytest.approx(expected)


def test_captions_of_classes(data_directory, tmp_path):
    pictures = open_set("digits_ru", "test", data_directory)
    known = dataclasses.replace(pictures, name="cifar10", class_names=("dog", "cat"))
    found, source = class_captions(known, "на картинке изображено: {}")
    assert found == ["на картинке изображено: собака", "на картинке изображено: кошка"]
    assert source["names"] == "cifar10" and len(source["sha256"]) == 64
    for template in ("цифра", "{instrumental}", "{} {"):
        with pytest.raises(InputError, match="template"):
            class_captions(pictures, template)


def test_the_command_writes_and_resumes_captions(
    small_rudolph, small_vqgan_folder, ruclip, digits, data_directory, tmp_path, capsys, monkeypatch
):
    model = small_rudolph.save(tmp_path / "model")
    arguments = [
        "captions", f"--model=tiny={model}", f"--vqgan={small_vqgan_folder}", "--first=5",
        f"--ruclip={ruclip}", "--sets=digits_ru", "--batch-size=4", f"--data-dir={data_directory}",
        f"--cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    assert "tiny  digits_ru: bleu" in capsys.readouterr().out
    (file,) = (tmp_path / "out").glob("tiny-*/captions/digits_ru-test.json")
    found = json.loads(file.read_text("utf-8"))
    written = [each["caption"] for each in found["captions"]]
    images = digits.images[:5]
    assert written == tasks.caption_images(small_rudolph, images, batch_size=4, quiet=True)
    expected = caption_metrics(written, digits.captions[:5])
    assert {key: found[key] for key in expected} == expected
    clip = open_clip(ruclip)
    rows = clip.text_latents(written) * clip.image_latents(images)
    assert found["ruclip_score"] == pytest.approx(float(rows.sum(axis=1).mean()), abs=1e-5)
    assert found["made_with"]["sacrebleu"] and found["system"]["sha256"]
    # What is in the cache is not written again, and the result is the same.
    monkeypatch.setattr(captions, "_write", None)
    assert main([*arguments, f"--out={tmp_path / 'again'}"]) == 0
    (again,) = (tmp_path / "again").glob("tiny-*/captions/digits_ru-test.json")
    assert json.loads(again.read_text("utf-8")) == found
    # Mistakes are told before anything is written.
    for wrong, message in (("--first=0", "first is 0"), ("--candidates=0", "candidates are 0")):
        assert main([*arguments, f"--out={tmp_path / 'out'}", wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_template_is_taken_off_captions(run, digits):
    writing = captions.Writing(template="Цифра", candidates=2, seed=3)
    one = captions.measure_set(run, digits, writing)
    assert not any(each["caption"].startswith("цифра") for each in one["captions"])
    assert captions.measure_set(run, digits, writing) == one  # by the seed


def test_drawings_follow_from_the_seed(run, digits, ruclip, tmp_path):
    sampling, clip = SamplingParams(temperature=1.0), open_clip(ruclip)
    run = dataclasses.replace(run, out=tmp_path)
    with pytest.warns(FewImagesWarning, match="5 images have 128 features"):
        found = drawing.measure_set(run, digits, clip, sampling, seed=1)
    other = EvalRun(dataclasses.replace(run.model, batch_size=2), first=5)
    with pytest.warns(FewImagesWarning):
        again = drawing.measure_set(other, digits, clip, sampling, seed=1)
    for key in ("ruclip_score", "frechet", "frechet_of_reconstructions"):
        assert again[key] == pytest.approx(found[key], rel=1e-3, abs=1e-5)
    codes = tasks.draw_texts(
        run.model.rudolph,
        found["captions"],
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        seed=1,
        batch_size=4,
    )
    drawn, real = run.model.rudolph.decode_images(codes), digits.images[:5]
    texts = clip.text_latents([several[0] for several in digits.captions[:5]])
    score = float((texts * clip.image_latents(drawn)).sum(axis=1).mean())
    assert found["ruclip_score"] == pytest.approx(score, abs=1e-5)
    with pytest.warns(FewImagesWarning):
        distance = frechet_distance(fit(clip.image_features(real)), fit(clip.image_features(drawn)))
    assert found["frechet"] == pytest.approx(distance, rel=1e-3)
    assert found["frechet_is_biased"]
    (sheet,) = tmp_path.glob("tiny-*/drawing/digits_ru-test.png")
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_perplexity_of_image_tokens(run, digits):
    result = image_tokens.measure_set(run, digits)
    first = [several[0] for several in digits.captions[:5]]
    losses = sequence_losses(run.model.rudolph, digits.images[:5], first)
    assert result["image_loss"] == pytest.approx(losses["image_loss"], rel=1e-5)
    assert result["image_perplexity"] == pytest.approx(math.exp(losses["image_loss"]), rel=1e-4)
    assert result["text_perplexity"] == pytest.approx(math.exp(losses["right_text_loss"]), rel=1e-4)


def test_answers_to_prepared_questions(run, tmp_path):
    source, out = tmp_path / "texts", tmp_path / "prepared"
    source.mkdir()
    rows = [["context", "question", "answer"]]
    rows += [[f"цифра {i}", "какая?", answer] for i, answer in enumerate(["семь", "один", "два"])]
    with (source / "list.csv").open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)
    prepare(SourceConfig(str(source), form="text-questions"), out)
    asked = open_questions(out, "train")
    assert asked.contexts[1] == "цифра 1" and asked.answers[2] == ("два",) and not asked.has_images
    result = questions.measure_set(run, asked)
    answers = tasks.answer_questions(
        run.model.rudolph, asked.questions, contexts=asked.contexts, batch_size=4, quiet=True
    )
    assert [each["answer"] for each in result["answers"]] == answers
    # One of three is right.
    right = dataclasses.replace(asked, answers=((answers[0],), ("нет",), ("нет",)))
    assert questions.measure_set(run, right)["exact_match"] == pytest.approx(
        (1 + answers[1:].count("нет")) / 3
    )
    assert right.source_hash != asked.source_hash


def test_chunks_are_done_once_each(tmp_path):
    cache, done = ArrayCache(tmp_path), []

    def work(rows):
        done.append((rows.start, rows.stop))
        if rows.start == 6 and len(done) == 3:
            raise KeyboardInterrupt
        return np.arange(rows.start, rows.stop) * 2

    with pytest.raises(KeyboardInterrupt):
        cached_map(cache, {"what": "a"}, 8, work, chunk=3)
    assert cached_map(cache, {"what": "a"}, 8, work, chunk=3).tolist() == [
        0,
        2,
        4,
        6,
        8,
        10,
        12,
        14,
    ]
    assert done == [(0, 3), (3, 6), (6, 8), (6, 8)]
    # More rows: the last chunk was a shorter one. Another question: nothing is known.
    assert len(cached_map(cache, {"what": "a"}, 9, work, chunk=3)) == 9
    cached_map(cache, {"what": "b"}, 3, work, chunk=3)
    assert done[4:] == [(6, 9), (0, 3)]
    # A broken file is made again.
    for file in tmp_path.glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-1])
    assert cached_map(cache, {"what": "b"}, 3, work, chunk=3).tolist() == [0, 2, 4]
