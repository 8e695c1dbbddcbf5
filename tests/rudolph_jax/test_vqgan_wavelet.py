import numpy as np

from rudolph_jax.wavelet import HIGH, LOW, downsample, inverse_dwt


def analysis(pixels):
    """[2, 2] -> low, high vertically, high horizontally, high both ways."""
    low, high = np.float64(LOW), np.float64(HIGH)
    return [low @ pixels @ low, high @ pixels @ low, low @ pixels @ high, high @ pixels @ high]


def test_bands_of_a_small_picture():
    """A coefficient of each band, and the four pixels that it alone makes."""
    expected = {
        "low": [[1, 1], [1, 1]],
        "vertical": [[1, 1], [-1, -1]],
        "horizontal": [[1, -1], [1, -1]],
        "both": [[1, -1], [-1, 1]],
    }
    for band, pixels in enumerate(expected.values()):
        coefficients = np.zeros((1, 1, 1, 12), np.float32)
        green = 1 if band == 0 else 3 + 3 * 1 + (band - 1)
        coefficients[..., green] = 2
        found = np.asarray(inverse_dwt(coefficients))[0]
        np.testing.assert_array_equal(found[..., 1], pixels)
        assert not found[..., 0].any() and not found[..., 2].any()


def test_synthesis_inverts_analysis(rng):
    pixels = rng.normal(size=(2, 6, 10, 3))
    coefficients = np.zeros((2, 3, 5, 12), np.float32)
    for b, i, j, c in np.ndindex(2, 3, 5, 3):
        bands = analysis(pixels[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c])
        coefficients[b, i, j, [c, 3 + 3 * c, 4 + 3 * c, 5 + 3 * c]] = bands
    np.testing.assert_allclose(inverse_dwt(coefficients), pixels, atol=1e-5)


def test_half_a_picture_is_half_its_low_band(rng):
    pixels = rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
    coefficients = np.zeros((2, 2, 3, 12), np.float32)
    coefficients[..., :3] = 2 * downsample(pixels)
    smooth = np.asarray(inverse_dwt(coefficients))
    np.testing.assert_allclose(downsample(smooth), downsample(pixels), atol=1e-5)
    np.testing.assert_array_equal(smooth[:, ::2, ::2], smooth[:, 1::2, 1::2])
