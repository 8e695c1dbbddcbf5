import numpy as np

from experiments.demos.candidates import Candidates
from experiments.demos.pixels import PixelClassifier


def test_a_ranking_chooses_one_of_each_group():
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1, 1, 1)
    own = np.zeros((2, 3, 4), np.float32)
    own[..., 2] = -1  # the lowest is the best
    own[1, 0] = [3, 1, 2, 4]
    ruclip = -own  # the highest is the best
    ruclip[0, 0] = [9, 0, 0, 0]
    drawings = Candidates(["а", "б"], images, own, ruclip)
    assert drawings.first()[..., 0, 0, 0].tolist() == [[0, 4, 8], [12, 16, 20]]
    assert drawings.best_by_self()[..., 0, 0, 0].tolist() == [[2, 6, 10], [13, 18, 22]]
    assert drawings.best_by_ruclip()[..., 0, 0, 0].tolist() == [[0, 6, 10], [13, 18, 22]]


def test_the_pixel_classifier_learns_classes(rng):
    kinds = rng.integers(0, 256, (3, 12, 12, 3))
    labels = np.arange(60) % 3
    noisy = np.clip(kinds[labels] + rng.integers(-40, 40, (60, 12, 12, 3)), 0, 255)
    classifier = PixelClassifier(noisy[:30].astype(np.uint8), labels[:30])
    asked = noisy[30:].astype(np.uint8).reshape(5, 6, 12, 12, 3)
    assert (classifier.predict(asked) == labels[30:].reshape(5, 6)).all()
