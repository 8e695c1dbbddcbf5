"""The command `app`: its arguments, and the models and the page that they ask for."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import clip_jax
from clip_jax.cli import positive_int
from clip_jax.config import Compute
from clip_jax.errors import InputError
from clip_jax.model_folder import read_config
from clip_jax.search import list_images
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.origins import parse_origin
from rudolph_jax.app.searching import Shelf
from rudolph_jax.app.server import PORT, check_gradio, serve
from rudolph_jax.app.studio import Studio
from rudolph_jax.pretrained import load

# Limits that are arguments: field -> what it counts.
LIMITS = {
    "pictures": "pictures that one drawing or search may have",
    "prompt": "characters of a prompt",
    "labels": "labels to classify with",
    "label": "characters of a label",
    "upload_mb": "megabytes of an uploaded file",
    "uploads_mb": "megabytes of all files uploaded within two hours",
    "megapixels": "megapixels of an uploaded picture",
    "waiting": "tasks that may wait in the queue",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="the RUDOLPH folder")
    parser.add_argument("--vqgan", type=Path, required=True, help="the image tokenizer's folder")
    parser.add_argument(
        "--ruclip", type=Path, help="ranks drawings, classifies and searches; a ruCLIP folder"
    )
    parser.add_argument("--pictures", type=Path, help="a folder to search, in folders below it too")
    parser.add_argument("--host", default="127.0.0.1", help="who can reach the page (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=PORT, help=f"0: any that is free ({PORT})")
    parser.add_argument(
        "--origin", type=_origin, action="append", default=[], metavar="URL",
        help="under which a proxy shows the page, such as https://studio.example; several times",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=4,
        help="pictures at once, between which a drawing can be stopped (4)",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    limits = parser.add_argument_group("limits")
    for field in dataclasses.fields(Limits):
        limits.add_argument(
            f"--max-{field.name.replace('_', '-')}", type=positive_int, default=field.default,
            metavar="N", help=f"{LIMITS[field.name]} ({field.default})",
        )  # fmt: skip


def open_page(args: argparse.Namespace) -> None:
    """Loads the models and serves the page until the process is interrupted."""
    if args.pictures and not args.ruclip:
        raise InputError("--pictures are searched with ruCLIP; name its folder with --ruclip")
    if args.pictures:
        list_images(args.pictures)
    for folder in filter(None, (args.model, args.vqgan, args.ruclip)):
        read_config(folder)
    check_gradio()
    fields = dataclasses.fields(Limits)
    limits = Limits(**{field.name: getattr(args, f"max_{field.name}") for field in fields})
    compute = Compute(dtype=args.dtype)
    rudolph = load(args.model, args.vqgan, compute)
    clip = clip_jax.load(args.ruclip, compute) if args.ruclip else None
    predictor = clip_jax.Predictor(clip, quiet=True) if clip else None
    shelf = Shelf(clip, args.pictures) if clip and args.pictures else None
    studio = Studio(rudolph, predictor, shelf, limits, args.batch_size)
    serve(studio, args.host, args.port, args.origin)


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 0 to 65535")
    return int(text)
