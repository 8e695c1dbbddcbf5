"""The shell: python -m clip_jax search "кошка" FOLDER --model=FOLDER"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_jax.command import Parser, exit_status, positive
from clip_jax.config import Compute
from clip_jax.embedding_store import EmbeddingStore
from clip_jax.errors import PartialResultError
from clip_jax.pretrained import load
from clip_jax.search import open_image_index
from clip_jax.text import check_encodable, escape

EXAMPLES = """примеры:
  python -m clip_jax search "кошка на подоконнике" фото --model=models/ruclip
  python -m clip_jax search "закат" фото --model=models/ruclip --count=20 --json"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or what `command.py` says."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(
        lambda: _search(make_parser().parse_args(argv)),
        argv,
        less_memory="a smaller --batch-size or --dtype=bfloat16",
    )


def _search(args: argparse.Namespace) -> None:
    check_encodable(args.text)
    clip = load(args.model, Compute(dtype=args.dtype))
    store = EmbeddingStore(":memory:") if args.no_cache else None
    album = open_image_index(clip, args.folder, store, batch_size=args.batch_size, quiet=args.quiet)
    for path, why in album.unreadable.items():
        print(f"warning: {escape(str(path))}: {why}", file=sys.stderr)
    for found in album.search(args.text, args.count):
        if args.json:
            row = {"image": str(found.path), "cosine": round(found.cosine, 6)}
            print(escape(json.dumps(row, ensure_ascii=False)))
        else:
            print(f"{found.cosine:6.3f}  {escape(str(found.path))}")
    if not args.quiet:
        print(
            f"{len(album.paths) + len(album.unreadable)} images: {len(album.paths)} searched, "
            f"{len(album.unreadable)} unreadable; {album.ignored} other files ignored",
            file=sys.stderr,
        )
    if album.unreadable:
        raise PartialResultError(
            f"{len(album.unreadable)} of {len(album.paths) + len(album.unreadable)} images could "
            "not be read; the results are of the others"
        )


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m clip_jax",
        description="ruCLIP finds pictures by text.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    about = "pictures of a folder, the most similar to a text first"
    search = subparsers.add_parser(
        "search", help=about, description=about, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    search.add_argument("text", help="what the picture shows")
    search.add_argument("folder", type=Path, help="pictures, in folders below it too")
    search.add_argument("--model", type=Path, required=True, help="the ruCLIP folder")
    search.add_argument("--count", type=positive, default=10, help="pictures to name (10)")
    search.add_argument("--batch-size", type=positive, default=32, help="pictures at once (32)")
    search.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    search.add_argument(
        "--no-cache", action="store_true",
        help="keep no embeddings; else each picture is encoded once for a model",
    )  # fmt: skip
    search.add_argument("--json", action="store_true", help="one JSON object a line")
    search.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
