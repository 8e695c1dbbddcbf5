"""The pictures that every peer embeds: the same numbers from numpy in any environment."""

import numpy as np


def pixels(batch: int, size: int) -> np.ndarray:
    """float32[batch, size, size, 3] of unit normal values."""
    numbers = np.random.RandomState(0).standard_normal((batch, size, size, 3))
    return numbers.astype(np.float32)
