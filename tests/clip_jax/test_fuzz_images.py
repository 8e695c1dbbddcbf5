"""2,000 images with one changed byte: InputError or pixels, in bounded time and memory."""

import io
import resource
import time

import numpy as np
import pytest
from PIL import Image

from clip_jax import ImageConfig, InputError
from clip_jax.image import preprocess
from clip_jax.image_file import open_image
from experiments.data.sources.records import BadRecord, _check_image

FORMATS = {
    "PNG": {}, "JPEG": {}, "WEBP": {}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"speed": 10}, "BMP": {},
}  # fmt: skip
CHANGES = 2_000
SECONDS, MEGABYTES = 5.0, 1_500  # of one file, of the process's growth over all


def samples(rng):
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 4), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    for format, options in FORMATS.items():
        image = coarse.resize((40, 32)).convert("RGB" if format in ("JPEG", "BMP") else "RGBA")
        buffer = io.BytesIO()
        tagged = {} if format in ("GIF", "BMP") else {"exif": exif}
        image.save(buffer, format, **options, **tagged)
        yield format, buffer.getvalue()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of metadata
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_one_changed_byte(rng):
    config = ImageConfig(resample="bicubic", crop="resize_then_crop")
    files = list(samples(rng))
    outcomes = {format: [0, 0] for format, _ in files}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(CHANGES):
        format, data = files[number % len(files)]
        changed = bytearray(data)
        # Headers decide most, so every other change is near the beginning.
        place = int(rng.integers(min(len(data), 300) if number % 2 else len(data)))
        changed[place] ^= int(rng.integers(1, 256))
        start = time.monotonic()
        try:
            pixels = preprocess([bytes(changed)], 16, config)
            assert pixels.shape == (1, 16, 16, 3) and np.isfinite(pixels).all()
            outcomes[format][0] += 1
        except InputError as error:
            assert str(error).startswith("image bytes: ") and "\n" not in str(error)
            outcomes[format][1] += 1
        try:  # what `prepare` stores must open again
            open_image(_check_image(bytes(changed), 24)[0])
        except BadRecord as error:
            assert "\n" not in str(error)
        assert time.monotonic() - start < SECONDS, (format, place)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES
    # Both ends are met in every format but BMP, which has few bytes to damage.
    assert all(read and failed for format, (read, failed) in outcomes.items() if format != "BMP")
