import numpy as np
import pytest

from clip_jax import InputError
from clip_jax.position_embedding import resize_position_embedding


@pytest.mark.parametrize(("old", "new"), [(3, 5), (5, 3), (4, 4), (2, 7), (7, 12)])
def test_equals_pytorch(goldens, old, new):
    """Recorded from torch.nn.functional.interpolate(mode='bicubic', align_corners=False)."""
    recorded = np.load(goldens / "positions" / "outputs.npz")
    found = resize_position_embedding(recorded[f"embedding_{old}_{new}"], new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, recorded[f"resized_{old}_{new}"], atol=2e-6)


def test_class_token_is_kept_and_a_flat_grid_stays_flat(rng):
    embedding = np.concatenate([rng.normal(size=(1, 4)), np.full((9, 4), 2.5)])
    resized = resize_position_embedding(embedding, 8)
    np.testing.assert_array_equal(resized[0], embedding[0])
    np.testing.assert_allclose(resized[1:], np.full((64, 4), 2.5), rtol=1e-12)


@pytest.mark.parametrize("shape", [(9, 4), (1, 4), (10,)])
def test_embedding_that_is_no_square_grid_is_refused(shape):
    with pytest.raises(InputError, match=r"expected \[1 \+ n\*n, width\]"):
        resize_position_embedding(np.zeros(shape, np.float32), 4)
