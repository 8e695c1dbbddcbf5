"""evaluate perplexity: each image gets the class whose caption surprises RUDOLPH least."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.evaluation.bench import record_of
from experiments.evaluation.methods.perplexity import TEMPLATE, class_captions, measure
from experiments.evaluation.remarks import left_out
from experiments.evaluation.results import Result
from experiments.evaluation.rudolph_bench import Readable, RudolphBench
from experiments.evaluation.sets import RECORDS, LabelledSet, open_set
from experiments.evaluation.tasks import options, rudolph_options
from experiments.evaluation.tasks.remarks import Remarks
from rudolph_jax import tasks

ABOUT, NAME = "classify by RUDOLPH's perplexities", "perplexity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rudolph_options.add_rudolph(parser, f"of {', '.join(RECORDS)}, or folders of one's own")
    add = parser.add_argument
    add("--template", default=TEMPLATE, metavar="TEXT",
        help=f"the caption of a class, with {{}} for its name («{TEMPLATE}»)")
    add("--class-names", type=Path, metavar="FILE",
        help="JSON of names in place of the project's")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    bench, remarks = rudolph_options.bench(args), Remarks()

    def of_set(name: str) -> None:
        pictures = open_set(name, args.test_split, args.data_dir)
        result = measure_set(bench, pictures, args.template, args.class_names)
        options.say(
            f"{bench.name}  {name}: {result['metric']} {result['value']:.4f}, macro-F1 "
            f"{result['macro_f1']:.4f}, {result['examples']} pictures{left_out(result)}"
        )
        remarks.say(bench.name, result)

    options.for_each_set(options.set_names(args), of_set)
    options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(
    bench: RudolphBench, pictures: LabelledSet, template: str = TEMPLATE, file: Path | None = None
) -> Result:
    """All that is told of a model on a set. template, file: see `class_captions`."""
    captions, source = class_captions(pictures, template, file)
    asked = {**bench.about(pictures), "captions": captions, "names": source}

    def work(readable: Readable) -> Result:
        shown = readable.examples
        perplexities = bench.chunks(
            "class perplexities",
            asked,
            readable,
            lambda rows: tasks.class_perplexities(
                bench.rudolph, shown.pictures[rows], captions, batch_size=bench.batch_size
            ),
        )
        return measure(
            shown.labels, perplexities, pictures.class_names, record_of(pictures.name).metric
        )

    return bench.kept(NAME, pictures, asked, work)
