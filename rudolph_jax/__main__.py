"""The shell: python -m rudolph_jax COMMAND --model=FOLDER ...; --help has the commands."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from clip_jax.cli import Parser, positive_int, run_cli
from clip_jax.config import Compute
from clip_jax.errors import PartialResultError
from clip_jax.model_folder import read_config
from clip_jax.text import InvisibleCharacterWarning, escape
from rudolph_jax import commands, doctor
from rudolph_jax.app import command as app
from rudolph_jax.config import RudolphConfig
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.pretrained import KIND, WEIGHTS, load
from rudolph_jax.text_encoding import TruncationWarning

OURS = (TruncationWarning, InvisibleCharacterWarning)  # warnings that are printed as one line
EXAMPLES = """примеры:
  python -m rudolph_jax draw "красный круг" --model=models/rudolph --vqgan=models/vqgan --out=круги
  python -m rudolph_jax draw "кот в шляпе" --model=... --vqgan=... --candidates=48 --count=4
  python -m rudolph_jax draw "море" --model=... --vqgan=... --image=фото.jpg --keep=up=8
  python -m rudolph_jax caption фото.jpg --template="на картинке" --model=... --vqgan=...
  python -m rudolph_jax classify *.jpg --classes=кошка,собака,дом --model=... --vqgan=...
  python -m rudolph_jax write "в сказочном лесу" --model=... --count=3
  python -m rudolph_jax answer "какого цвета машина?" --image=фото.jpg --model=... --vqgan=...
  python -m rudolph_jax app --model=... --vqgan=... --ruclip=models/ruclip --pictures=фото"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status (`clip_jax.cli`)."""
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(
        lambda: _run(argv), argv, oom_hint="a smaller --batch-size or --dtype=bfloat16"
    )


def _run(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    if args.command == "doctor":
        doctor.examine()
        return
    if args.command == "app":
        app.open_page(args)
        return
    with warnings.catch_warnings(record=True) as caught:
        for category in OURS:
            warnings.simplefilter("always", category)
        results = _do(args)
    for text in dict.fromkeys(str(w.message) for w in caught if _ours(w)):
        print("warning:", text, file=sys.stderr)
    failed = [result for result in results if commands.ERROR in result]
    if args.json:
        lines = [json.dumps(result, ensure_ascii=False) for result in results]
    else:
        for result in failed:
            print("warning:", f"{result['image']}: {result[commands.ERROR]}", file=sys.stderr)
        done = [result for result in results if commands.ERROR not in result]
        nothing = ["nothing was written; try more --candidates"]
        lines = commands.tell(args.command, done, args) or nothing
    for line in lines:
        print(escape(line))
    if failed:
        raise PartialResultError(
            f"{len(failed)} of {len(args.images)} images could not be read; the results are of "
            "the others"
        )


def _do(args: argparse.Namespace) -> commands.Results:
    about = read_config(args.model)
    if about["kind"] == KIND:
        commands.check_tasks(RudolphConfig.from_dict(about["config"]), args)
    rudolph = load(args.model, args.vqgan, Compute(dtype=args.dtype), args.weights)
    do: Callable = getattr(commands, args.command)
    return do(rudolph, args)


def _ours(caught: warnings.WarningMessage) -> bool:
    return issubclass(caught.category, OURS)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m rudolph_jax",
        description="RUDOLPH draws, captions, classifies, writes and answers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True)

    def command(name: str, about: str, count: int, candidates: int) -> argparse.ArgumentParser:
        added = subparsers.add_parser(
            name, help=about, description=about, epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        _common(added)
        if count:
            added.add_argument("--count", type=positive_int, default=count, help="results to keep")
            added.add_argument(
                "--candidates", type=positive_int, default=candidates,
                help="results to choose them from",
            )  # fmt: skip
        return added

    draw = command("draw", "pictures from a text", 4, 16)
    draw.add_argument("text")
    draw.add_argument("--out", type=Path, default=Path("drawings"), help="a new folder for PNGs")
    draw.add_argument(
        "--ruclip", type=Path, help="rank with this ruCLIP, not with the model itself"
    )
    draw.add_argument("--guidance", type=float, help="share of the unconditional prediction: 0.2")
    draw.add_argument("--image", type=Path, help="a picture to keep borders of")
    draw.add_argument("--keep", default="", help="which, in tokens of 8 pixels: up=8,left=2")
    caption = command("caption", "captions of pictures", 3, 48)
    caption.add_argument("images", nargs="+", type=Path)
    caption.add_argument("--template", default="на картинке", help="how each caption begins")
    classify = command("classify", "the class of each picture, without training", 0, 0)
    classify.add_argument("images", nargs="+", type=Path)
    classify.add_argument("--classes", required=True, help="names with commas between them")
    classify.add_argument("--template", default="{}", help="the caption, {} for the class")
    classify.add_argument("--left-template", default="", help="the left text, {} for the class")
    write = command("write", "how a text may go on", 3, 48)
    write.add_argument("text", nargs="?", default="")
    write.add_argument("--characters", default="", help="write these alone: 0123456789+-=")
    write.add_argument("--unknown-task", action="store_true", help="use LT_UNK, not LT_T2T")
    answer = command("answer", "an answer to a question, about a picture or not", 1, 24)
    answer.add_argument("question")
    answer.add_argument("--image", type=Path)
    answer.add_argument("--context", default="", help="the text that the answer is in")
    answer.add_argument("--about", choices=QUESTIONS, default="plain", help="special tokens to use")
    about = "a page in the browser: draw, caption, classify, search"
    app.add_arguments(
        subparsers.add_parser(
            "app", help=about, description=about, epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )  # fmt: skip
    about = "versions, devices and caches, and whether a tiny model runs here"
    subparsers.add_parser("doctor", help=about, description=about)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="the RUDOLPH folder")
    parser.add_argument("--vqgan", type=Path, help="the image tokenizer's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, help="0: the likeliest token always")
    parser.add_argument("--top-k", type=int, help="0: off")
    parser.add_argument("--top-p", type=float, help="1: off")
    parser.add_argument("--batch-size", type=positive_int, default=24, help="samples at once")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--weights", choices=WEIGHTS, default=WEIGHTS[0],
        help="int8: a quarter of the memory, other results (docs/performance.md)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


if __name__ == "__main__":
    sys.exit(main())
