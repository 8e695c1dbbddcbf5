"""Draws the examples that a few-shot probe learns from: seeded, nested, listed by their keys."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.text import escape
from experiments.evaluation.sets.labelled_set import LabelledSet

# Of a set without a validation split, the share of each class's images that chooses the penalty.
HELD_OUT = 0.2
VALIDATION_SHOTS = 4  # at most, as many as shots (Zhou et al. 2022, CoOp's linear probe)


@dataclasses.dataclass(frozen=True)
class FewShotPool:
    """Images that may be drawn: places in a set, whose labels and keys these are.

    keys: with the split before each, so that no two splits share one by accident.
    """

    labels: np.ndarray
    keys: Sequence[str]
    places: np.ndarray

    def keys_of(self, places: np.ndarray) -> list[str]:
        return [self.keys[place] for place in places]

    def without(self, places: Collection[int]) -> FewShotPool:
        """The pool without these places."""
        return dataclasses.replace(self, places=np.setdiff1d(self.places, list(places)))

    def counts(self, classes: int) -> np.ndarray:
        """int[classes]: how many images of each class it holds."""
        return np.bincount(self.labels[self.places], minlength=classes)


def pools(
    train: LabelledSet, validation: LabelledSet | None, test: LabelledSet, seed: int
) -> tuple[FewShotPool, FewShotPool]:
    """The images to learn from and those to choose the penalty on.

    Without a validation split a seeded part of each class of `train` is held out for it. An image
    that is in two of the three raises InputError.
    """
    keys, everything = qualified_keys(train), np.arange(len(train))
    if validation is not None:
        own = qualified_keys(validation)
        learned = FewShotPool(train.labels, keys, everything)
        chosen = FewShotPool(validation.labels, own, np.arange(len(validation)))
    else:
        held = _held_out(train, keys, seed)
        learned = FewShotPool(train.labels, keys, np.setdiff1d(everything, held))
        chosen = FewShotPool(train.labels, keys, held)
    splits = {
        train.split: learned.keys_of(learned.places),
        "validation": chosen.keys_of(chosen.places),
        test.split: qualified_keys(test),
    }
    if len(splits) < 3:
        raise InputError(f"{train.name}: splits are {', '.join(splits)}; expected different ones")
    for one, other in itertools.combinations(splits, 2):
        shared = set(splits[one]) & set(splits[other])
        if shared:
            raise InputError(
                f"{train.name}: {one} and {other} share {len(shared)} images, {min(shared)!r} "
                "say; expected none"
            )
    return learned, chosen


def sample_shots(pool: FewShotPool, shots: int, seed: int, number: int) -> np.ndarray:
    """Places of `shots` images of each class, or all where a class has fewer; sorted.

    number: of the draw. A draw of more shots holds the draw of fewer. It depends on the seed and
    on the keys alone, not on the images' order.
    """
    orders = _orders(pool, seed, f"draw {number}")
    return np.sort(np.concatenate([order[:shots] for order in orders.values()]))


def shot_counts(
    counts: np.ndarray, shots: int | None, class_names: Sequence[str], occurring: np.ndarray
) -> dict[str, Any]:
    """Counts what a draw of `shots` images a class really finds, for JSON.

    counts: int[classes], images to draw from; shots: None draws all. occurring: bool[classes],
    classes that count. {"fewest", "most", "classes_with_fewer": name -> images}.
    """
    found = counts if shots is None else np.minimum(counts, shots)
    fewer = occurring & (found < shots) if shots else np.zeros_like(occurring)
    return {
        "fewest": int(found[occurring].min()),
        "most": int(found[occurring].max()),
        "classes_with_fewer": {class_names[c]: int(found[c]) for c in np.flatnonzero(fewer)},
    }


def classes_without(counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Names of the classes that have no image. counts: int[classes], images of each."""
    return [class_names[label] for label in np.flatnonzero(counts == 0)]


def qualified_keys(images: LabelledSet) -> tuple[str, ...]:
    if "+" in images.split:  # joined splits say it themselves
        return images.keys
    return tuple(f"{images.split}/{key}" for key in images.keys)


def _held_out(train: LabelledSet, keys: Sequence[str], seed: int) -> np.ndarray:
    held = []
    pool = FewShotPool(train.labels, keys, np.arange(len(train)))
    for label, order in _orders(pool, seed, "held out").items():
        if len(order) < 2:
            raise InputError(
                f"{train.name}: class {train.class_names[label]!r} has one training image; "
                "expected 2 at least, one of them to choose the penalty on"
            )
        held.append(order[: max(round(HELD_OUT * len(order)), 1)])
    return np.sort(np.concatenate(held))


def _orders(pool: FewShotPool, seed: int, purpose: str) -> dict[int, np.ndarray]:
    """Label -> its places in a random order, by a hash of each key."""

    def rank(place: int) -> bytes:
        return hashlib.sha256(
            escape(f"{seed}\t{purpose}\t{pool.keys[place]}").encode()
        ).digest()

    orders: dict[int, list[int]] = {}
    for place in sorted(pool.places.tolist(), key=rank):
        orders.setdefault(int(pool.labels[place]), []).append(place)
    return {label: np.asarray(orders[label]) for label in sorted(orders)}
