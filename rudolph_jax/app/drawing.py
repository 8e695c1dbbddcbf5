"""A drawing, step by step: images as they are finished, then ranked and packed."""

from __future__ import annotations

import dataclasses
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from clip_jax import Predictor
from clip_jax.errors import InputError
from rudolph_jax import tasks
from rudolph_jax.app.limits import Limits
from rudolph_jax.png_files import image_metadata, png_bytes, write_images
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.text_encoding import truncated_left_text

ARCHIVE = "drawings.zip"
MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Request:
    """What the page asks for, unchecked.

    guidance: share of the unconditional prediction, 0: none. picture: an uploaded file, of which
    `borders`, in tokens by side, are kept.
    """

    text: str
    count: float = 8
    seed: float = 0
    guidance: float = 0.0
    temperature: float | None = None
    top_k: float | None = None
    top_p: float | None = None
    picture: str | Path | None = None
    borders: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Progress:
    """pictures: files with what is written below each. At the end also archive: of all of them,
    and score: what is written there. lost: what of the prompt the model has no room for."""

    done: int
    wanted: int
    pictures: list[tuple[Path, str]]
    archive: Path | None = None
    score: str = ""
    lost: str = ""
    stopped: bool = False


def draw(
    rudolph: PretrainedRudolph,
    predictor: Predictor | None,
    request: Request,
    limits: Limits,
    folder: Path,
    *,
    batch_size: int,
    stopped: Callable[[], bool] = lambda: False,
    device: threading.Lock,
) -> Iterator[Progress]:
    """Yields after each batch, and once more with the images ranked, the best first.

    folder: an empty one for the files. stopped: asked before each batch; what is drawn by then is
    ranked as well. device: held while the models are at work, and not between the batches.
    """
    text = limits.text("prompt", request.text, needed=True)
    count = limits.count("number of pictures", request.count)
    seed = whole("seed", request.seed, MAX_SEED)
    with device:
        image_prompts = _kept(rudolph, request, limits)
    batches = tasks.draw_in_batches(
        rudolph, text, count, image_prompts=image_prompts, guidance=request.guidance or None,
        temperature=request.temperature, top_p=request.top_p, seed=seed, batch_size=batch_size,
        top_k=None if request.top_k is None else whole("top-k", request.top_k, MAX_SEED),
        quiet=True,
    )  # fmt: skip
    drawn: list[np.ndarray] = []
    shown: list[tuple[Path, str]] = []
    lost = truncated_left_text(rudolph.tokenizer, rudolph.config, text)
    yield Progress(0, count, [])
    while len(shown) < count and not stopped():
        with device:
            codes = next(batches)
            pictures = rudolph.decode_images(codes)
        drawn.append(codes)
        for picture in pictures:
            file = folder / f"{len(shown) + 1}.png"
            file.write_bytes(png_bytes(picture))
            shown.append((file, ""))
        yield Progress(len(shown), count, list(shown))
    if not drawn:
        yield Progress(0, count, [], stopped=True)
        return
    codes = np.concatenate(drawn)
    with device:
        order, scores = tasks.rank_images(rudolph, text, codes, predictor, batch_size=batch_size)
        ranked = rudolph.decode_images(codes[order])
    about = image_metadata(text, seed, order, scores)
    files = write_images(folder / "ranked", ranked, about)
    name = next(iter(scores))
    captions = [f"{scores[name][i]:.3f}" for i in order]
    yield Progress(
        len(files), count, list(zip(files, captions, strict=True)), _archive(folder), name,
        stopped=len(files) < count, lost=lost,
    )  # fmt: skip


def whole(name: str, value: float | None, most: int) -> int:
    """A whole number from 0, which pages may send as a float."""
    if value is None or value != int(value) or not 0 <= value <= most:
        raise InputError(f"the {name} is {value}; expected a whole number from 0 to {most}")
    return int(value)


def _kept(rudolph: PretrainedRudolph, request: Request, limits: Limits) -> np.ndarray | None:
    """Image prompts, if borders of an image are to be kept."""
    widest = rudolph.config.image_tokens_per_side
    borders = {side: whole(side, width, widest) for side, width in request.borders.items()}
    if not request.picture:
        if any(borders.values()):
            raise InputError("borders are to be kept, but of no picture; drop one into its field")
        return None
    if not any(borders.values()):
        raise InputError("a picture is given, but no border of it to keep; move one of the sliders")
    return tasks.keep_borders(rudolph, limits.picture(request.picture), borders)


def _archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for file in sorted((folder / "ranked").iterdir()):
            archive.write(file, file.name)
    return folder / ARCHIVE
