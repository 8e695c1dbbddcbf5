"""SQuAD's exact match and F1."""

import pytest

from clip_jax import InputError
from experiments.evaluation.metrics.squad import exact_match, f1, normalize, score_answers


def test_normalisation_is_squads():
    assert normalize(" The  Eiffel-Tower, a\tтеатр! ") == "eiffeltower театр"
    assert normalize("Анна и The Beatles") == "анна и beatles"
    assert normalize("«лес»") == "«лес»"  # the script knows ASCII's punctuation alone


def test_exact_match():
    assert exact_match("В 7 лет.", "в 7 лет") == 1
    assert exact_match("в семь лет", "в 7 лет") == 0


def test_f1_counts_repeated_words_as_often_as_both_have_them():
    # Two of three words written are right, two of four wanted were written.
    assert f1("в лесу живёт", "живёт в густой чаще") == pytest.approx(2 * 2 / 7)
    assert f1("да да да", "да нет") == pytest.approx(2 * 1 / 5)
    assert f1("лес", "дом") == 0
    assert f1("the", "") == 1 and f1("", "дом") == 0


def test_each_question_has_its_best_answer():
    scores = score_answers(["лес", "тёмный лес", ""], [["дом", "Лес!"], ["лес"], ["нет"]])
    assert scores == {"exact_match": pytest.approx(1 / 3), "f1": pytest.approx((1 + 2 / 3) / 3)}
    for answers, right in ((["a"], []), ([], []), (["a"], [[]])):
        with pytest.raises(InputError, match="expected as many of both"):
            score_answers(answers, right)
