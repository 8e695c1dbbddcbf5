"""Features of whole data sets: over all devices of all hosts, kept on disk by content.

A device always takes the same number of rows, the last ones filled up with repeats that are
dropped again: so an image's features do not depend on how many devices or hosts there are. An
image that cannot be read keeps its row, black, so that the others' batches stay as they are.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from clip_jax.errors import InputError
from clip_jax.image import PREPROCESSING_VERSION, normalize_pixels, open_image, resize_square
from clip_jax.model import normalize
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.clip_model import System
from experiments.evaluation.sets.captioned_set import CaptionedSet
from experiments.evaluation.sets.labelled_set import LabelledSet
from experiments.evaluation.unreadable import check_any_readable, find_unreadable, why_unreadable

PictureSet = LabelledSet | CaptionedSet
KINDS = ("pre", "post")
# Raised when the same model and pixels are to give other features. 2: unreadable images have none.
FORMAT = 2
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


class Encoder:
    """One system's features of images and of classes.

    devices: of this process, to split batches over; None: wherever the model is. rows: images
    that a device takes at once. process: (index, count) of the hosts that share the work, each of
    which must make the same calls. cache: where features are kept; None: nowhere.
    """

    def __init__(
        self,
        system: System,
        *,
        devices: Sequence[jax.Device] | None = None,
        rows: int = 64,
        process: tuple[int, int] = (0, 1),
        cache: ArrayCache | None = None,
    ) -> None:
        if rows < 1:
            raise InputError(f"batch size is {rows}; expected at least 1")
        self.system = system
        self._clip = system.clip.over_devices(devices) if devices else system.clip
        self._batch = rows * len(devices or (None,))
        self._index, self._count = process
        self._cache = cache

    def images(self, pictures: PictureSet, kind: str = "post") -> ImageFeatures:
        """Features of all pictures of a set.

        kind: "post" gives unit rows of the shared space, float32[N, E]; "pre" what the tower has
        before its projection, float32[N, D]. A set without a readable image raises InputError.
        """
        if kind not in KINDS:
            raise InputError(f"features are {kind!r}; expected one of {', '.join(KINDS)}")
        about = self._about() | {
            "features": kind,
            "set": pictures.name,
            "split": pictures.split,
            "source": pictures.source_hash,
        }
        kept = self._kept_images(about, pictures)
        if kept is not None:
            return kept
        share, reasons = self._encode_share(pictures, kind)
        features = np.array(self._gather(share, len(pictures)))
        reasons = self._gather_reasons(reasons)
        check_any_readable(pictures, len(pictures), reasons)
        features[list(reasons)] = np.nan
        self._keep(about, features)
        return ImageFeatures(features, reasons)

    def classes(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """float32[classes, E], unit rows. prompts: of each class."""
        # The average and the translator change what prompts become.
        about = self._about() | {
            "average": self.system.average,
            "translations": self.system.about()["translations"],
            "prompts": [list(texts) for texts in prompts],
        }
        kept = self._cached(about)
        if kept is None:
            kept = self.system.class_latents(prompts)
            self._keep(about, kept)
        return kept

    def _about(self) -> dict:
        return {
            "format": FORMAT,
            "preprocessing": PREPROCESSING_VERSION,
            "model": self.system.content_hash,
            "dtype": self.system.clip.compute.dtype,
        }

    def _encode_share(
        self, pictures: PictureSet, kind: str
    ) -> tuple[np.ndarray, dict[int, str]]:
        """float32[share, ...], this host's part, filled up with zeros to the share of each; and
        place -> reason of the unreadable images in it.
        """
        share = -(-len(pictures) // self._count)
        places = range(len(pictures))[self._index * share : (self._index + 1) * share]
        size = self._clip.config.vision.image_size
        black = np.zeros((size, size, 3), np.uint8)
        reasons: dict[int, str] = {}
        parts: list[np.ndarray] = []
        title = f"{pictures.name} {pictures.split}"
        bar = tqdm(total=len(places), desc=title, unit=" pictures", disable=None, leave=False)
        with bar:
            for batch in self._squares(pictures, places):
                reasons |= {place: found for place, found in batch if isinstance(found, str)}
                squares = np.stack(
                    [black if isinstance(found, str) else found for _, found in batch]
                )
                used = len(squares)
                fill = np.repeat(squares[-1:], self._batch - used, axis=0)
                pixels = normalize_pixels(
                    np.concatenate([squares, fill]), self._clip.config.image
                )
                parts.append(self._encode(pixels, kind)[:used])
                bar.update(used)
        if not parts:  # more hosts than images
            parts.append(self._encode(np.zeros((0, size, size, 3), np.float32), kind))
        encoded = np.concatenate(parts)
        return np.pad(encoded, ((0, share - len(encoded)), (0, 0))), reasons

    def _encode(self, pixels: np.ndarray, kind: str) -> np.ndarray:
        if kind == "pre":
            return np.asarray(self._clip.encode_image_features(pixels))
        return np.asarray(normalize(self._clip.encode_image(pixels)))

    def _squares(
        self, pictures: PictureSet, places: range
    ) -> Iterator[list[tuple[int, np.ndarray | str]]]:
        """Batches of places with uint8[size, size, 3], or with the reason why there is none.

        Decoded by threads while the devices work.
        """

        def square(place: int) -> tuple[int, np.ndarray | str]:
            found: list[np.ndarray] = []
            why = why_unreadable(pictures, place, lambda data: found.append(self._square(data)))
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

    def _square(self, data: bytes) -> np.ndarray:
        """uint8[size, size, 3] of an encoded image."""
        config = self._clip.config
        return resize_square(open_image(data), config.vision.image_size, config.image)

    def _gather(self, share: np.ndarray, count: int) -> np.ndarray:
        if self._count == 1:
            return share
        return multihost_utils.process_allgather(share).reshape(-1, share.shape[1])[:count]

    def _gather_reasons(self, own: dict[int, str]) -> dict[int, str]:
        """Those of all hosts, in order."""
        if self._count == 1:
            return own
        data = np.frombuffer(json.dumps(list(own.items())).encode("ascii"), np.uint8)
        sizes = multihost_utils.process_allgather(np.asarray(len(data)))
        padded = np.pad(data, (0, int(sizes.max()) - len(data)))
        gathered = multihost_utils.process_allgather(padded)
        parts = [
            json.loads(row[:size].tobytes()) for row, size in zip(gathered, sizes, strict=True)
        ]
        return {int(place): why for part in parts for place, why in part}

    def _kept_images(self, about: dict, pictures: PictureSet) -> ImageFeatures | None:
        """What is kept, unless an image that was unreadable then can be read now."""
        kept = self._cached(about)
        if kept is None:
            return None
        places = np.flatnonzero(np.isnan(kept).all(axis=1)).tolist()
        reasons = find_unreadable(pictures, places, self._square)
        unchanged = np.asarray(len(reasons) == len(places))
        if self._count > 1:
            unchanged = multihost_utils.process_allgather(unchanged)
        return ImageFeatures(kept, reasons) if unchanged.all() else None

    def _cached(self, about: dict) -> np.ndarray | None:
        """What is kept, where every host finds it: all of them compute or none does."""
        kept = self._cache.get(about) if self._cache else None
        if self._count > 1:
            found = multihost_utils.process_allgather(np.asarray(kept is not None))
            return kept if found.all() else None
        return kept

    def _keep(self, about: dict, array: np.ndarray) -> None:
        if self._cache and self._index == 0:
            self._cache.put(about, array)
