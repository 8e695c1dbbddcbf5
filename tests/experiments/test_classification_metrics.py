"""Each measure against its definition, with scores that tie."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from clip_jax import InputError
from experiments.evaluation.metrics import classification


@pytest.fixture(params=range(4))
def case(request):
    """Labels of which not all occur, scores of few values and rows that sum to one."""
    rng = np.random.default_rng(request.param)
    classes, count = 9, 120
    labels = rng.integers(0, classes - 2, count)
    scores = rng.integers(0, 4, (count, classes)).astype(float)
    scores[np.arange(count), labels] += rng.integers(0, 3, count)
    return labels, scores, softmax(scores, axis=1)


def test_shares_of_what_is_right(case):
    labels, scores, _ = case
    predicted = scores.argmax(axis=1)
    rows = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    shares = {
        c: np.mean([guess == label for label, guess in rows if label == c])
        for c in sorted(set(labels.tolist()))
    }
    assert classification.accuracy(labels, predicted) == np.mean([a == b for a, b in rows])
    assert classification.per_class(labels, predicted) == pytest.approx(shares, abs=1e-12)
    assert not set(predicted) <= set(labels)  # classes that do not occur do not count
    expected = np.mean(list(shares.values()))
    assert classification.mean_per_class(labels, predicted) == pytest.approx(expected, abs=1e-12)


def test_the_later_of_equal_scores_comes_first(case):
    labels, scores, _ = case
    order = (np.argsort(scores, axis=1, kind="stable")[:, ::-1]).tolist()
    for k in (1, 2, 5, 9, 20):
        hits = [label in row[:k] for label, row in zip(labels.tolist(), order, strict=True)]
        found = classification.top_k_accuracy(labels, scores, k)
        assert found == pytest.approx(np.mean(hits), abs=1e-12)
    assert classification.top_k_accuracy(labels % 2, scores[:, :2], 5) == 1.0


def test_macro_f1(case):
    labels, scores, _ = case
    predicted = scores.argmax(axis=1)
    f1 = []
    for c in sorted({*labels.tolist(), *predicted.tolist()}):
        both = ((labels == c) & (predicted == c)).sum()
        f1.append(2 * both / ((labels == c).sum() + (predicted == c).sum()))
    assert classification.macro_f1(labels, predicted) == pytest.approx(np.mean(f1), abs=1e-12)


def test_roc_auc(case):
    _, scores, _ = case
    labels = (scores[:, 1] + scores[:, 2] > 3).astype(int)
    assert len(np.unique(scores[:, 1])) < 9  # ties

    def chance(values):
        ones, zeros = values[labels == 1][:, None], values[labels == 0]
        return ((ones > zeros) + (ones == zeros) / 2).mean()

    found = classification.roc_auc(labels, scores[:, 1])
    assert found == pytest.approx(chance(scores[:, 1]), abs=1e-12)
    two = scores[:, :2]
    found = classification.METRICS["roc_auc"](labels, two)
    assert found == pytest.approx(chance(softmax(two, axis=1)[:, 1].round(12)), abs=1e-12)
    for wrong in (np.ones(5, int), np.zeros(5, int), np.array([0, 1, 2])):
        with pytest.raises(InputError, match="expected both 0 and 1"):
            classification.roc_auc(wrong, np.arange(len(wrong)))
    with pytest.raises(InputError, match="ROC-AUC of 9 classes"):
        classification.METRICS["roc_auc"](labels, scores)


def test_confused_pairs(case):
    labels, scores, _ = case
    predicted = scores.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=range(9))
    pairs = classification.confused_pairs(matrix, most=81)
    assert sum(count for *_, count in pairs) == (labels != predicted).sum()
    assert all(count == matrix[i, j] and i != j for i, j, count in pairs)
    assert [count for *_, count in pairs] == sorted((c for *_, c in pairs), reverse=True)
    assert classification.confused_pairs(matrix, most=2) == pairs[:2]


def test_the_twenty_most_frequent_mistakes():
    matrix = np.arange(36).reshape(6, 6)
    pairs = classification.confused_pairs(matrix)
    assert len(pairs) == 20 and pairs[0] == (5, 4, 34)


@pytest.mark.filterwarnings("error")
def test_as_many_as_there_are_classes_hold_the_right_one(case):
    labels, scores, _ = case
    assert classification.top_k_accuracy(labels, scores, scores.shape[1]) == 1


def test_calibration(case):
    labels, _, probabilities = case
    found = classification.reliability(labels, probabilities, bins=10)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    expected, predicted = calibration_curve(right, confidence, n_bins=10)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], expected)
    np.testing.assert_allclose(found.confidence[filled], predicted)
    assert found.counts.sum() == len(labels)
    weights = found.counts[filled] / len(labels)
    distance = (weights * abs(expected - predicted)).sum()
    assert found.expected_error == pytest.approx(distance, abs=1e-12)


def test_certain_and_right_is_calibrated():
    found = classification.reliability(np.arange(3), np.eye(3))
    assert found.expected_error == 0 and found.counts[-1] == 3
    wrong = classification.reliability(np.array([1, 2, 0]), np.eye(3))
    assert wrong.expected_error == 1


def test_metrics_of_sets_by_name(case):
    labels, scores, _ = case
    right = scores.argmax(axis=1) == labels
    assert classification.METRICS["accuracy"](labels, scores) == right.mean()
    classes = [right[labels == each].mean() for each in np.unique(labels)]
    found = classification.METRICS["mean_per_class"](labels, scores)
    assert found == pytest.approx(np.mean(classes), abs=1e-12)


def test_bins_are_fifteen_as_in_the_literature(case):
    """Guo et al. 2017, section 5: M = 15 bins."""
    labels, _, probabilities = case
    found = classification.reliability(labels, probabilities)
    assert len(found.counts) == len(found.confidence) == len(found.accuracy) == 15


def test_spread():
    assert classification.spread([0.25]) == (0.25, 0.0)
    mean, deviation = classification.spread([1.0, 2.0, 3.0])
    assert (mean, deviation) == (2.0, 1.0)
