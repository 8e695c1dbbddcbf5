"""The probe's optimum against scikit-learn's, which is written in other words."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from experiments.evaluation.methods import logistic_regression
from experiments.evaluation.methods.logistic_regression import LogisticRegressionFit


def loss(kernel, bias, features, labels, C):
    """The objective over C and the number of examples, in float64."""
    logits = features.astype(np.float64) @ kernel + bias
    top = logits.max(axis=1)
    sums = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    losses = sums - logits[np.arange(len(labels)), labels]
    return losses.mean() + np.square(kernel).sum() / (2 * C * len(labels))


@pytest.fixture(scope="module")
def separable():
    features, labels = load_digits(return_X_y=True)
    return (features[:100] / 16).astype(np.float32), labels[:100]


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(1)
    return 3 * rng.normal(size=(203, 24)).astype(np.float32), rng.integers(0, 7, 203)


@pytest.mark.parametrize("data", ["separable", pytest.param("mixed", marks=pytest.mark.slow)])
def test_the_optimum_is_scikit_learns(data, request):
    features, labels = request.getfixturevalue(data)
    classes = labels.max() + 1
    problem = LogisticRegressionFit(features, labels, classes)
    found = None
    for C in (1e-6, 1e-2, 1.0, 1e2, 1e6):
        found = problem.fit(C, found)
        oracle = LogisticRegression(C=C, max_iter=300, tol=1e-9, solver="newton-cg")
        oracle.fit(features.astype(np.float64), labels)
        best = loss(oracle.coef_.T, oracle.intercept_, features, labels, C)
        reached = loss(found.kernel, found.bias, features, labels, C)
        assert reached - best < 1e-4 and reached - best < 1e-3 * best + 1e-5
        # Classes of equally many examples differ by 3e-8 at the smallest C, which float32 cannot
        # decide (its scores are 1e-4 off there): any class within 1e-3 of the best is right.
        scores = oracle.decision_function(features.astype(np.float64))
        chosen = found.scores(features).argmax(axis=1)
        assert (scores.max(axis=1) - scores[np.arange(len(scores)), chosen]).max() < 1e-3


def test_a_start_elsewhere_and_more_devices_change_nothing(mixed, monkeypatch):
    features, labels = mixed
    alone = LogisticRegressionFit(features, labels, 7, jax.devices())  # too few to spread
    monkeypatch.setattr(logistic_regression, "SPREAD", 0)
    spread = LogisticRegressionFit(features, labels, 7, jax.devices())  # 203 is no multiple of 8
    cold = alone.fit(1.0)
    for other in (alone.fit(1.0, alone.fit(1e-4)), spread.fit(1.0)):
        np.testing.assert_allclose(other.kernel, cold.kernel, atol=2e-4)
        np.testing.assert_allclose(other.bias, cold.bias, atol=2e-4)


def test_only_many_numbers_are_spread_over_devices(mixed, monkeypatch):
    features, labels = mixed
    for least, devices in ((features.size, 8), (features.size + 1, 1)):
        monkeypatch.setattr(logistic_regression, "SPREAD", least)
        found = LogisticRegressionFit(features, labels, 7, jax.devices())._examples
        assert {len(array.sharding.device_set) for array in found} == {devices}
        rows = len(found[0])
        assert rows % devices == 0 and 0 <= rows - len(features) < devices
        assert float(found[2].sum()) == len(features)  # rows that fill up weigh nothing
    alone = LogisticRegressionFit(features, labels, 7)
    assert alone._examples[0].sharding.device_set == {jax.devices()[0]}


def test_a_start_at_the_optimum_is_the_end(mixed):
    """A fit always takes a step, and stops soon where none leads lower."""
    features, labels = mixed
    problem = LogisticRegressionFit(features, labels, 7)
    cold = problem.fit(1e-2)
    again = problem.fit(1e-2, cold)
    assert 1 <= again.steps <= logistic_regression.PATIENCE + 1
    assert again.steps < cold.steps < logistic_regression.ITERATIONS
    np.testing.assert_allclose(again.scores(features), cold.scores(features), atol=1e-3)


def test_a_gradient_that_float32_cannot_bring_to_zero_ends_the_search(mixed):
    """At such sizes rounding keeps it above TOLERANCE: all ITERATIONS would be taken."""
    features, labels = mixed
    found = LogisticRegressionFit(100 * features, labels, 7).fit(1.0)
    assert logistic_regression.PATIENCE < found.steps < logistic_regression.ITERATIONS // 2


def test_a_class_without_examples_is_never_chosen(mixed):
    features, labels = mixed
    found = LogisticRegressionFit(features, labels % 5, 7).fit(1.0)
    assert set(found.scores(features).argmax(axis=1)) <= set(range(5))
