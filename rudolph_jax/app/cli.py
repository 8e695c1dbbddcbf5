"""The command `app`: its arguments, loading of the models, and the server."""

from __future__ import annotations

import argparse
import dataclasses

import clip_jax
from clip_jax.cli import any_path, local_only, positive_int
from clip_jax.config import Compute
from clip_jax.errors import InputError
from clip_jax.index import is_index
from clip_jax.model_folder import read_config
from clip_jax.search import list_images
from rudolph_jax.app.app_state import AppState
from rudolph_jax.app.image_search import SearchTabIndex
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.origins import parse_origin
from rudolph_jax.app.server import PORT, check_gradio, serve
from rudolph_jax.pretrained import load
from rudolph_jax.upscaler.pretrained import load_upscaler

# Field of Limits -> help of its argument.
LIMIT_HELP = {
    "images": "images of one generation or search",
    "prompt": "characters of a prompt",
    "labels": "labels to classify with",
    "label": "characters of a label",
    "upload_mb": "megabytes of an uploaded file",
    "uploads_mb": "megabytes of all files uploaded within two hours",
    "megapixels": "megapixels of an uploaded image",
    "waiting": "tasks in the queue",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", type=any_path, required=True, help="folder of the RUDOLPH model")
    add("--vqgan", type=any_path, required=True, help="folder of the image tokenizer")
    parser.add_argument(
        "--ruclip", type=any_path, help="folder of a ruCLIP, which ranks, classifies and searches"
    )
    parser.add_argument(
        "--images", type=local_only,
        help="folder of images to search, with its subfolders, or an index (clip_jax index)",
    )  # fmt: skip
    parser.add_argument(
        "--upscaler", type=any_path, help="folder of a super-resolution network for drawings"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=PORT, help=f"0: any free port ({PORT})")
    parser.add_argument(
        "--origin", type=_origin, action="append", default=[], metavar="URL",
        help="origin of a reverse proxy, such as https://studio.example; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=4,
        help="images at once; a generation can be stopped between batches (4)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32",
        help="to compute in",
    )  # fmt: skip
    limits = parser.add_argument_group("limits")
    for field in dataclasses.fields(Limits):
        limits.add_argument(
            f"--max-{field.name.replace('_', '-')}", type=positive_int, default=field.default,
            metavar="N", help=f"{LIMIT_HELP[field.name]} ({field.default})",
        )  # fmt: skip


def run_app(args: argparse.Namespace) -> None:
    """Loads the models and serves the page until the process is interrupted."""
    if args.images and not args.ruclip:
        raise InputError("--images are searched with ruCLIP; name its folder with --ruclip")
    if args.images and not is_index(args.images):
        list_images(args.images)
    for folder in filter(None, (args.model, args.vqgan, args.ruclip, args.upscaler)):
        read_config(folder)
    check_gradio()
    fields = dataclasses.fields(Limits)
    limits = Limits(**{field.name: getattr(args, f"max_{field.name}") for field in fields})
    compute = Compute(dtype=args.dtype)
    rudolph = load(args.model, args.vqgan, compute)
    clip = clip_jax.load(args.ruclip, compute) if args.ruclip else None
    predictor = clip_jax.Predictor(clip, quiet=True) if clip else None
    search_index = SearchTabIndex(clip, args.images) if clip and args.images else None
    upscaler = load_upscaler(args.upscaler, compute) if args.upscaler else None
    state = AppState(rudolph, predictor, search_index, limits, args.batch_size, upscaler)
    serve(state, args.host, args.port, args.origin)


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; expected 0 to 65535")
    return int(text)
