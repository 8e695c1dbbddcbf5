"""RUDOLPH's examples: tasks in their shares, special tokens in place, codes without noise."""

import dataclasses
import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from clip_jax import InputError
from experiments.config.data import AugmentConfig
from experiments.config.objective import RudolphSettings
from experiments.config.run import MeshConfig
from experiments.data.digits_ru import NAMES
from experiments.data.sample_ids import ROW
from experiments.data.source import open_split
from experiments.data.stream import batches
from experiments.data.vocabulary import train_tokenizer
from experiments.objectives import make_objective
from experiments.training import partitioning
from rudolph_jax.layout import BOS, PAD, Layout
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.text_encoding import decode_text, encode_left, encode_right

TOLD = {"LT_T2I", "LT_I2T", "LT_T2T"}


@pytest.fixture
def make(rudolph_train_config):
    """(changes of the model, of the settings, of the data) -> examples of "validation"."""

    def make(model=None, settings=None, **data):
        config = dataclasses.replace(
            rudolph_train_config,
            model=dataclasses.replace(rudolph_train_config.model, **(model or {})),
            settings=dataclasses.replace(rudolph_train_config.settings, **(settings or {})),
            data=dataclasses.replace(rudolph_train_config.data, **data),
        )
        mesh = partitioning.make_mesh(MeshConfig(), jax.devices()[:1])
        objective = make_objective(config, mesh)
        split = open_split(config.data, "validation")
        tokenizer = train_tokenizer([c for row in split for c in row["captions"]], 90)
        return objective.examples(split, tokenizer), objective, config, tokenizer

    return make


def drawn(examples, count):
    return np.stack(
        [
            examples.sample(i % len(examples.split), np.random.default_rng(i))["input_ids"]
            for i in range(count)
        ]
    )


def test_tasks_come_in_their_shares_with_their_special_tokens(make):
    shares = {"text_to_image": 3.0, "image_to_text": 2.0, "text_to_text": 1.0}
    examples, _, config, tokenizer = make(settings={**shares, "unknown_token_share": 0.25})
    layout = Layout(config.model)
    ids = drawn(examples, 3000)
    of_name = {layout.special_id(name): name for name in (*TOLD, "LT_UNK", "RT_UNK", "RT_I2T")}
    found = Counter()
    for row in ids:
        left, right = row[layout.left], row[layout.right]
        assert left[0] == BOS
        token = of_name[left[1]]
        if right.any():
            assert right[0] == BOS
            assert of_name[right[1]] == {"LT_I2T": "RT_I2T", "LT_UNK": "RT_UNK"}[token]
            assert decode_text(tokenizer, left) == ""
            assert decode_text(tokenizer, right).split()[-1] in NAMES
        else:
            assert token in ("LT_T2I", "LT_T2T", "LT_UNK")
            assert decode_text(tokenizer, left).split()[-1] in NAMES
        if token == "LT_UNK":
            token = "unknown right" if right.any() else "unknown left"
        found[token] += 1
    wanted = {
        "LT_T2I": 0.75 * 3 / 6, "LT_I2T": 0.75 * 2 / 6, "LT_T2T": 0.75 / 6,
        "unknown left": 0.25 * 4 / 6, "unknown right": 0.25 * 2 / 6,
    }  # fmt: skip
    assert set(found) == set(wanted)
    for name, share in wanted.items():
        assert found[name] / len(ids) == pytest.approx(share, abs=0.03)


def test_every_caption_of_a_picture_is_drawn(make):
    examples, _, config, tokenizer = make(settings={"image_to_text": 0.0})
    left = Layout(config.model).left
    texts = {
        decode_text(tokenizer, examples.sample(0, np.random.default_rng(i))["input_ids"][left])
        for i in range(80)
    }
    captions = examples.split[0]["captions"]
    short = [c for c in captions if len(tokenizer.encode(c)) <= left.stop - 2]
    assert set(short) <= texts and len(texts) == len(captions)


def test_without_special_tokens_no_text_is_padding(make):
    examples, _, config, tokenizer = make(
        model={"text_special_tokens": 0}, settings={"text_to_image": 0.0, "text_to_text": 0.0}
    )
    layout = Layout(config.model)
    ids = drawn(examples, 20)
    assert (ids[:, layout.left] == PAD).all()
    assert (ids[:, layout.right.start] == BOS).all()
    assert all(decode_text(tokenizer, row[layout.right]) for row in ids)


def test_examples_are_what_the_tasks_read(make):
    """The very ids that drawing and captioning prepare."""
    examples, _, config, tokenizer = make(
        settings={"unknown_token_share": 0.0, "text_to_text": 0.0}, augment=AugmentConfig()
    )
    layout = Layout(config.model)
    row = examples.split[7]
    left = {tuple(encode_left(tokenizer, config.model, c, "LT_T2I")) for c in row["captions"][1:4]}
    right = {
        tuple(encode_right(tokenizer, config.model, c, "RT_I2T")) for c in row["captions"][1:4]
    }
    seen_left, seen_right = set(), set()
    for seed in range(200):
        ids = examples.sample(7, np.random.default_rng(seed))["input_ids"]
        seen_left.add(tuple(ids[layout.left]))
        seen_right.add(tuple(ids[layout.right]))
    assert left <= seen_left and right <= seen_right
    assert tuple(encode_left(tokenizer, config.model, "", "LT_I2T")) in seen_left


def test_codes_are_the_likeliest_ones_kept_or_found_batch_by_batch(make, small_vqgan):
    plain = AugmentConfig()
    kept, _, config, tokenizer = make(augment=plain)
    read, objective, _, _ = make(augment=plain, in_memory=False)
    rudolph = PretrainedRudolph(config.model, {}, tokenizer, small_vqgan)
    rows = list(kept.split)[:24]
    expected = rudolph.encode_images([row["image"] for row in rows])
    assert len(np.unique(expected)) > 4
    rngs = [np.random.default_rng(i) for i in range(24)]
    image = Layout(config.model).image
    found = np.stack([kept.sample(i, rng)["input_ids"] for i, rng in enumerate(rngs)])
    np.testing.assert_array_equal(found[:, image], expected)
    unread = [read.sample(i, np.random.default_rng(i)) for i in range(24)]
    batch = {key: np.stack([e[key] for e in unread]) for key in ("image", "input_ids")}
    assert not batch["input_ids"][:, image].any()
    prepare = objective.batch_transform
    prepared = jax.jit(prepare.apply)(prepare.params, batch)
    assert set(prepared) == {"input_ids"}
    np.testing.assert_array_equal(np.asarray(prepared["input_ids"])[:, image], expected)
    assert prepare.apply(prepare.params, prepared) is prepared


def test_kept_codes_are_of_several_views(make):
    augment = AugmentConfig(variants=6, shift=2, background=0)
    examples, _, config, _ = make(augment=augment)
    image = Layout(config.model).image
    views = {
        tuple(examples.sample(3, np.random.default_rng(i))["input_ids"][image]) for i in range(60)
    }
    assert 2 <= len(views) <= 6


@pytest.mark.parametrize("in_memory", [True, False])
def test_processes_share_a_batch_between_them(make, in_memory):
    examples, _, config, _ = make(in_memory=in_memory)

    def take(**kwargs):
        return list(itertools.islice(batches(examples, config.data, seed=5, **kwargs), 3))

    whole = take()
    parts = [take(process_index=i, process_count=4) for i in range(4)]
    for step, batch in enumerate(whole):
        assert batch["input_ids"].shape == (16, 26) and batch["input_ids"].dtype == np.int32
        for i in range(4):
            for key, value in batch.items():
                np.testing.assert_array_equal(parts[i][step][key], value[i::4])


def test_logged_rows_are_those_whose_codes_the_sequences_hold(make):
    examples, _, config, _ = make(augment=AugmentConfig(), log_ids=True)
    image = Layout(config.model).image
    rng = np.random.default_rng(0)
    batch = next(batches(examples, config.data, seed=5))
    rows = batch.pop(ROW)
    assert set(batch) == {"input_ids"} and len(set(rows)) == 16
    for row, ids in zip(rows, batch["input_ids"], strict=True):
        codes = examples.sample(int(row), rng)["input_ids"][image]
        np.testing.assert_array_equal(ids[image], codes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vqgan": ""}, "config.settings.vqgan is ''"),
        ({"text_to_image": 0.0, "image_to_text": 0.0, "text_to_text": 0.0}, "one above 0"),
        ({"image_weight": -1.0}, "config.settings.image_weight is -1.0"),
        ({"unknown_token_share": 1.5}, "expected a share, 0 to 1"),
    ],
)
def test_settings_that_no_run_could_use(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RudolphSettings("folder"), **change).check()
