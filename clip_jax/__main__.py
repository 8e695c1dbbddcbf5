"""Command line: python -m clip_jax {index,search,export}"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clip_jax.cli import Parser, run_cli
from clip_jax.index_command import add_export_options, add_index_options, run_export, run_index
from clip_jax.score_command import add_score_options, run_score
from clip_jax.search_command import add_search_options, run_search

EXAMPLES = """примеры:
  python -m clip_jax search "кошка на подоконнике" фото --model=models/ruclip
  python -m clip_jax search "закат" фото --model=models/ruclip --count=20 --json
  python -m clip_jax index фото --model=models/ruclip
  python -m clip_jax search "кошка" фото.index --model=models/ruclip --minus="собака"
  python -m clip_jax score пары --model=models/ruclip --min=0.25"""
COMMANDS = {
    "index": (
        "encode the images of a folder, of tar files or of a prepared set once, to search them",
        add_index_options, run_index,
    ),
    "search": (
        "list the images that are most similar to a text or an image",
        add_search_options, run_search,
    ),
    "export": (
        "write an index as Parquet, or as clip-retrieval reads it",
        add_export_options, run_export,
    ),
    "score": (
        "score images with texts by cosine, any number of them, and write those above --min",
        add_score_options, run_score,
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status (`cli.py`)."""
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: _run(argv), argv, oom_hint="a smaller --batch-size or --dtype=bfloat16")


def _run(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    COMMANDS[args.command][2](args)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m clip_jax",
        description="Search images by text or image, and score pairs, with ruCLIP.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (summary, add_options, _) in COMMANDS.items():
        add_options(
            subparsers.add_parser(
                name, help=summary, description=summary, epilog=EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )  # fmt: skip
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
