"""Translations of prompts, once and for all: python -m experiments.translate --model=FOLDER ...

    python -m experiments.translate --model=opus-mt-ru-en --sets=all --cache=translations.json
    python -m experiments.translate --model=opus-mt-ru-en --texts=prompts.txt --cache=mine.json

Evaluations read the file, and need no translator then. The same command resumes after it was
stopped. It needs the extra `torch`: pip install 'rudolph-jax[torch]'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from clip_jax.cli import Parser, local_only
from clip_jax.errors import InputError
from clip_jax.text import normalize_name, read_lines
from experiments.cli.exit_status import exit_status
from experiments.evaluation.console import warning_lines
from experiments.evaluation.prompts.class_names import load_class_names
from experiments.evaluation.prompts.translator import Translator, fill_cache, open_cache
from experiments.evaluation.sets import RECORDS
from experiments.evaluation.sets.loader import find_path


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        with warning_lines():
            _run(argv)

    return exit_status(work, argv, oom_hint="a smaller --batch-size")


def _run(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    if args.batch_size < 1:
        raise InputError(f"--batch-size is {args.batch_size}; expected at least 1")
    found = [*_of_sets(args.sets), *_lines(args.texts)]
    texts = list(dict.fromkeys(normalize_name(text) for text in found))
    if not texts:
        raise InputError("nothing to translate; give --texts=FILE, --sets=all or names of sets")
    translator = Translator(args.model)
    cache = open_cache(args.cache, translator.about)
    known = sum(text in cache.texts for text in texts)
    with tqdm(total=len(texts), initial=known, unit=" texts", disable=None) as bar:
        for made in fill_cache(cache, texts, translator.translate, args.batch_size):
            bar.update(made)
    print(f"{args.cache}: {len(texts)} texts, {len(texts) - known} of them new")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.translate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=local_only, required=True, metavar="FOLDER",
        help="a MarianMTModel, ru to en")  # fmt: skip
    add("--cache", type=local_only, required=True, metavar="FILE", help="JSON; made or added to")
    add("--texts", type=local_only, metavar="FILE", help="UTF-8, one text a line")
    add("--sets", default="", metavar="NAMES",
        help="all, or some of the evaluation sets with commas between: their Russian prompts")
    add("--batch-size", type=int, default=32, metavar="N", help="texts between two savings (32)")
    return parser  # fmt: skip


def _of_sets(names: str) -> list[str]:
    """The Russian prompts of evaluation sets."""
    found = []
    for name in RECORDS if names == "all" else [name for name in names.split(",") if name]:
        of_set = load_class_names(name, "ru")
        found += [prompt for prompts in of_set.prompts(list(of_set.names)) for prompt in prompts]
    return found


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    return [line for line in read_lines(find_path(file)) if line.strip()]


if __name__ == "__main__":
    sys.exit(main())
