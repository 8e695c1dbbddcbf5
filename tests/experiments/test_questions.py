"""Questions from the source to the answer: prepared sets, examples, training, scores."""

import csv
import dataclasses
import json
import math
import tarfile

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_jax import InputError
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import RudolphSettings
from experiments.config.run import MeshConfig
from experiments.data.preparation import prepare
from experiments.data.source import Split, all_texts, open_split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.data.vocabulary import train_tokenizer
from experiments.evaluation.during_training.evaluators import make_evaluators
from experiments.objectives import make_objective
from experiments.prepare import main
from experiments.train import train
from experiments.training import partitioning
from rudolph_jax import load, tasks
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.layout import Layout
from rudolph_jax.text_encoding import decode_text, encode_left, encode_right

ONE = jax.devices()[:1]
COLOURS = ("красный", "синий", "белый")


def rejected(out):
    lines = (out / "rejected.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_rows(file, rows):
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)


@pytest.fixture
def text_source(tmp_path):
    """Eight good questions on four texts, one of them with two answers, and bad ones."""
    source = tmp_path / "texts"
    source.mkdir()
    rows = [["context", "question", "answer"]]
    for i in range(4):
        context = f"лес номер {i} красный, а дом синий"
        rows += [[context, "какой лес?", "красный"], [context, "какой дом?", "синий"]]
    rows += [[rows[1][0], "какой лес?", "очень красный"]]
    rows += [["", "кто?", "он"], ["лес", " ", "он"], ["лес", "кто?", ""], ["лес"]]
    write_rows(source / "list.csv", rows)
    return source


@pytest.fixture
def picture_source(tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    rows = [["image", "question", "answer"]]
    for i in range(6):
        colour = COLOURS[i % 3]
        rgb = {"красный": (255, 0, 0), "синий": (0, 0, 255), "белый": (255, 255, 255)}[colour]
        Image.new("RGB", (12, 12), rgb).save(source / f"{i}.png")
        rows += [[f"{i}.png", "какой цвет?", colour], [f"{i}.png", "это что?", "цвет"]]
    rows += [["absent.png", "какой цвет?", "красный"]]
    write_rows(source / "list.csv", rows)
    return source


def test_questions_on_texts(text_source, tmp_path):
    out = tmp_path / "out"
    summary = prepare(SourceConfig(str(text_source), form="text-questions"), out)
    assert summary.splits == {"train": 8}
    split = Split(out, "train")
    assert set(split.features) == {"context", "question", "answers", "key"}
    assert split[0] == {
        "context": "лес номер 0 красный, а дом синий", "question": "какой лес?",
        "answers": ["красный", "очень красный"], "key": "list.csv:2",
    }  # fmt: skip
    assert all_texts(split[1]) == ["лес номер 0 красный, а дом синий", "какой дом?", "синий"]
    assert {line["row"]: line["why"].partition(":")[0] for line in rejected(out)} == {
        11: "context is empty", 12: "question is empty", 13: "answer is empty",
        14: "row has 1 cells; the header has 3",
    }  # fmt: skip
    again = prepare(SourceConfig(str(out), form="text-questions"), tmp_path / "again")
    assert again.splits == {"train": 8} and not again.reasons


def test_questions_on_pictures(picture_source, tmp_path, small_vqgan_folder):
    out = tmp_path / "out"
    options = SourceConfig(str(picture_source), form="picture-questions")
    prepare(options, out, vqgan=small_vqgan_folder, image_size=8)
    split = Split(out, "train")
    assert set(split.features) == {"image", "question", "answers", "key", "codes"}
    assert len(split) == 12 and split[3]["answers"] == ["цвет"]
    assert split[2]["image"] == split[3]["image"] == (picture_source / "1.png").read_bytes()
    assert [line["row"] for line in rejected(out)] == [14]


def test_questions_on_one_subject_are_in_one_split(text_source, tmp_path):
    out = tmp_path / "out"
    prepare(SourceConfig(str(text_source), form="text-questions"), out, WriteConfig(validation=0.5))
    train, held_out = (
        {row["context"] for row in Split(out, name)} for name in ("train", "validation")
    )
    assert train and held_out and not train & held_out


def test_parquet_in_the_form_of_squad(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    answers = [{"text": ["синий", "дом"], "answer_start": [3, 9]}, {"text": [], "answer_start": []}]
    table = {"context": ["а", "б"], "question": ["в?", "г?"], "answers": answers, "id": [1, 2]}
    pq.write_table(pa.table(table), source / "a.parquet")
    prepare(SourceConfig(str(source), form="text-questions"), tmp_path / "out")
    (row,) = Split(tmp_path / "out", "train")
    assert row["answers"] == ["синий", "дом"] and row["key"] == "a.parquet:0"
    assert [line["why"] for line in rejected(tmp_path / "out")] == ["answer is missing"]
    # The same by name, a field of a column.
    options = SourceConfig(str(source), form="questions", answer_column="answers/text")
    prepare(options, tmp_path / "named")
    assert Split(tmp_path / "named", "train")[0]["answers"] == ["синий", "дом"]


def test_tars_with_questions_in_json(tmp_path):
    source = tmp_path / "a.tar"
    member = tmp_path / "about.json"
    with tarfile.open(source, "w") as tar:
        for key, about in (("0", {"question": "что?", "answer": "дом"}), ("1", {"answer": "дом"})):
            member.write_text(json.dumps(about), "utf-8")
            tar.add(member, f"{key}.json")
    prepare(SourceConfig(str(source), form="questions"), tmp_path / "out")
    assert [row["question"] for row in Split(tmp_path / "out", "train")] == ["что?"]
    assert [line["why"] for line in rejected(tmp_path / "out")] == [
        "no column is called question, questions, query"
    ]


def test_fbc2s_form(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "0.png")
    text, image = {"type": "text", "content": "какой цвет?"}, {"type": "image", "content": "0.png"}
    asked = {"a": [text, image], "b": [image, text, {"type": "text", "content": "а?"}], "c": [text]}
    answered = {
        "a": [{"type": "text", "content": ["красный", "алый"]}],
        "b": [{"type": "text", "content": "красный"}],
        "c": [{"type": "text", "content": "?"}],
    }
    (tmp_path / "vqa.json").write_text(json.dumps(asked), "utf-8")
    source = SourceConfig(str(tmp_path / "vqa.json"), form="picture-questions", kind="fbc2")
    with pytest.raises(InputError, match="vqa_answer.json: no such file"):
        prepare(source, tmp_path / "out")
    (tmp_path / "vqa_answer.json").write_text(json.dumps(answered), "utf-8")
    found = SourceConfig(source.source, form=source.form)
    prepare(found, tmp_path / "out")
    rows = list(Split(tmp_path / "out", "train"))
    assert [row["question"] for row in rows] == ["какой цвет?", "какой цвет? а?"]
    assert rows[0]["answers"] == ["красный", "алый"] and rows[0]["key"] == "a"
    assert rejected(tmp_path / "out") == [
        {"file": "vqa.json", "key": "c", "why": "image is missing: 0 are named"}
    ]
    with pytest.raises(InputError, match="holds questions, and --form is 'captions'"):
        prepare(dataclasses.replace(source, form="captions"), tmp_path / "no")
    with pytest.raises(InputError, match="has no columns"):
        prepare(dataclasses.replace(source, question_column="q"), tmp_path / "no")


def test_what_is_missing_is_told_before_anything_starts(
    text_source, tmp_path, small_vqgan_folder, capsys
):
    for arguments, message in (
        (["--form=picture-questions"], "none of the columns is called image, .*--image-column"),
        (["--form=text-questions", "--answer-column=right"], "has no column 'right'; name one"),
        (["--form=text-questions", "--caption-column=answer"], "to be one of captions"),
        (["--question-column=question"], "--question-column is given, and --form=captions has no"),
        (["--form=questions", f"--vqgan={small_vqgan_folder}", "--image-size=8"], "no images"),
    ):
        assert main([str(text_source), str(tmp_path / "out"), *arguments]) == 2
        assert message.partition(",")[0] in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="--form is 'poems'; expected one of captions, picture"):
        prepare(SourceConfig(str(text_source), form="poems"), tmp_path / "out")


@pytest.fixture
def prepared(text_source, picture_source, tmp_path):
    made = {"text": tmp_path / "text-set", "image": tmp_path / "picture-set"}
    prepare(SourceConfig(str(text_source), form="text-questions"), made["text"])
    prepare(SourceConfig(str(picture_source), form="picture-questions"), made["image"])
    return made


@pytest.fixture
def asking(rudolph_train_config, prepared):
    """about -> a run of six steps on that set."""

    def make(about, **settings):
        config = rudolph_train_config
        model = dataclasses.replace(
            config.model, text_special_tokens=12, left_text_length=24, right_text_length=8
        )
        none = {"text_to_image": 0.0, "image_to_text": 0.0, "text_to_text": 0.0}
        changes = none | {"question": 1.0, "question_about": about, "unknown_token_share": 0.0}
        return dataclasses.replace(
            config,
            model=model,
            settings=dataclasses.replace(config.settings, **(changes | settings)),
            data=DataConfig(name=str(prepared[about]), batch_size=8, augment=AugmentConfig()),
            steps=6,
            checkpoint_every=0,
            evaluators=("questions:train",),
        )

    return make


@pytest.mark.parametrize("about", ["text", "image"])
def test_examples_are_what_answering_reads(about, asking, small_vqgan):
    config = asking(about)
    objective = make_objective(config, partitioning.make_mesh(MeshConfig(), ONE))
    split = open_split(config.data, "train")
    tokenizer = train_tokenizer([t for row in split for t in all_texts(row)], 90)
    examples = objective.examples(split, tokenizer)
    layout, (left, right) = Layout(config.model), QUESTIONS[about]
    row = split[0]
    drawn = [examples.sample(0, np.random.default_rng(i))["input_ids"] for i in range(20)]
    wanted = encode_left(tokenizer, config.model, row["question"], left, row.get("context", ""))
    for ids in drawn:
        np.testing.assert_array_equal(ids[layout.left], wanted)
    assert {tuple(ids[layout.right]) for ids in drawn} == {
        tuple(encode_right(tokenizer, config.model, answer, right)) for answer in row["answers"]
    }
    codes = {tuple(ids[layout.image]) for ids in drawn}
    assert codes == {(0, 0, 0, 0)} if about == "text" else len(codes) == 1
    data = dataclasses.replace(config.data, in_memory=False)
    read = objective_examples(dataclasses.replace(config, data=data), split, tokenizer)
    ids = read.sample(0, np.random.default_rng(3))["input_ids"]
    np.testing.assert_array_equal(ids[layout.left], wanted)
    assert decode_text(tokenizer, ids[layout.right]) in row["answers"]
    untold = objective_examples(asking(about, unknown_token_share=1.0), split, tokenizer)
    ids = untold.sample(0, np.random.default_rng(0))["input_ids"]
    assert ids[layout.left.start + 1] == layout.special_id("LT_UNK")
    assert ids[layout.right.start + 1] == layout.special_id("RT_UNK")
    assert decode_text(tokenizer, ids[layout.right]) in row["answers"]


def objective_examples(config, split, tokenizer):
    mesh = partitioning.make_mesh(MeshConfig(), ONE)
    return make_objective(config, mesh).examples(split, tokenizer)


@pytest.mark.parametrize("about", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_a_set_of_questions_trains_a_model_that_answers(about, asking, tmp_path):
    config = asking(about)
    run = train(config, tmp_path / "run", ONE)
    assert math.isfinite(run.metrics["train/right_text_loss"])
    for name in ("exact_match", "f1"):
        assert 0 <= run.metrics[f"questions:train/{name}"] <= 1
    model = load(run.model_folder, vqgan=config.settings.vqgan)
    row = open_split(config.data, "train")[0]
    asked = row["question"], row.get("image")
    answers = tasks.answer(
        model, *asked, 1, about=about, context=row.get("context", ""), temperature=0.0, quiet=True
    )
    wanted = tasks.answer_questions(
        run.model, [asked[0]], [asked[1]], [row.get("context", "")], about=about, quiet=True
    )
    assert [found["text"] for found in answers] == [text for text in wanted if text]


def test_sets_and_tasks_that_do_not_belong_together(asking, prepared, rudolph_train_config):
    captions = dataclasses.replace(
        rudolph_train_config, data=asking("text").data, evaluators=("losses:train",)
    )
    with pytest.raises(InputError, match="needs a feature 'captions' or 'caption'; the data set"):
        make_evaluators(captions)
    split = open_split(captions.data, "train")
    with pytest.raises(InputError, match="expected 'image' and 'caption' or 'captions'"):
        objective_examples(captions, split, None)
    digits = open_split(rudolph_train_config.data, "validation")
    with pytest.raises(InputError, match="expected 'question' and 'answers'"):
        objective_examples(asking("image"), digits, None)
    changed = dataclasses.replace(
        asking("text"), data=dataclasses.replace(captions.data, augment=AugmentConfig(shift=1))
    )
    with pytest.raises(InputError, match="has no images, and config.data.augment changes"):
        objective_examples(changed, split, None)
    mix = tuple(f"{folder}=1" for folder in prepared.values())
    with pytest.raises(InputError, match="has no images; the others have"):
        open_split(dataclasses.replace(captions.data, mix=mix), "train")
    few = dataclasses.replace(asking("image"), model=rudolph_train_config.model)
    with pytest.raises(InputError, match="special token LT_VQA is number 10; this model has only"):
        make_objective(few, partitioning.make_mesh(MeshConfig(), ONE))


def test_settings_that_no_run_could_use():
    with pytest.raises(InputError, match="question_about is 'poems'; expected one of plain, text"):
        RudolphSettings("folder", question_about="poems").check()
    with pytest.raises(InputError, match="expected 0 beside settings.question"):
        RudolphSettings("folder", question=1.0).check()
