"""Measures of models: python -m experiments.evaluate TASK --model=FOLDER ...

    [--distributed=auto|HOST:PORT,COUNT,INDEX]

docs/evaluation.md tells what each task does; TASK --help lists its arguments. Every number is kept
as JSON with what it is of, and what is there already is not computed again. Images that cannot be
read are left out and listed, and the exit status is then 7.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from clip_jax.cli import Parser
from experiments.cli.command_line import take_distributed
from experiments.cli.exit_status import exit_status
from experiments.distributed.processes import initialize, run_and_shutdown
from experiments.evaluation.console import warning_lines
from experiments.evaluation.tasks import (
    captions,
    drawing,
    figure,
    image_tokens,
    linear_probe,
    perplexity,
    questions,
    report,
    retrieval,
    speed,
    zero_shot,
)

TASKS: dict[str, ModuleType] = {
    "zero-shot": zero_shot,
    "linear-probe": linear_probe,
    "retrieval": retrieval,
    "perplexity": perplexity,
    "captions": captions,
    "questions": questions,
    "drawing": drawing,
    "image-tokens": image_tokens,
    "speed": speed,
    "figure": figure,
    "report": report,
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        how, rest = take_distributed(argv)
        args = _parser().parse_args(rest)
        initialize(how)
        with warning_lines():
            TASKS[args.task].run(args)

    return run_and_shutdown(lambda: exit_status(work, argv, oom_hint="a smaller --batch-size"))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, task in TASKS.items():
        added = tasks.add_parser(name, help=task.ABOUT, description=task.__doc__)
        task.add_arguments(added)
    return parser


if __name__ == "__main__":
    sys.exit(main())
