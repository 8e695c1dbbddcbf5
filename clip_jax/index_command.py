"""python -m clip_jax index SOURCE --model=FOLDER, and export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clip_jax.cli import any_path, local_only, positive_int
from clip_jax.config import Compute
from clip_jax.errors import PartialResultError
from clip_jax.index import FORMATS, build_index, export_index, open_index
from clip_jax.paths import is_remote
from clip_jax.pretrained import load
from clip_jax.text import escape

SUFFIX = ".index"


def add_index_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=any_path,
        help="folder of images or of .tar files, a .tar file, or a prepared set",
    )  # fmt: skip
    parser.add_argument("--model", type=any_path, required=True, help="folder of a ruCLIP model")
    parser.add_argument(
        "--out", type=local_only, metavar="INDEX",
        help=f"folder of the index (SOURCE{SUFFIX}); one that is there is brought up to date",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=32, help="images that a device encodes at once"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in"
    )
    parser.add_argument(
        "--compare-content", action="store_true",
        help="read every image again, also one of the size and time that it had",
    )  # fmt: skip
    parser.add_argument(
        "--duplicates", action="store_true", help="list images with equal bytes, a group a line"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run_index(args: argparse.Namespace) -> None:
    """Brings the index of a source up to date and prints what was done."""
    clip = load(args.model, Compute(dtype=args.dtype))
    folder = args.out or _beside(args.source)
    report = build_index(
        clip, args.source, folder, batch_size=args.batch_size,
        compare_content=args.compare_content, quiet=args.quiet,
    )  # fmt: skip
    index = open_index(folder)
    for key, why in index.unreadable().items():
        print(f"warning: {escape(key)}: {why}", file=sys.stderr)
    if args.duplicates:
        for group in index.duplicates():
            print("\t".join(map(escape, group)))
    if not args.quiet:
        print(
            f"{escape(str(folder))}: {report.images} images: {report.encoded} encoded, "
            f"{report.reused} with bytes that are known, {report.unchanged} unchanged, "
            f"{report.unreadable} unreadable; {report.removed} removed; {report.ignored} other "
            f"files ignored; recall {index.recall:.3f}",
            file=sys.stderr,
        )
    index.close()
    if report.unreadable:
        raise PartialResultError(
            f"{report.unreadable} of {report.images} images could not be read; the index holds the "
            "others"
        )


def _beside(source: Path) -> Path:
    """Returns the default folder: beside a local source, here for one in a bucket."""
    name = f"{source.name}{SUFFIX}"
    return Path(name) if is_remote(source) else source.absolute().with_name(name)


def add_export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", type=local_only, help="folder that clip_jax index wrote")
    parser.add_argument("out", type=local_only, help="new folder")
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="of the files that are written"
    )


def run_export(args: argparse.Namespace) -> None:
    """Writes an index in another program's form."""
    images = export_index(open_index(args.index), args.out, args.format)
    print(f"{escape(str(args.out))}: {images} images", file=sys.stderr)
