"""Which examples a run has seen is written down, over any restarts."""

import dataclasses
import itertools
import json
import random
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from training_processes import end, last_step, start_training, wait_for_step

from clip_jax import InputError
from experiments.config.data import DataConfig
from experiments.data.mixture import Mixture
from experiments.data.sample_ids import FOLDER, SOURCES, SampleIds, read_ids
from experiments.data.source import open_split
from experiments.data.stream import batches
from experiments.training.checkpoint import Checkpoints

CONFIG = DataConfig(batch_size=12, log_ids=True)


class Rows(list):
    """Stand for a split, with what a stream reads of it."""

    metadata, features = {}, {"key": tfds.features.Text()}

    def __init__(self, name, count):
        super().__init__({"key": f"{name}{i}"} for i in range(count))
        self.name, self.sources = name, [name]

    @property
    def parts(self):
        return [(np.arange(len(self)), 1.0)]

    def locate(self, index):
        return 0, index


class Keys:
    """Draws of the rows' keys."""

    def __init__(self, split):
        self.split = split

    def sample(self, index, rng):
        return {"key": np.array(self.split[index]["key"]), "random": rng.integers(2**62)}


def streams(examples, workdir, first, processes):
    """Return the streams of all processes, as `train` makes them."""
    for index in range(processes):
        stream = batches(
            examples, CONFIG, seed=1, first_step=first,
            process_index=index, process_count=processes,
        )  # fmt: skip
        yield SampleIds(workdir, examples.split, first, index, processes).log(stream)


def take(examples, workdir, first, last, processes):
    return [
        list(itertools.islice(stream, last - first))
        for stream in streams(examples, workdir, first, processes)
    ]


@pytest.mark.parametrize("mixed", [False, True])
def test_an_id_names_the_source_and_the_row(tmp_path, mixed):
    parts = [Rows("a", 30), Rows("b", 11)]
    examples = Keys(Mixture(parts, [1.0, 2.0]) if mixed else parts[0])
    (taken,) = take(examples, tmp_path, 0, 4, 1)
    ids = read_ids(tmp_path)
    sources = json.loads((tmp_path / FOLDER / SOURCES).read_text())
    assert sources == (["a", "b"] if mixed else ["a"])
    assert list(ids) == [1, 2, 3, 4]
    for step, batch in enumerate(taken, 1):
        assert set(batch) == {"key", "random"}
        named = [name.split(":") for name in ids[step]]
        assert [f"{sources[int(i)]}{row}" for i, row in named] == batch["key"].tolist()


def test_batches_are_the_same_with_and_without(tmp_path):
    examples = Keys(Rows("a", 30))
    (logged,) = take(examples, tmp_path, 0, 4, 1)
    plain = batches(examples, dataclasses.replace(CONFIG, log_ids=False), seed=1)
    for batch, other in zip(logged, plain, strict=False):
        np.testing.assert_array_equal(batch["random"], other["random"])


def test_after_restarts_with_other_processes_there_is_neither_a_gap_nor_a_repeat(tmp_path):
    examples = Keys(Rows("a", 30))
    take(examples, tmp_path / "whole", 0, 12, 1)
    run = tmp_path / "run"
    take(examples, run, 0, 6, 2)
    # Killed: one process has begun a step more, the other is cut off within a line.
    with (run / FOLDER / "process-0.jsonl").open("a") as file:
        file.write(json.dumps({"step": 7, "processes": 2, "ids": ["0:0"] * 6}) + "\n")
    with (run / FOLDER / "process-1.jsonl").open("a") as file:
        file.write('{"step": 7, "proc')
    with pytest.raises(InputError, match=r"step 7 has lines of processes \[0\]; expected .*0, 1"):
        read_ids(run)
    take(examples, run, 4, 9, 3)
    take(examples, run, 8, 12, 1)
    assert read_ids(run) == read_ids(tmp_path / "whole")


def test_a_step_with_two_lines_is_noticed(tmp_path):
    examples = Keys(Rows("a", 30))
    take(examples, tmp_path, 0, 2, 1)
    file = tmp_path / FOLDER / "process-0.jsonl"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="step 1 has two lines; expected one"):
        read_ids(tmp_path)


class Nothing:
    """Stand for a split of which only the row numbers matter."""

    def __init__(self, split):
        self.split = split

    def sample(self, index, rng):
        return {}


@pytest.mark.slow
def test_killed_twenty_times_on_two_processes_and_resumed_on_one_and_three(train_config, tmp_path):
    rng = random.Random(5)
    config = dataclasses.replace(
        train_config,
        data=dataclasses.replace(train_config.data, batch_size=12, log_ids=True),
        steps=100_000,
        checkpoint_every=2,
    )
    workdir = tmp_path / "run"
    for number in range(20):
        for count in (2, (1, 3)[number % 2]):
            before = last_step(workdir)
            running = start_training(config, workdir, count)
            try:
                wait_for_step(workdir, before + rng.randrange(6), running)
                time.sleep(rng.uniform(0, 0.2))  # a moment within a step or a save
                rng.shuffle(running)
                print(f"{count} processes killed after step {last_step(workdir)}", flush=True)
            finally:
                end(running)
    split = open_split(config.data, config.data.split)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        last = checkpoints.latest_step()
    SampleIds(workdir, split, last)  # as a run that resumes there
    expected = tmp_path / "expected"
    stream = batches(Nothing(split), config.data, seed=config.seed)
    list(itertools.islice(SampleIds(expected, split, 0).log(stream), last))
    found = read_ids(workdir)
    assert list(found) == list(range(1, last + 1))
    assert found == read_ids(expected)
    print(f"{last} steps, {12 * last} ids")
