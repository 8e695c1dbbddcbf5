"""Which examples are seen, and when, follows from seed and step: on any number of processes."""

import dataclasses
import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_jax import InputError
from experiments.cli.command_line import parse_command_line
from experiments.config.data import DataConfig, check_data
from experiments.config.run import TrainConfig
from experiments.data import stream
from experiments.data.mixture import Mixture
from experiments.data.preparation import prepare
from experiments.data.sample_ids import ROW
from experiments.data.source import Split, open_split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.stream import batches, part_weights, split_groups

CONFIG = DataConfig(batch_size=8)
STEPS = 24  # times 8: two epochs of 96


class Rows(list):
    """Stand for a split, with what a stream reads of it."""

    metadata, features, name = {}, {"style": tfds.features.Text()}, "train"

    @property
    def parts(self):
        return [(np.arange(len(self)), 1.0)]


class Ids:
    """Draws show which row they are of, and a random number of their own."""

    def __init__(self, split):
        self.split = split

    def sample(self, index, rng):
        return {"id": np.int64(index), "random": rng.integers(2**62)}


def rows(count, styles=("only",)):
    return Rows({"style": styles[i % len(styles)]} for i in range(count))


def log(examples, config, processes, first, last):
    """[steps, batch_size] of ids and random numbers, in the order of one process."""
    streams = [
        batches(examples, config, seed=3, first_step=first, process_index=i,
                process_count=processes)
        for i in range(processes)
    ]  # fmt: skip
    taken = [list(itertools.islice(stream, last - first)) for stream in streams]
    steps = []
    for parts in zip(*taken, strict=True):
        batch = np.empty((2, config.batch_size), np.int64)
        for i, part in enumerate(parts):
            batch[:, i::processes] = part["id"], part["random"]
        steps.append(batch)
    return np.stack(steps, axis=1)


@pytest.fixture(params=["one source", "groups", "mixture", "mixture with groups"])
def case(request):
    """Examples and config."""
    if request.param == "one source":
        return Ids(rows(96)), CONFIG
    if request.param == "groups":
        grouped = dataclasses.replace(CONFIG, group_by="style")
        return Ids(rows(96, "abc")), grouped
    mixture = Mixture([rows(40, "ab"), rows(25, "bc"), rows(7, "c")], [3.0, 2.0, 1.0])
    group_by = "style" if "groups" in request.param else ""
    return Ids(mixture), dataclasses.replace(CONFIG, group_by=group_by)


def part_weights_of_arrays(split, group):
    """The rows of each part by arrays of all numbers, as the stream was first written."""
    rows, weights, end = [], [], 0
    total = sum(weight for _, weight in split.parts)
    for numbers, weight in split.parts:
        part, end = np.arange(end, end + len(numbers)), end + len(numbers)
        mine = np.asarray(group)[np.isin(group, part, assume_unique=True)]
        if len(mine):
            rows.append(mine)
            weights.append(len(mine) * ((weight * len(split)) / (total * len(part))))
    return rows, weights


def test_ranges_give_the_order_of_arrays(case, monkeypatch):
    examples, config = case
    found = log(examples, config, 2, 0, STEPS)
    for group in split_groups(examples.split, config.group_by):
        ours, weights = part_weights(examples.split, group)
        theirs, their_weights = part_weights_of_arrays(examples.split, group)
        assert [list(rows) for rows in ours] == [list(rows) for rows in theirs]
        assert weights == their_weights
    monkeypatch.setattr(stream, "part_weights", part_weights_of_arrays)
    np.testing.assert_array_equal(found, log(examples, config, 2, 0, STEPS))


# As the first commits had them: a run of any of them is resumed with the same examples.
RECORDED = {
    "one source": [[29, 30, 31, 86, 26, 66, 61, 19], [80, 0, 2, 87, 38, 64, 11, 78]],
    "groups": [[87, 90, 93, 21, 78, 9, 54, 57], [1, 7, 73, 88, 67, 58, 40, 49]],
    "mixture": [[29, 40, 30, 42, 31, 68, 7, 64], [26, 63, 3, 67, 18, 62, 19, 59]],
    "mixture with groups": [[8, 34, 32, 14, 10, 6, 36, 38], [1, 5, 64, 15, 58, 13, 23, 60]],
}


def test_the_order_is_the_recorded_one(case, request):
    examples, config = case
    ids, _ = log(examples, config, 1, 0, 2)
    assert ids.tolist() == RECORDED[request.node.callspec.params["case"]]


def test_two_billion_rows_take_no_memory():
    class Many(Rows):
        parts = [(range(2_000_000_000), 1.0)]

        def __len__(self):
            return 2_000_000_000

    config = dataclasses.replace(CONFIG, batch_size=512)
    tracemalloc.start()
    batch = next(batches(Ids(Many()), config, seed=0, process_index=3, process_count=64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # one array of their numbers would be 16 GB
    assert batch["id"].shape == (8,) and len(set(batch["id"])) == 8
    assert batch["id"].max() > 1_000_000_000


@pytest.mark.parametrize("plan", [[2, 1], [1, 2], [4, 1, 4]])
def test_a_restart_with_other_processes_changes_nothing(case, plan):
    examples, config = case
    whole = log(examples, config, 1, 0, STEPS)
    stops = [0, *(7 * (i + 1) for i in range(len(plan) - 1)), STEPS]
    parts = [
        log(examples, config, processes, first, last)
        for processes, first, last in zip(plan, stops[:-1], stops[1:], strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("plan", [(2, 1), (1, 2), (4, 4)])
def test_epochs_have_neither_repeats_nor_gaps(plan):
    examples = Ids(rows(96))
    before, after = plan
    ids = np.concatenate(
        [log(examples, CONFIG, before, 0, 7)[0], log(examples, CONFIG, after, 7, STEPS)[0]]
    ).ravel()
    for epoch in np.split(ids, 2):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(96))
    assert (ids[:96] != ids[96:]).any() and (ids[:96] != np.arange(96)).any()


def test_each_part_of_a_mixture_has_whole_epochs_and_its_share():
    sizes, weights = [40, 25, 7], [3.0, 2.0, 1.0]
    mixture = Mixture([rows(size) for size in sizes], weights)
    ids, random = log(Ids(mixture), CONFIG, 2, 0, 60)
    for (numbers, weight), size in zip(mixture.parts, sizes, strict=True):
        mine = ids.ravel()[np.isin(ids.ravel(), numbers)]
        assert len(mine) / ids.size == pytest.approx(weight / 6, abs=0.003)
        for start in range(0, len(mine) - size + 1, size):
            np.testing.assert_array_equal(np.sort(mine[start : start + size]), numbers)
    assert len(np.unique(random)) == random.size
    # Every batch has some of each, in nearly the same numbers.
    counts = np.stack([np.isin(ids, numbers).sum(1) for numbers, _ in mixture.parts])
    assert (np.abs(counts - np.array([[4], [8 / 3], [4 / 3]])) < 2).all()


def test_groups_of_a_mixture_keep_the_weights():
    mixture = Mixture([rows(40, "ab"), rows(25, "b")], [1.0, 3.0])
    config = dataclasses.replace(CONFIG, group_by="style")
    ids, _ = log(Ids(mixture), config, 1, 0, 100)
    styles = np.array([row["style"] for row in mixture])
    assert all(len(set(styles[batch])) == 1 for batch in ids)
    assert (ids < 40).mean() == pytest.approx(0.25, abs=0.02)
    assert [len(group) for group in split_groups(mixture, "style")] == [20, 45]


@pytest.fixture
def prepared(tmp_path):
    def prepared(name, count, start=0):
        source = tmp_path / f"source-{name}"
        source.mkdir()
        lines = []
        for i in range(start, start + count):
            Image.new("RGB", (9, 8), (i, i, i)).save(source / f"{i}.png")
            lines.append(json.dumps({"image": f"{i}.png", "caption": f"серый {i}"}))
        (source / "list.jsonl").write_text("\n".join(lines))
        prepare(SourceConfig(str(source)), tmp_path / name)
        return tmp_path / name

    return prepared


def test_mixed_sets_are_opened_as_one(prepared, data_directory):
    a, b = prepared("a", 6), prepared("b", 4, 50)
    config = DataConfig(mix=(f"{a}=1", f"{b}=0.5"), directory=data_directory)
    split = open_split(config, "train")
    split.require_captions()
    found = list(split)
    assert [row["key"] for row in found] == [f"{i}.png" for i in (*range(6), *range(50, 54))]
    assert found[7] == Split(b, "train")[1]
    assert [(len(part), weight) for part, weight in split.parts] == [(6, 1.0), (4, 0.5)]
    with pytest.raises(IndexError):
        split[-1]
    # Digits have labels and no keys: neither is a feature of both.
    digits = open_split(dataclasses.replace(config, mix=(f"{a}=1", "digits_ru=1")), "train")
    assert set(digits.features) == {"image", "captions"}
    assert set(digits[0]) == set(digits[6]) == {"image", "captions"}
    with pytest.raises(InputError, match="config.data.group_by is 'label'; expected one of cap"):
        open_split(dataclasses.replace(config, mix=(f"{a}=1", "digits_ru=1"), group_by="label"),
                   "train")  # fmt: skip


def test_mixtures_that_cannot_work(prepared, tmp_path):
    a = prepared("a", 3)
    for mix, message in (
        ((f"{a}=1", f"{tmp_path}/absent=2"), "config.data.mix names '.*absent'; expected one of"),
        ((f"{a}=1", f"{tmp_path}=2"), "no prepared data set here"),
    ):
        with pytest.raises(InputError, match=message):
            open_split(DataConfig(mix=mix), "train")
    with pytest.raises(InputError, match="has no split 'validation'; expected one of train"):
        open_split(DataConfig(mix=(f"{a}=1",)), "validation")
    for mix in (("digits_ru",), ("digits_ru=0",), ("digits_ru=-1",), ("=1",), ("a=nan",),
                ("a=inf",), ("a=x",)):  # fmt: skip
        with pytest.raises(InputError, match="expected entries NAME=WEIGHT with weights above 0"):
            check_data(DataConfig(mix=mix))
    with pytest.raises(InputError, match="config.data.mix .* expected 'a' once"):
        check_data(DataConfig(mix=("a=1", "a=2")))


def test_mixtures_survive_json():
    config = TrainConfig(data=DataConfig(mix=("runs/a=b=2", "digits_ru=1")))
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.data.mix == config.data.mix
    assert again.data.weights == {"runs/a=b": 2.0, "digits_ru": 1.0}


def test_a_command_line_can_mix(tmp_path):
    digits = Path(__file__).parents[2] / "experiments" / "configs" / "digits.py"
    arguments = [f"--config={digits}", f"--workdir={tmp_path}", "--config.data.draft=True"]
    config, _ = parse_command_line([*arguments, "--config.data.mix=('emoji_ru=2', 'runs/a=0.5')"])
    assert config.data.weights == {"emoji_ru": 2.0, "runs/a": 0.5} and config.data.draft
    with pytest.raises(InputError, match="config.data.mix is .*; expected entries NAME=WEIGHT"):
        parse_command_line([*arguments, "--config.data.mix=('emoji_ru',)"])


def test_too_many_rows_for_groups_are_refused(monkeypatch):
    """Before any of them is read."""
    monkeypatch.setattr(stream, "MOST_GROUPED", 2)
    with pytest.raises(InputError, match="'style' and the set has 3 rows, all of which"):
        split_groups(range(3), "style")


def test_as_many_rows_as_are_allowed_are_grouped(monkeypatch):
    monkeypatch.setattr(stream, "MOST_GROUPED", 3)
    groups = split_groups(rows(3, "ba"), "style")
    assert [group.tolist() for group in groups] == [[1], [0, 2]]
    assert split_groups(rows(4, "ba"), "") == [range(4)]


def test_by_default_a_stream_is_one_process_s_from_the_first_step():
    examples = Ids(rows(96))
    plain = next(batches(examples, CONFIG, seed=3))
    ids, random = log(examples, CONFIG, 1, 0, 1)
    np.testing.assert_array_equal(plain["id"], ids[0])
    np.testing.assert_array_equal(plain["random"], random[0])
    assert set(plain) == {"id", "random"}
    logged = next(batches(examples, dataclasses.replace(CONFIG, log_ids=True), seed=3))
    np.testing.assert_array_equal(logged.pop(ROW), plain["id"])
    assert set(logged) == set(plain)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.5, 3.0])), min_size=1, max_size=4),
    st.data(),
)
def test_parts_of_any_group_keep_their_rows_and_weights(parts, data):
    """Parts of a mixture weigh as asked for; groups share a part's weight by their rows."""
    sizes = [size for size, _ in parts]
    ends = np.cumsum(sizes)

    class Mixed(list):
        parts = []

    mixed = Mixed(range(ends[-1]))
    mixed.parts = [
        (range(end - size, end), weight) for end, (size, weight) in zip(ends, parts, strict=True)
    ]
    _, whole = part_weights(mixed, range(len(mixed)))
    asked = np.array([weight for _, weight in parts])
    np.testing.assert_allclose(np.array(whole) / sum(whole), asked / asked.sum())
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(mixed), max_size=len(mixed))))
    shares = np.zeros(len(parts))
    for group in (np.flatnonzero(chosen), np.flatnonzero(~chosen)):
        found, weights = part_weights(mixed, group)
        expected, theirs = part_weights_of_arrays(mixed, group)
        assert [part.tolist() for part in found] == [part.tolist() for part in expected]
        assert weights == theirs
        for part, weight in zip(found, weights, strict=True):
            shares[np.searchsorted(ends, part[0], "right")] += weight
    np.testing.assert_allclose(shares, whole)
