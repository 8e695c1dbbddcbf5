import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from experiments.demos.pixels import (
    logistic_regression,
    nearest_labels,
    pixel_features,
    pixel_similarities,
)
from experiments.evaluation.methods.retrieval import number, rank, rank_latents, retrieve_both
from experiments.evaluation.methods.zero_shot import ZeroShotResult
from experiments.evaluation.report import figures
from experiments.evaluation.report.page import PngImage, Section, Table, write_page


def test_ranks_and_recall():
    similarities = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.7, 0.7, 0.7]])
    result = rank(similarities, np.array([0, 0, 1]))
    assert result.ranks.tolist() == [0, 2, 2]  # a tie counts against the model
    assert [result.recall(k) for k in (1, 2, 3)] == [1 / 3, 1 / 3, 1]
    assert result.best[0].tolist() == [0, 2, 1]


def test_of_several_right_ones_the_first_counts():
    similarities = np.array([[0.9, 0.8, 0.5], [0.2, 0.3, 0.4], [0.7, 0.7, 0.1]])
    result = rank(similarities, [[1, 2], [1, 2], [0, 1]])
    assert result.ranks.tolist() == [1, 0, 0]  # equals of which both are right
    parts = rank_latents(similarities, np.eye(3), [[1, 2], [1, 2], [0, 1]], rows=2)
    assert parts.ranks.tolist() == [1, 0, 0] and parts.best.shape == (3, 3)


def test_recall_equals_scikit_learns(rng):
    similarities, answers = rng.random((60, 20)), rng.integers(0, 20, 60)
    result = rank(similarities, answers)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(answers, similarities, k=k, labels=range(20))
        assert result.recall(k) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_five_most_alike_come_in_order_of_any_number_of_candidates(queries, count, rows, seed):
    rng = np.random.default_rng(seed)
    similarities = rng.integers(0, 4, (queries, count)).astype(float)  # with ties
    answers = rng.integers(0, count, queries)
    whole = rank(similarities, answers)
    assert whole.best.shape == (queries, min(count, 5))
    for row, best in zip(similarities, whole.best, strict=True):
        expected = sorted(range(count), key=lambda candidate: (-row[candidate], candidate))[:5]
        assert best.tolist() == expected
    parts = rank_latents(similarities, np.eye(count), answers, rows=rows)
    np.testing.assert_array_equal(parts.best, whole.best)
    np.testing.assert_array_equal(parts.ranks, whole.ranks)


def test_captions_are_found_both_ways():
    captions = number([["кот", "кошка"], ["дом"], ["кот"]])
    assert captions.texts == ["кот", "кошка", "дом"]
    assert captions.image_to_captions == [[0, 1], [2], [0]]
    assert captions.caption_to_images == [[0, 2], [0], [1]]
    images = np.array([[1.0, 0], [0, 1], [0.8, 0.6]])
    texts = np.array([[0.6, 0.8], [1, 0], [0, 1]])
    found = retrieve_both(images, texts, captions)
    # Third picture: «кот» .96, «кошка» .8, «дом» .6. «кот»: third image .96, second .8, first .6.
    assert found.texts.ranks.tolist() == [0, 0, 0]
    assert found.images.ranks.tolist() == [0, 0, 0]
    worse = retrieve_both(images[[1, 0, 2]], texts, captions)
    assert worse.texts.ranks.tolist() == [1, 2, 0]
    assert worse.images.ranks.tolist() == [0, 2, 2]
    assert worse.recalls()["text_to_image"] == {
        "recall@1": 1 / 3, "recall@5": 1.0, "recall@10": 1.0,
    }  # fmt: skip


def test_zero_shot_accuracy_counts_matches():
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 2])
    assert ZeroShotResult(labels, predicted, np.zeros((4, 3))).accuracy == 0.75


def test_nearest_neighbour_equals_scikit_learn(rng):
    references, queries = rng.random((50, 12)), rng.random((20, 12))
    labels = rng.integers(0, 4, 50)
    expected = KNeighborsClassifier(1).fit(references, labels).predict(queries)
    np.testing.assert_array_equal(nearest_labels(queries, references, labels), expected)
    distances = ((queries[:, None] - references[None]) ** 2).sum(-1)
    np.testing.assert_allclose(pixel_similarities(queries, references), -distances, atol=1e-9)


def test_logistic_regression_separates_what_can_be(rng):
    labels = rng.integers(0, 3, 60)
    features = np.eye(3)[labels] + rng.normal(scale=0.05, size=(60, 3))
    predicted = logistic_regression(features[:40], labels[:40], features[40:])
    np.testing.assert_array_equal(predicted, labels[40:])


def test_pixel_features():
    image = Image.new("L", (30, 30), 51)
    np.testing.assert_allclose(pixel_features([image], 4), np.full((1, 48), 0.2), atol=1e-6)


@pytest.fixture
def sections(rng):
    pictures = list(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    captions = ["семь", "пять", "очень длинная подпись, которую надо сократить", "<b>"]
    return [
        Section("Таблица", "note & more", Table(("a", "b"), [("ruCLIP", "99.0 %"), ("<x>", "1")])),
        Section(
            "Loss", "", PngImage("loss", figures.loss_curve(range(50), [1.0] * 50, "loss"), "Loss")
        ),
        Section(
            "Matrix",
            "",
            PngImage(
                "matrix",
                figures.similarity_matrix(rng.normal(size=(4, 4)), pictures, captions),
                "cosines",
            ),
        ),
        Section(
            "Grid",
            "",
            PngImage(
                "grid",
                figures.image_grid(pictures, captions, [True, False, True, False]),
                "names",
            ),
        ),
    ]


def test_the_page_is_self_contained_and_escaped(tmp_path, sections):
    page = write_page(tmp_path, "Отчёт", "lead", sections).read_text(encoding="utf-8")
    assert "Отчёт" in page and "note &amp; more" in page and "&lt;x&gt;" in page
    sources = re.findall(r'src="([^"]{5})', page)
    assert sources == ["data:"] * 3
    assert not re.search(r"https?://|<script|<link|@import", page)
    for name in ("loss", "matrix", "grid"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 100
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html", "loss.png", "matrix.png", "grid.png",
    }  # fmt: skip
    before = (tmp_path / "report.html").read_bytes()
    write_page(tmp_path, "Отчёт", "lead", sections)
    assert (tmp_path / "report.html").read_bytes() == before
