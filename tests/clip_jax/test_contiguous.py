import ml_dtypes
import numpy as np
import pytest

from clip_jax.contiguous import copy_contiguous

ARRAYS = {
    "kernel": np.arange(35 * 50).reshape(35, 50).T,
    "queries": np.arange(24 * 40).reshape(3, 2, 4, 40).transpose(3, 0, 1, 2),
    "backwards": np.arange(40).reshape(5, 8)[:, ::-1],
    "every other": np.arange(80).reshape(5, 16)[:, ::2],
    "broadcast": np.broadcast_to(np.arange(5)[:, None], (5, 7)),
    "empty": np.empty((0, 3)).T,
    "in order": np.arange(12).reshape(3, 4),
    "vector": np.arange(40)[::2],
    "number": np.array(3.5),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ARRAYS)
def test_copy_is_equal_contiguous_and_owns_its_data(name, dtype):
    array = ARRAYS[name]
    copy = copy_contiguous(array, np.dtype(dtype))
    assert copy.dtype == dtype and copy.flags.c_contiguous and copy.flags.owndata
    np.testing.assert_array_equal(copy, array.astype(dtype))
