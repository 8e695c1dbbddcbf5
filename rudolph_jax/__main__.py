"""Command line: python -m rudolph_jax COMMAND --model=FOLDER ...; --help lists the commands."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from clip_jax.cli import Parser, any_path, positive_int, run_cli
from clip_jax.config import Compute
from clip_jax.errors import PartialResultError
from clip_jax.model_folder import read_config
from clip_jax.text import InvisibleCharacterWarning, escape
from rudolph_jax import cli_commands, doctor
from rudolph_jax.app import cli as app
from rudolph_jax.bulk import command as bulk
from rudolph_jax.config import RudolphConfig
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.pretrained import KIND, WEIGHTS, PretrainedRudolph, load
from rudolph_jax.text_encoding import TruncationWarning
from rudolph_jax.upscaler import command as upscale_command
from rudolph_jax.upscaler.options import add_upscale_options, check_upscale_options

IMAGES = "files, or one folder of images or of .tar files, a .tar file, or a prepared set"
PRINTED_WARNINGS = (TruncationWarning, InvisibleCharacterWarning)  # each as one line
EXAMPLES = """примеры:
  python -m rudolph_jax draw "красный круг" --model=models/rudolph --vqgan=models/vqgan --out=круги
  python -m rudolph_jax draw "кот в шляпе" --model=... --vqgan=... --candidates=48 --count=4
  python -m rudolph_jax draw "море" --model=... --vqgan=... --image=фото.jpg --keep=up=8
  python -m rudolph_jax draw "лес" --model=... --vqgan=... --upscaler=models/x4
  python -m rudolph_jax upscale фото.jpg --model=models/x4 --out=большие
  python -m rudolph_jax caption фото.jpg --template="на картинке" --model=... --vqgan=...
  python -m rudolph_jax classify *.jpg --classes=кошка,собака,дом --model=... --vqgan=...
  python -m rudolph_jax caption фото --candidates=4 --count=1 --model=... --vqgan=...
  python -m rudolph_jax draw --prompts=тексты.txt --out=рисунки --model=... --vqgan=...
  python -m rudolph_jax write "в сказочном лесу" --model=... --count=3
  python -m rudolph_jax answer "какого цвета машина?" --image=фото.jpg --model=... --vqgan=...
  python -m rudolph_jax app --model=... --vqgan=... --ruclip=models/ruclip --images=фото"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status (`clip_jax.cli`)."""
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(
        lambda: _run(argv), argv, oom_hint="a smaller --batch-size or --dtype=bfloat16"
    )


def _run(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    if args.command == "doctor":
        doctor.print_report()
        return
    if args.command == "app":
        app.run_app(args)
        return
    if bulk.is_bulk(args):
        bulk.run(_load(args), args)
        return
    with warnings.catch_warnings(record=True) as caught:
        for category in PRINTED_WARNINGS:
            warnings.simplefilter("always", category)
        upscales = args.command == "upscale"
        results = upscale_command.upscale(args) if upscales else _run_task(args)
    for text in dict.fromkeys(str(w.message) for w in caught if _is_printed(w)):
        print("warning:", text, file=sys.stderr)
    failed = [result for result in results if cli_commands.ERROR in result]
    if args.json:
        lines = [json.dumps(result, ensure_ascii=False) for result in results]
    else:
        for result in failed:
            print("warning:", f"{result['image']}: {result[cli_commands.ERROR]}", file=sys.stderr)
        done = [result for result in results if cli_commands.ERROR not in result]
        nothing = ["no text was generated; try more --candidates"]
        if upscales:
            lines = upscale_command.format_results(done)
        else:
            lines = cli_commands.format_results(args.command, done, args) or nothing
    for line in lines:
        print(escape(line))
    if failed:
        raise PartialResultError(
            f"{len(failed)} of {len(args.images)} images could not be read; the results are of "
            "the others"
        )


def _run_task(args: argparse.Namespace) -> cli_commands.Results:
    command: Callable = getattr(cli_commands, args.command)
    return command(_load(args), args)


def _load(args: argparse.Namespace) -> PretrainedRudolph:
    if args.command == "draw":
        check_upscale_options(args)
    metadata = read_config(args.model)
    if metadata["kind"] == KIND:
        cli_commands.check_tasks(RudolphConfig.from_dict(metadata["config"]), args)
    return load(args.model, args.vqgan, Compute(dtype=args.dtype), args.weights)


def _is_printed(caught: warnings.WarningMessage) -> bool:
    return issubclass(caught.category, PRINTED_WARNINGS)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m rudolph_jax",
        description="Generate images, captions, classes, texts and answers with RUDOLPH.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str, description: str, count: int, candidates: int
    ) -> argparse.ArgumentParser:
        added = subparsers.add_parser(
            name, help=description, description=description, epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        _common(added)
        if count:
            added.add_argument("--count", type=positive_int, default=count, help="results to keep")
            added.add_argument(
                "--candidates", type=positive_int, default=candidates,
                help="results to rank",
            )  # fmt: skip
        return added

    draw = command("draw", "generate images from a text", 4, 16)
    draw.add_argument("text", nargs="?")
    draw.add_argument("--out", type=any_path, default=Path("drawings"), help="new folder for PNGs")
    draw.add_argument(
        "--ruclip", type=any_path, help="rank with this ruCLIP instead of the model itself"
    )
    draw.add_argument(
        "--guidance", type=float, help="weight of the unconditional prediction, such as 0.2"
    )
    draw.add_argument("--image", type=any_path, help="image whose borders are kept")
    draw.add_argument("--keep", default="", help="kept borders, in tokens of 8 pixels: up=8,left=2")
    bulk.add_options(draw, "draw")
    add_upscale_options(draw)
    caption = command("caption", "caption images", 3, 48)
    caption.add_argument("images", nargs="+", type=any_path, help=IMAGES)
    caption.add_argument("--template", default="на картинке", help="beginning of each caption")
    bulk.add_options(caption, "caption")
    classify = command("classify", "classify images without training (zero-shot)", 0, 0)
    classify.add_argument("images", nargs="+", type=any_path, help=IMAGES)
    classify.add_argument("--classes", required=True, help="comma-separated names")
    classify.add_argument("--template", default="{}", help="caption with {} for the class")
    classify.add_argument("--left-template", default="", help="left text with {} for the class")
    bulk.add_options(classify, "classify")
    write = command("write", "continue a text", 3, 48)
    write.add_argument("text", nargs="?", default="")
    write.add_argument(
        "--characters", default="", help="allow these characters alone, such as 0123456789+-="
    )
    write.add_argument("--unknown-task", action="store_true", help="use LT_UNK, not LT_T2T")
    answer = command("answer", "answer a question, with or without an image", 1, 24)
    answer.add_argument("question")
    answer.add_argument("--image", type=any_path, help="the image that the question is about")
    answer.add_argument("--context", default="", help="text that holds the answer")
    answer.add_argument(
        "--about", choices=QUESTIONS, default="plain",
        help="type of question, which selects the special tokens",
    )  # fmt: skip
    description = "enlarge images by super-resolution"
    upscale_command.add_arguments(
        subparsers.add_parser(
            "upscale", help=description, description=description, epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )  # fmt: skip
    description = "web app: draw, caption, classify, search"
    app.add_arguments(
        subparsers.add_parser(
            "app", help=description, description=description, epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )  # fmt: skip
    description = "print versions, devices and caches, and run a self-test"
    subparsers.add_parser("doctor", help=description, description=description)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=any_path, required=True, help="folder of the RUDOLPH model")
    parser.add_argument("--vqgan", type=any_path, help="folder of the image tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--temperature", type=float, help="0: greedy")
    parser.add_argument("--top-k", type=int, help="0: off")
    parser.add_argument("--top-p", type=float, help="1: off")
    parser.add_argument("--batch-size", type=positive_int, default=24, help="samples at once")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32",
        help="to compute in",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=WEIGHTS, default=WEIGHTS[0],
        help="int8: a quarter of the memory, other results (docs/performance.md)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


if __name__ == "__main__":
    sys.exit(main())
