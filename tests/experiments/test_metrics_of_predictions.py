"""Each measure against scikit-learn's, with scores that tie."""

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from clip_jax import InputError
from experiments.evaluation import metrics


@pytest.fixture(params=range(4))
def case(request):
    """Labels of which not all occur, scores of few values and rows that sum to one."""
    rng = np.random.default_rng(request.param)
    classes, count = 9, 120
    labels = rng.integers(0, classes - 2, count)
    scores = rng.integers(0, 4, (count, classes)).astype(float)
    scores[np.arange(count), labels] += rng.integers(0, 3, count)
    return labels, scores, metrics.softmax(scores)


def test_shares_of_what_is_right(case):
    labels, scores, _ = case
    predicted = scores.argmax(axis=1)
    assert metrics.accuracy(labels, predicted) == oracle.accuracy_score(labels, predicted)
    for k in (1, 2, 5):
        expected = oracle.top_k_accuracy_score(labels, scores, k=k, labels=range(9))
        assert metrics.top_k_accuracy(labels, scores, k) == pytest.approx(expected, abs=1e-12)
    seen = np.isin(predicted, labels)  # scikit-learn warns of others, and counts them the same
    assert not seen.all()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = oracle.balanced_accuracy_score(labels, predicted)
    assert metrics.mean_per_class(labels, predicted) == pytest.approx(expected, abs=1e-12)
    recalls = oracle.recall_score(labels, predicted, labels=range(7), average=None)
    np.testing.assert_allclose(list(metrics.per_class(labels, predicted).values()), recalls)


def test_roc_auc(case):
    _, scores, _ = case
    labels = (scores[:, 1] + scores[:, 2] > 3).astype(int)
    expected = oracle.roc_auc_score(labels, scores[:, 1])
    assert len(np.unique(scores[:, 1])) < 9  # ties
    assert metrics.roc_auc(labels, scores[:, 1]) == pytest.approx(expected, abs=1e-12)
    two = scores[:, :2]
    found = metrics.METRICS["roc_auc"](labels, two)
    expected = oracle.roc_auc_score(labels, metrics.softmax(two)[:, 1].round(12))
    assert found == pytest.approx(expected, abs=1e-12)
    for wrong in (np.ones(5, int), np.zeros(5, int), np.array([0, 1, 2])):
        with pytest.raises(InputError, match="expected both 0 and 1"):
            metrics.roc_auc(wrong, np.arange(len(wrong)))
    with pytest.raises(InputError, match="ROC-AUC of 9 classes"):
        metrics.METRICS["roc_auc"](labels, scores)


def test_confusion(case):
    labels, scores, _ = case
    predicted = scores.argmax(axis=1)
    matrix = metrics.confusion(labels, predicted, 9)
    np.testing.assert_array_equal(
        matrix, oracle.confusion_matrix(labels, predicted, labels=range(9))
    )
    pairs = metrics.confused_pairs(matrix, most=81)
    assert sum(count for *_, count in pairs) == (labels != predicted).sum()
    assert all(count == matrix[i, j] and i != j for i, j, count in pairs)
    assert [count for *_, count in pairs] == sorted((c for *_, c in pairs), reverse=True)
    assert metrics.confused_pairs(matrix, most=2) == pairs[:2]


def test_calibration(case):
    labels, _, probabilities = case
    found = metrics.reliability(labels, probabilities, bins=10)
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
    found = metrics.reliability(np.arange(3), np.eye(3))
    assert found.expected_error == 0 and found.counts[-1] == 3
    wrong = metrics.reliability(np.array([1, 2, 0]), np.eye(3))
    assert wrong.expected_error == 1


def test_spread():
    assert metrics.spread([0.25]) == (0.25, 0.0)
    mean, deviation = metrics.spread([1.0, 2.0, 3.0])
    assert (mean, deviation) == (2.0, 1.0)
