"""Captions held against references: numbers of COCO's own code, of sacrebleu, and by hand."""

import math
import sys

import numpy as np
import pytest

from clip_jax.errors import InputError
from experiments.evaluation.metrics.captions import caption_metrics, words
from experiments.evaluation.metrics.cider import cider

REFERENCES = [
    ["рыжая кошка спит на диване", "кошка лежит на мягком диване днём", "на диване спит кот"],
    ["собака бежит по пляжу", "большая собака бежит вдоль моря"],
    ["красный автобус едет по городу", "автобус стоит на остановке",
     "по улице едет большой красный автобус", "в городе автобус"],
    ["дети играют в футбол на зелёном поле"],
]  # fmt: skip
CAPTIONS = [
    "рыжая кошка спит на мягком диване", "собака бежит бежит по пляжу у моря", "автобус",
    "кошка спит на диване",
]  # fmt: skip
# pycocoevalcap 1.2, `Cider().compute_score` on the same texts.
COCO = [3.55280458, 2.61491923, 1.14584546, 0.0236733]


def split(captions, references):
    return [words(c) for c in captions], [[words(r) for r in several] for several in references]


def test_cider_is_cocos():
    np.testing.assert_allclose(cider(*split(CAPTIONS, REFERENCES)), COCO, atol=1e-8)


def test_cider_by_hand():
    # Two images; a word of one image weighs ln 2, a word of both nothing. One word: n-grams of
    # one alone count, a quarter of the mean over n; two equal words have half of it.
    captions, references = ["кот", "пёс бежит"], [["кот"], ["пёс бежит"]]
    np.testing.assert_allclose(cider(*split(captions, references)), [2.5, 5.0])
    # One word of two is right, and the length is right: cosine 1 / sqrt 2 of single words.
    captions = ["кот", "пёс лежит"]
    found = cider(*split(captions, references))
    np.testing.assert_allclose(found[1], 10 / 4 / 2)  # both vectors have two words of equal weight
    # A word too many costs the Gaussian of one word, at sigma 6, and the cosine.
    found = cider(*split(["кот спит", "пёс бежит"], references))
    np.testing.assert_allclose(found[0], 10 / 4 / math.sqrt(2) * math.exp(-1 / 72))


def test_words_that_all_images_have_say_nothing():
    captions, references = split(["кот", "кот"], [["кот"], ["кот"]])
    np.testing.assert_array_equal(cider(captions, references), [0, 0])
    np.testing.assert_array_equal(cider([()], [[words("кот")]]), [0])


def test_metrics_of_a_set():
    found = caption_metrics(CAPTIONS, REFERENCES)
    # sacrebleu 2.6.0 on the command line's settings; CIDEr is the mean of the above.
    assert found["bleu"] == pytest.approx(31.3270944)
    assert found["chrf"] == pytest.approx(52.7236503)
    assert found["cider"] == pytest.approx(np.mean(COCO))
    assert "case:lc" in found["signatures"]["bleu"] and "tok:13a" in found["signatures"]["bleu"]


def test_meteor_by_hand():
    # One word of two matches: P = 1/2, R = 1/2, F = 1/2; one chunk of one match: 1 - 0.5 * 1 ** 3.
    found = caption_metrics(["рыжая кошка", "дом"], [["белая кошка"], ["лес"]])
    assert found["meteor_like"] == pytest.approx((0.5 * 0.5 + 0) / 2)
    # By its stem «кошки» is «кошка»; the better of two references counts.
    inflected = caption_metrics(["две кошки"], [["две кошка", "дом"]])
    assert inflected["meteor_like"] == pytest.approx(1 - 0.5 * (1 / 2) ** 3)


def test_the_references_themselves_are_best_and_case_counts_nowhere():
    same = caption_metrics([several[0].upper() for several in REFERENCES], REFERENCES)
    assert same["bleu"] == pytest.approx(100) and same["chrf"] == pytest.approx(100)
    assert same["meteor_like"] > 0.99


def test_a_mistake_is_one_line(monkeypatch):
    with pytest.raises(InputError, match="1 captions and references of 2 images"):
        caption_metrics(["кот"], [["кот"], ["пёс"]])
    with pytest.raises(InputError, match="a reference of each"):
        caption_metrics(["кот"], [[]])
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(InputError, match=r"sacrebleu.*pip install 'rudolph-jax\[evaluation\]'"):
        caption_metrics(["кот"], [["кот"]])
