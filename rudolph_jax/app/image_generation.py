"""Image generation for the page: images batch by batch, then ranked and archived."""

from __future__ import annotations

import dataclasses
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from clip_jax import Predictor
from clip_jax.errors import InputError
from rudolph_jax import tasks
from rudolph_jax.app.limits import Limits
from rudolph_jax.png_files import image_metadata, png_bytes, write_images
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.text_encoding import truncated_left_text
from rudolph_jax.upscaler.pretrained import PretrainedUpscaler

ARCHIVE = "drawings.zip"
MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class GenerationRequest:
    """Request of the page, not validated yet.

    guidance: weight of the unconditional prediction, 0: none.
    image, borders: an uploaded file, and the widths in tokens of its borders that are kept.
    upscale: enlarge the ranked images by super-resolution.
    """

    text: str
    count: float = 8
    seed: float = 0
    guidance: float = 0.0
    temperature: float | None = None
    top_k: float | None = None
    top_p: float | None = None
    image: str | Path | None = None
    borders: Mapping[str, float] = dataclasses.field(default_factory=dict)
    upscale: bool = False


@dataclasses.dataclass(frozen=True)
class GenerationProgress:
    """Progress of a generation.

    images: files with their captions.
    archive, score: at the end, a zip of all files, and the name of the score in the captions.
    truncated: end of the prompt that does not fit the model.
    upscaled: factor by which the ranked images are or were enlarged; 1: they are not.
    enlarged: how many have been, while it is at work.
    """

    done: int
    total: int
    images: list[tuple[Path, str]]
    archive: Path | None = None
    score: str = ""
    truncated: str = ""
    stopped: bool = False
    upscaled: int = 1
    enlarged: int = 0


def generate_images(
    rudolph: PretrainedRudolph,
    predictor: Predictor | None,
    request: GenerationRequest,
    limits: Limits,
    folder: Path,
    *,
    batch_size: int,
    is_cancelled: Callable[[], bool] = lambda: False,
    device: threading.Lock,
    upscaler: PretrainedUpscaler | None = None,
) -> Iterator[GenerationProgress]:
    """Yields after each batch, and once more with the images ranked, the best first.

    folder: an empty one for the files.
    is_cancelled: called before each batch; images that are finished by then are ranked too.
    device: lock that is held while the models run, and not between the batches.
    upscaler: of requests that want it; InputError where there is none. Images that are stopped
        before all are enlarged stay as they were drawn.
    """
    if request.upscale and upscaler is None:
        raise InputError("no super-resolution network was given: start the page with --upscaler")
    text = limits.text("prompt", request.text, required=True)
    count = limits.count("number of images", request.count)
    seed = parse_int("seed", request.seed, MAX_SEED)
    with device:
        image_prompts = _image_prompts(rudolph, request, limits)
    batches = tasks.draw_in_batches(
        rudolph, text, count, image_prompts=image_prompts, guidance=request.guidance or None,
        temperature=request.temperature, top_p=request.top_p, seed=seed, batch_size=batch_size,
        top_k=None if request.top_k is None else parse_int("top-k", request.top_k, MAX_SEED),
        quiet=True,
    )  # fmt: skip
    code_batches: list[np.ndarray] = []
    finished: list[tuple[Path, str]] = []
    truncated = truncated_left_text(rudolph.tokenizer, rudolph.config, text)
    yield GenerationProgress(0, count, [])
    while len(finished) < count and not is_cancelled():
        with device:
            codes = next(batches)
            images = rudolph.decode_images(codes)
        code_batches.append(codes)
        for image in images:
            file = folder / f"{len(finished) + 1}.png"
            file.write_bytes(png_bytes(image))
            finished.append((file, ""))
        yield GenerationProgress(len(finished), count, list(finished))
    if not code_batches:
        yield GenerationProgress(0, count, [], stopped=True)
        return
    codes = np.concatenate(code_batches)
    with device:
        order, scores = tasks.rank_images(rudolph, text, codes, predictor, batch_size=batch_size)
        ranked = rudolph.decode_images(codes[order])
    metadata = image_metadata(text, seed, order, scores)
    scale, enlarged = 1, list[Image.Image]()
    while request.upscale and upscaler is not None and len(enlarged) < len(ranked):
        yield GenerationProgress(
            len(finished), count, list(finished), upscaled=upscaler.scale, enlarged=len(enlarged)
        )
        if is_cancelled():
            break
        with device:
            enlarged += upscaler.upscale([ranked[len(enlarged)]])
        if len(enlarged) == len(ranked):
            ranked, scale = enlarged, upscaler.scale
            metadata = [{**each, "upscale": scale} for each in metadata]
            break
    files = write_images(folder / "ranked", ranked, metadata)
    name = next(iter(scores))
    captions = [f"{scores[name][i]:.3f}" for i in order]
    yield GenerationProgress(
        len(files), count, list(zip(files, captions, strict=True)), _archive(folder), name,
        stopped=len(files) < count, truncated=truncated, upscaled=scale,
    )  # fmt: skip


def parse_int(name: str, value: float | None, largest: int) -> int:
    """Returns a whole number from 0 to `largest`, which pages may send as a float."""
    if value is None or value != int(value) or not 0 <= value <= largest:
        raise InputError(f"the {name} is {value}; expected a whole number from 0 to {largest}")
    return int(value)


def _image_prompts(
    rudolph: PretrainedRudolph, request: GenerationRequest, limits: Limits
) -> np.ndarray | None:
    """Returns image prompts, or None where no borders are kept."""
    widest = rudolph.config.image_tokens_per_side
    borders = {side: parse_int(side, width, widest) for side, width in request.borders.items()}
    if not request.image:
        if any(borders.values()):
            raise InputError("borders are given without an image; upload an image")
        return None
    if not any(borders.values()):
        raise InputError("an image is given, but no border to keep; move a slider")
    return tasks.keep_borders(rudolph, limits.open_upload(request.image), borders)


def _archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for file in sorted((folder / "ranked").iterdir()):
            archive.write(file, file.name)
    return folder / ARCHIVE
