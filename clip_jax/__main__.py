"""Command line: python -m clip_jax search "кошка" FOLDER --model=FOLDER"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from clip_jax.cli import Parser, any_path, local_only, positive_int, run_cli
from clip_jax.config import Compute
from clip_jax.embedding_store import EmbeddingStore
from clip_jax.errors import PartialResultError
from clip_jax.pretrained import load
from clip_jax.search import build_image_index
from clip_jax.text import check_encodable, escape

EXAMPLES = """примеры:
  python -m clip_jax search "кошка на подоконнике" фото --model=models/ruclip
  python -m clip_jax search "закат" фото --model=models/ruclip --count=20 --json"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status (`cli.py`)."""
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(
        lambda: _search(make_parser().parse_args(argv)),
        argv,
        oom_hint="a smaller --batch-size or --dtype=bfloat16",
    )


def _search(args: argparse.Namespace) -> None:
    check_encodable(args.text)
    clip = load(args.model, Compute(dtype=args.dtype))
    store = EmbeddingStore(":memory:") if args.no_cache else None
    index = build_image_index(
        clip, args.folder, store, batch_size=args.batch_size, quiet=args.quiet
    )
    for path, why in index.unreadable.items():
        print(f"warning: {escape(str(path))}: {why}", file=sys.stderr)
    for result in index.search(args.text, args.count):
        if args.json:
            row = {"image": str(result.path), "cosine": round(result.cosine, 6)}
            print(escape(json.dumps(row, ensure_ascii=False)))
        else:
            print(f"{result.cosine:6.3f}  {escape(str(result.path))}")
    if not args.quiet:
        print(
            f"{len(index.paths) + len(index.unreadable)} images: {len(index.paths)} searched, "
            f"{len(index.unreadable)} unreadable; {index.ignored} other files ignored",
            file=sys.stderr,
        )
    if index.unreadable:
        raise PartialResultError(
            f"{len(index.unreadable)} of {len(index.paths) + len(index.unreadable)} images could "
            "not be read; the results are of the others"
        )


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m clip_jax",
        description="Search images by text with ruCLIP.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    summary = "list the images of a folder that are most similar to a text"
    search = subparsers.add_parser(
        "search", help=summary, description=summary, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    search.add_argument("text", help="what the image shows")
    search.add_argument("folder", type=local_only, help="folder of images, searched recursively")
    search.add_argument("--model", type=any_path, required=True, help="folder of a ruCLIP model")
    search.add_argument("--count", type=positive_int, default=10, help="images to list (10)")
    search.add_argument("--batch-size", type=positive_int, default=32, help="images per batch (32)")
    search.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in"
    )
    search.add_argument(
        "--no-cache", action="store_true",
        help="do not store embeddings; by default an image is encoded once per model",
    )  # fmt: skip
    search.add_argument("--json", action="store_true", help="print one JSON object per line")
    search.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
