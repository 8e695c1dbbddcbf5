"""The command `python -m rudolph_jax upscale`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from clip_jax.cli import any_path, positive_int
from clip_jax.config import Compute
from clip_jax.errors import InputError
from clip_jax.image_file import open_image
from clip_jax.model_folder import atomic_folder, check_destination
from clip_jax.text import escape
from rudolph_jax.cli_commands import ERROR, Results
from rudolph_jax.upscaler.pretrained import (
    BATCH_SIZE,
    OVERLAP,
    TILE,
    PretrainedUpscaler,
    load_upscaler,
)

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", type=any_path)
    add("--model", type=any_path, required=True, help="folder of the super-resolution network")
    add("--out", type=any_path, default=Path("upscaled"), help="new folder for PNGs")
    add("--tile", type=positive_int, default=TILE, help="side of a tile, in pixels of the image")
    add("--overlap", type=_pixels, default=OVERLAP, help="pixels seen around a tile")
    add("--batch-size", type=positive_int, default=BATCH_SIZE, help="tiles at once")
    add("--dtype", choices=DTYPES, default="float32", help="to compute in")
    add("--json", action="store_true", help="one JSON object a line")
    add("--quiet", action="store_true", help="no progress bars")


def upscale(args: argparse.Namespace) -> Results:
    """Writes each image enlarged, as a PNG of its name; returns a result a file.

    One of several files that cannot be read becomes {"image": name, "error": reason}. InputError
    where none can be read, or two would have one name; nothing is written then.
    """
    check_destination(args.out)
    names = _names(args.images)
    upscaler = load_upscaler(args.model, Compute(dtype=args.dtype))
    failed: dict[Path, str] = {}
    results: Results = []
    opened: list[tuple[Path, tuple[int, int]]] = []  # read and not written yet
    with atomic_folder(args.out) as beside:
        images = upscaler.upscale_each(
            _readable(upscaler, args.images, failed, opened),
            args.tile, args.overlap, args.batch_size, quiet=args.quiet,
        )  # fmt: skip
        for image in images:
            file, size = opened.pop(0)
            image.save(beside / names[file])
            results.append(
                {
                    "image": str(file), "file": str(args.out / names[file]),
                    "width": image.width, "height": image.height,
                    "from_width": size[0], "from_height": size[1],
                }
            )  # fmt: skip
        if not results:
            file, reason = next(iter(failed.items()))
            others = f"none of the {len(failed)} images can be read; " if len(failed) > 1 else ""
            raise InputError(f"{others}{escape(str(file))}: {reason}")
    return [*results, *({"image": str(file), ERROR: why} for file, why in failed.items())]


def format_results(results: Results) -> list[str]:
    """Formats results without errors as lines of text."""
    return [
        f"{r['file']}  {r['from_width']}x{r['from_height']} -> {r['width']}x{r['height']}"
        for r in results
    ]


def _readable(
    upscaler: PretrainedUpscaler,
    files: Sequence[Path],
    failed: dict[Path, str],
    opened: list[tuple[Path, tuple[int, int]]],
) -> Iterator[Image.Image]:
    """Yields the images that can be read and are not too large, one at a time."""
    for file in files:
        try:
            image = open_image(file)
            upscaler.check_size(image)
        except InputError as error:
            failed[file] = str(error).removeprefix(f"{escape(str(file))}: ")
        else:
            opened.append((file, image.size))
            yield image


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """Returns the names of the PNGs, which must differ (on disks that ignore case, too)."""
    names: dict[Path, str] = {}
    taken: dict[str, Path] = {}
    for file in files:
        name = f"{file.stem}.png"
        other = taken.setdefault(name.casefold(), file)
        if other is not file:
            raise InputError(
                f"{escape(str(other))} and {escape(str(file))} would both become {escape(name)}; "
                "enlarge them into different folders"
            )
        names[file] = name
    return names


def _pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels; expected 0 or more")
    return int(text)
