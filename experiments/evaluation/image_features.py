"""Extracts features of whole data sets, over all devices of all hosts.

A device always takes the same number of rows, the last ones filled up with repeats that are
dropped again: so an image's features do not depend on how many devices or hosts there are. An
image that cannot be read has its row, black, so that the others' batches stay as they are.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from tqdm import tqdm

from clip_jax import PretrainedClip
from clip_jax.image import normalize_pixels, open_image, resize_square
from clip_jax.model import normalize
from experiments.evaluation.multihost import gather_notes, gather_rows
from experiments.evaluation.sets.captioned_set import CaptionedSet
from experiments.evaluation.sets.labelled_set import LabelledSet
from experiments.evaluation.unreadable import check_any_readable, why_unreadable

ImageSet = LabelledSet | CaptionedSet
FEATURES = ("pre", "post")  # before the projection, or after it, of unit length
AHEAD = 2  # batches that are decoded while the devices work


@dataclasses.dataclass(frozen=True)
class ImageFeatures:
    """values: float32[N, D] of a set's images in its order, rows of NaN for the unreadable.

    unreadable: place -> reason of those.
    """

    values: np.ndarray
    unreadable: Mapping[int, str]

    @property
    def readable(self) -> np.ndarray:
        """int[M]: the places of the others."""
        return np.setdiff1d(np.arange(len(self.values)), list(self.unreadable))


class FeatureExtractor:
    """Runs a model's image tower over sets.

    rows: images that a device takes at once.
    devices: of this host, to split batches over; the hosts then share a set. None: wherever the
        model is, this host alone.
    """

    def __init__(
        self, clip: PretrainedClip, rows: int, devices: Sequence[jax.Device] | None = None
    ) -> None:
        self._clip = clip.replicate(devices) if devices else clip
        self._batch = rows * len(devices or (None,))
        self._shared = bool(devices)

    def extract(self, images: ImageSet, kind: str) -> ImageFeatures:
        """Features of all images. kind: one of FEATURES. Without a readable one InputError."""
        hosts, host = jax.process_count() if self._shared else 1, jax.process_index()
        share = -(-len(images) // hosts)
        first = host * share if self._shared else 0
        values, reasons = self._encode(images, range(len(images))[first : first + share], kind)
        if self._shared:
            values = gather_rows(np.pad(values, ((0, share - len(values)), (0, 0))), len(images))
            reasons = gather_notes(reasons)
        check_any_readable(images, len(images), reasons)
        values = np.array(values)
        values[list(reasons)] = np.nan
        return ImageFeatures(values, reasons)

    def square(self, data: bytes) -> np.ndarray:
        """uint8[size, size, 3] of an encoded image."""
        config = self._clip.config
        return resize_square(open_image(data), config.vision.image_size, config.image)

    def _encode(
        self, images: ImageSet, places: range, kind: str
    ) -> tuple[np.ndarray, dict[int, str]]:
        """float32[places, ...], and place -> reason of the unreadable images among them."""
        size = self._clip.config.vision.image_size
        black = np.zeros((size, size, 3), np.uint8)
        reasons: dict[int, str] = {}
        parts: list[np.ndarray] = []
        title = f"{images.name} {images.split}"
        with tqdm(total=len(places), desc=title, unit=" images", disable=None, leave=False) as bar:
            for batch in self._squares(images, places):
                reasons |= {place: found for place, found in batch if isinstance(found, str)}
                squares = np.stack(
                    [black if isinstance(found, str) else found for _, found in batch]
                )
                used = len(squares)
                fill = np.repeat(squares[-1:], self._batch - used, axis=0)
                pixels = normalize_pixels(
                    np.concatenate([squares, fill]), self._clip.config.image
                )
                parts.append(self._encode_batch(pixels, kind)[:used])
                bar.update(used)
        if not parts:  # more hosts than images
            parts.append(self._encode_batch(np.zeros((0, size, size, 3), np.float32), kind))
        return np.concatenate(parts), reasons

    def _encode_batch(self, pixels: np.ndarray, kind: str) -> np.ndarray:
        if kind == "pre":
            return np.asarray(self._clip.encode_image_features(pixels))
        return np.asarray(normalize(self._clip.encode_image(pixels)))

    def _squares(
        self, images: ImageSet, places: range
    ) -> Iterator[list[tuple[int, np.ndarray | str]]]:
        """Batches of places with uint8[size, size, 3], or with the reason why there is none.

        Decoded by threads while the devices work.
        """

        def square(place: int) -> tuple[int, np.ndarray | str]:
            found: list[np.ndarray] = []
            why = why_unreadable(images, place, lambda data: found.append(self.square(data)))
            return place, why or found[0]

        waiting: deque[list[Future[tuple[int, np.ndarray | str]]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for start in range(0, len(places), self._batch):
                    batch = places[start : start + self._batch]
                    waiting.append([pool.submit(square, place) for place in batch])
                    if len(waiting) > AHEAD:
                        yield [future.result() for future in waiting.popleft()]
                while waiting:
                    yield [future.result() for future in waiting.popleft()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
