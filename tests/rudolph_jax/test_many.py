"""Many images, or many texts, at once: the same as one by one, whatever the batches."""

import numpy as np
import pytest

from clip_jax.errors import InputError
from rudolph_jax import tasks

CAPTIONS = ["кошка", "большая собака", "дом", "а", "лес и река"]


@pytest.fixture(scope="module")
def pictures():
    return list(np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def one_by_one(api, pictures):
    return np.concatenate([tasks.class_perplexities(api, [p], CAPTIONS) for p in pictures])


@pytest.mark.parametrize("batch_size", [2, 12, 64])
def test_perplexities_do_not_depend_on_the_batches(api, pictures, one_by_one, batch_size):
    # Fewer captions at once than there are, one image at once, two, all.
    found = tasks.class_perplexities(api, pictures, CAPTIONS, batch_size=batch_size)
    assert found.shape == (4, 5)
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5)


def test_perplexities_are_what_zero_shot_judges_by(api, pictures, one_by_one):
    for picture, row in zip(pictures, one_by_one, strict=True):
        result = tasks.zs_clf(api, picture, CAPTIONS)
        unit = row / np.linalg.norm(row)
        np.testing.assert_allclose(result["scores"], np.exp(unit) / np.exp(unit).sum(), rtol=1e-5)
        assert result["label"] == row.argmin()
    # The images matter.
    assert np.ptp(one_by_one, axis=0).min() > 1e-3


def test_no_pictures_and_no_captions(api, pictures):
    assert tasks.class_perplexities(api, [], CAPTIONS).shape == (0, 5)
    with pytest.raises(InputError, match="captions are"):
        tasks.class_perplexities(api, pictures, [])
    with pytest.raises(InputError, match="batch_size is 0"):
        tasks.class_perplexities(api, pictures, CAPTIONS, batch_size=0)


def test_a_texts_drawing_follows_from_seed_and_place(api):
    how = {"temperature": 1.0, "seed": 3}
    together = tasks.draw_texts(api, CAPTIONS, batch_size=64, **how)
    assert together.shape == (5, 16)
    parts = tasks.draw_texts(api, CAPTIONS, batch_size=2, **how)
    np.testing.assert_array_equal(parts, together)
    later = tasks.draw_texts(api, CAPTIONS[3:], batch_size=2, first_text=3, **how)
    np.testing.assert_array_equal(later, together[3:])
    # The first text is prompt 0 of the task that draws from one text.
    alone = tasks.generate_codebooks(api, CAPTIONS[0], 1, **how)
    np.testing.assert_array_equal(alone, together[:1])
    other = tasks.draw_texts(api, CAPTIONS, temperature=1.0, seed=4)
    assert (other != together).any(axis=1).all()
    same = tasks.draw_texts(api, CAPTIONS[:1] * 5, **how)
    assert len(np.unique(same, axis=0)) == 5


def test_no_texts_give_no_drawings(api):
    assert tasks.draw_texts(api, []).shape == (0, 16)


def test_other_numbers_compile_nothing(api, pictures, compilations):
    def use(count):
        images, texts = (pictures * 3)[:count], (CAPTIONS * 3)[:count]
        tasks.class_perplexities(api, images, texts, batch_size=24)
        tasks.zs_clf(api, images[0], texts)
        assert len(tasks.caption_images(api, images, batch_size=8)) == count
        assert tasks.image_features(api, images).shape == (count, api.config.width)
        assert len(api.decode_images(api.encode_images(images))) == count

    use(8)
    assert compilations
    compilations.clear()
    use(7)
    assert not compilations
