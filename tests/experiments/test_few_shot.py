"""Draws of few-shot probes, and how their penalty is chosen."""

import dataclasses

import numpy as np
import pytest

from clip_jax import InputError
from experiments.evaluation.methods import linear_probe
from experiments.evaluation.methods.few_shot import pools, qualified_keys, sample_shots
from experiments.evaluation.methods.linear_probe import Features, ProbeTask, choose_penalty, probe
from experiments.evaluation.methods.logistic_regression import LogisticRegressionFit
from experiments.evaluation.sets.labelled_set import LabelledSet


def labelled(split, counts, prefix=""):
    """counts: images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    keys = tuple(f"{prefix}{i}" for i in range(len(labels)))
    names = tuple(f"class {i}" for i in range(len(counts)))
    return LabelledSet("mine", split, "folder", names, labels, keys, [b""] * len(labels))


def test_draws_are_seeded_nested_and_even():
    train, validation = labelled("train", [40, 30, 3]), labelled("validation", [9, 9, 9])
    learned, chosen = pools(train, validation, labelled("test", [5, 5, 5]), seed=0)
    four, sixteen = sample_shots(learned, 4, 0, 0), sample_shots(learned, 16, 0, 0)
    assert np.bincount(train.labels[four]).tolist() == [4, 4, 3]
    assert np.bincount(train.labels[sixteen]).tolist() == [16, 16, 3]
    assert set(four) < set(sixteen)
    np.testing.assert_array_equal(four, sample_shots(learned, 4, 0, 0))
    for other in (sample_shots(learned, 4, 0, 1), sample_shots(learned, 4, 1, 0)):
        assert set(other) != set(four)
    assert np.bincount(validation.labels[sample_shots(chosen, 2, 0, 0)]).tolist() == [2, 2, 2]


def test_a_draw_does_not_depend_on_the_order():
    train = labelled("train", [40, 30])
    order = np.random.default_rng(0).permutation(70)
    shuffled = dataclasses.replace(
        train, labels=train.labels[order], keys=tuple(train.keys[i] for i in order)
    )
    test = labelled("test", [2, 2])
    drawn = []
    for version in (train, shuffled):
        learned, chosen = pools(version, None, test, seed=3)
        drawn.append({
            *learned.keys_of(sample_shots(learned, 4, 3, 0)), *chosen.keys_of(chosen.places)
        })  # fmt: skip
    assert drawn[0] == drawn[1]


def test_nothing_drawn_is_held_out_or_tested():
    train, test = labelled("train", [20, 10, 2]), labelled("test", [20, 10, 2])
    learned, chosen = pools(train, None, test, seed=0)
    assert np.bincount(train.labels[chosen.places]).tolist() == [4, 2, 1]
    assert sorted([*learned.places, *chosen.places]) == list(range(32))
    drawn = set(learned.keys_of(sample_shots(learned, 16, 0, 5)))
    # Places have the same names in both splits; the keys tell them apart.
    assert not drawn & set(chosen.keys_of(chosen.places)) and not drawn & set(qualified_keys(test))
    with pytest.raises(InputError, match="splits are train, validation; expected different ones"):
        pools(train, None, labelled("train", [20, 10, 2]), seed=0)
    joined = labelled("train+validation", [3, 3], "train/")
    with pytest.raises(InputError, match=r"share 4 images, 'train/\d' say"):
        pools(joined, None, labelled("train", [3, 3]), seed=0)
    with pytest.raises(InputError, match="class 'class 1' has one training image"):
        pools(labelled("train", [3, 1]), None, test, seed=0)


@pytest.fixture
def task(rng):
    """Two clouds that overlap in 6 dimensions, one of them twice as frequent in test."""

    def features(counts):
        labels = np.repeat([0, 1], counts)
        values = rng.normal(size=(len(labels), 6)) + 1.2 * labels[:, None]
        return Features(values.astype(np.float32), labels)

    parts = {name: features(n) for name, n in (
        ("train", (60, 60)), ("validation", (20, 20)), ("test", (80, 40))
    )}  # fmt: skip
    sets = {
        name: labelled(name, np.bincount(part.labels).tolist()) for name, part in parts.items()
    }
    pools_ = pools(sets["train"], sets["validation"], sets["test"], 0)
    return ProbeTask(parts["train"], parts["validation"], parts["test"], *pools_, "accuracy", 2)


def test_more_images_help(task):
    draws = [probe(task, 2, 0, number) for number in range(6)]
    many = probe(task, None, 0)
    assert np.mean([few.value for few in draws]) < many.value
    assert many.value > 0.85  # six seeds of the clouds give 0.908 to 0.958
    assert (len(many.train), len(many.validation)) == (120, 40)
    assert all((len(few.train), len(few.validation)) == (4, 4) for few in draws)
    again = probe(task, 2, 0, 5)
    assert (again.value, again.C) == (draws[5].value, draws[5].C)


def test_the_sweep_is_clips(task, monkeypatch):
    """Seven penalties, then around the best one; the smallest of equals."""
    tried = []

    class Stub:
        def fit(self, C, start=None):
            tried.append(round(np.log10(C), 3))
            return self

        def scores(self, values):
            # Best at 10^1.25, all wrong elsewhere by distance.
            wrong = int(abs(tried[-1] - 1.25) * 8)
            own = np.eye(2)[held.labels]
            own[:wrong] = 1 - own[:wrong]
            return own

    held = task.validation
    best = choose_penalty(Stub(), held, "accuracy")
    assert tried[:7] == [-6, -4, -2, 0, 2, 4, 6]
    assert tried[7:9] == [1, 3] and len(tried) <= 15
    assert np.log10(best.C) == pytest.approx(1.25)
    monkeypatch.setattr(linear_probe, "STEPS", ())
    everything_right = Features(held.values[:1] * 0, held.labels[:1] * 0)
    problem = LogisticRegressionFit(np.ones((4, 6), np.float32), np.zeros(4, int), 2)
    best = choose_penalty(problem, everything_right, "roc_auc")
    assert np.log10(best.C) == pytest.approx(-6)
