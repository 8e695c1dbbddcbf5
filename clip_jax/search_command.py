"""python -m clip_jax search TEXT FOLDER --model=FOLDER: in an index, or a folder of images."""

from __future__ import annotations

import argparse
import dataclasses
import html
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.atomic_file import replace_file
from clip_jax.cli import any_path, local_only, positive_int
from clip_jax.config import Compute
from clip_jax.embedding_store import EmbeddingStore
from clip_jax.errors import InputError, PartialResultError
from clip_jax.html_sheet import html_sheet
from clip_jax.index import IndexFolder, is_index, open_index, query_vector
from clip_jax.pretrained import PretrainedClip, load
from clip_jax.search import build_image_index
from clip_jax.text import check_encodable, escape


@dataclasses.dataclass(frozen=True)
class _Line:
    """A result as it is printed. image: what `open_image` takes. copies: with equal bytes."""

    name: str
    cosine: float
    image: Any
    copies: tuple[str, ...] = ()


def add_search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help='what the image shows; "" with --image')
    parser.add_argument(
        "folder", type=local_only,
        help="folder of images, searched recursively, or an index (clip_jax index)",
    )  # fmt: skip
    parser.add_argument("--model", type=any_path, required=True, help="folder of a ruCLIP model")
    parser.add_argument(
        "--text", action="append", default=[], dest="more", metavar="TEXT",
        help="another text, which is added; may be given several times (none)",
    )  # fmt: skip
    parser.add_argument(
        "--minus", action="append", default=[], metavar="TEXT",
        help="what the image shall not show; may be given several times (none)",
    )  # fmt: skip
    parser.add_argument(
        "--image", action="append", default=[], type=any_path, metavar="FILE",
        help="an image to look for the like of; may be given several times (none)",
    )  # fmt: skip
    parser.add_argument("--count", type=positive_int, default=10, help="images to list (10)")
    parser.add_argument("--batch-size", type=positive_int, default=32, help="images per batch (32)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in"
    )
    parser.add_argument(
        "--no-cache", action="store_true",
        help="do not store embeddings; by default an image is encoded once per model",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--html", type=local_only, metavar="FILE", help="write a page with the images (none)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run_search(args: argparse.Namespace) -> None:
    """Prints the images most similar to what is looked for, best first."""
    texts = [text for text in (args.text, *args.more) if text or not args.image]
    for text in (*texts, *args.minus):
        check_encodable(text)
    clip = load(args.model, Compute(dtype=args.dtype))
    vector = query_vector(clip, texts, [str(path) for path in args.image], args.minus)
    search = _search_index if is_index(args.folder) else _search_folder
    lines, summary, left_out = search(args, clip, vector)
    for line in lines:
        if args.json:
            row: dict[str, Any] = {"image": line.name, "cosine": round(line.cosine, 6)}
            if line.copies:
                row["copies"] = line.copies
            print(escape(json.dumps(row, ensure_ascii=False)))
        else:
            more = f"  (and {len(line.copies)} copies)" if line.copies else ""
            print(f"{line.cosine:6.3f}  {escape(line.name)}{more}")
    if args.html:
        replace_file(args.html, _page(args, lines))
    if not args.quiet:
        print(summary, file=sys.stderr)
    if left_out:
        raise PartialResultError(left_out)


def _search_index(
    args: argparse.Namespace, clip: PretrainedClip, vector: np.ndarray
) -> tuple[list[_Line], str, str]:
    index = open_index(args.folder)
    index.check_model(clip)
    lines = []
    for match in index.search(vector, args.count):
        copies = tuple(entry.key for entry in match.entries[1:])
        lines.append(_Line(match.key, match.cosine, _Member(index, match.entries[0]), copies))
    readable, unreadable = index.count()
    how = "all compared" if index.recall == 1 else f"by faiss, recall@10 {index.recall:.3f}"
    return lines, f"{readable} images searched, {how}; {unreadable} unreadable", ""


def _search_folder(
    args: argparse.Namespace, clip: PretrainedClip, vector: np.ndarray
) -> tuple[list[_Line], str, str]:
    store = EmbeddingStore(":memory:") if args.no_cache else None
    index = build_image_index(
        clip, args.folder, store, batch_size=args.batch_size, quiet=args.quiet
    )
    for path, why in index.unreadable.items():
        print(f"warning: {escape(str(path))}: {why}", file=sys.stderr)
    lines = [
        _Line(str(result.path), result.cosine, result.path)
        for result in index.search_vector(vector, args.count)
    ]
    unreadable, total = len(index.unreadable), len(index.paths) + len(index.unreadable)
    summary = (
        f"{total} images: {len(index.paths)} searched, {unreadable} unreadable; {index.ignored} "
        "other files ignored"
    )
    left_out = f"{unreadable} of {total} images could not be read; the results are of the others"
    return lines, summary, left_out if unreadable else ""


@dataclasses.dataclass(frozen=True)
class _Member:
    """An image of an index, read when the page is made."""

    index: IndexFolder
    entry: Any


def _page(args: argparse.Namespace, lines: list[_Line]) -> str:
    title = args.text or ", ".join(Path(path).name for path in args.image)
    sheet = html_sheet(_images(lines))
    head = f'<!doctype html>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>'
    return f"{head}\n{sheet}\n"


def _images(lines: list[_Line]) -> Iterator[tuple[Any, str]]:
    for line in lines:
        image = line.image
        if isinstance(image, _Member):
            try:
                image = image.index.read(image.entry)
            except InputError as error:
                print(f"warning: {error}", file=sys.stderr)
                continue
        yield image, f"{line.name}\ncosine {line.cosine:.3f}"
