"""evaluate perplexity: each image gets the class whose caption surprises RUDOLPH least."""

from __future__ import annotations

import argparse
from pathlib import Path

from clip_jax.cli import any_path
from experiments.evaluation.methods.perplexity import TEMPLATE, class_captions, measure
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun, Result, set_record
from experiments.evaluation.sets import RECORDS, LabelledSet, open_set
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import ReadableExamples
from rudolph_jax import tasks

ABOUT, NAME = "classify by RUDOLPH's perplexities", "perplexity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_rudolph(parser, f"of {', '.join(RECORDS)}, or folders of one's own")
    add = parser.add_argument
    add("--template", default=TEMPLATE, metavar="TEXT",
        help=f"the caption of a class, with {{}} for its name («{TEMPLATE}»)")
    add("--class-names", type=any_path, metavar="FILE",
        help="JSON of names in place of the project's")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    def lines(name: str, result: Result) -> list[str]:
        return [
            f"{name}: {result['metric']} {result['value']:.4f}, macro-F1 "
            f"{result['macro_f1']:.4f}, {result['examples']} images"
        ]

    def measure_one(run: EvalRun[RudolphModel], name: str) -> Result:
        images = open_set(name, args.test_split, args.data_dir)
        return measure_set(run, images, args.template, args.class_names)

    options.measure_sets([options.rudolph_run(args)], args, measure_one, lines, NAME)


def measure_set(
    run: EvalRun[RudolphModel],
    examples: LabelledSet,
    template: str = TEMPLATE,
    file: Path | None = None,
) -> Result:
    """Measures a model on a set. template, file: see `class_captions`."""
    captions, source = class_captions(examples, template, file)
    inputs = {**run.metadata(examples), "captions": captions, "names": source}
    metric = set_record(examples.name).metric

    def compute(readable: ReadableExamples) -> Result:
        images = readable.examples.images
        perplexities = run.cached_map(
            "class perplexities",
            inputs,
            readable,
            lambda rows: tasks.class_perplexities(
                run.model.rudolph, images[rows], captions, batch_size=run.model.batch_size
            ),
        )
        return measure(readable.examples.labels, perplexities, examples.class_names, metric)

    return run.cached_on_readable(NAME, examples, inputs, compute)
