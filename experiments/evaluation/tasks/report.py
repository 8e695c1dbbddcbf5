"""evaluate report: all sets and systems on one page, beside the published numbers.

Writes OUT/report.html, OUT/report.md and the page's figures. Each set's numbers are written as
JSON as soon as they are there, so that an interrupted report is resumed. A set that is not on
disk is marked, with what to fetch.
"""

from __future__ import annotations

import argparse

import jax

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.console import print_line
from experiments.evaluation.remarks import Remarks
from experiments.evaluation.report.page import write_page
from experiments.evaluation.report.sections import markdown, sections
from experiments.evaluation.report.system_results import SystemResults, published_numbers
from experiments.evaluation.run import EvalRun
from experiments.evaluation.tasks import figure, linear_probe, options, retrieval, zero_shot

ABOUT = "one page of everything, beside the published numbers"
PARTS = ("zero-shot", "linear-probe", "figure")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    options.add_sets(parser)
    linear_probe.add_probe(parser)
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), metavar="NAME,...", help=f"({','.join(PARTS)})")
    add("--retrieval", default="", metavar="SET:SPLIT,...",
        help="splits with captions to measure retrieval on")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    parts = args.parts.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise InputError(f"--parts has {min(unknown)!r}; expected some of {', '.join(PARTS)}")
    figures, names = options.load_figures(), options.set_names(args)
    measured: list[SystemResults] = []
    remarks = Remarks()
    for run in options.clip_runs(args):
        if run.name in [one.name for one in measured]:
            raise InputError(
                f"two systems are called {run.name!r}; name them: --model=NAME=FOLDER"
            )
        measured.append(_measure(run, names, parts, args, remarks))
        page = sections(measured, names, figures)
        if jax.process_index() == 0:
            lead = (
                "Zero-shot, linear probes and more of "
                + ", ".join(one.name for one in measured)
                + ". docs/evaluation.md tells how each number is made; the JSON files beside this "
                "page have what it is of."
            )
            write_page(args.out, "Evaluation of image-text models", lead, page)
            replace_file(args.out / "report.md", markdown(page))
    print_line(f"report: {args.out / 'report.html'} and report.md")
    remarks.finish()


def _measure(
    run: EvalRun[ClipModel],
    names: list[str],
    parts: list[str],
    args: argparse.Namespace,
    remarks: Remarks,
) -> SystemResults:
    measured = SystemResults(
        run.name,
        run.model.metadata(),
        {task: published_numbers(run.model, task) for task in ("zero-shot", "linear-probe")},
    )

    def of_set(name: str) -> None:
        if "zero-shot" in parts:
            measured.zero_shot[name] = zero_shot.measure_set(run, name, args.test_split)
            remarks.print(run.name, measured.zero_shot[name])
        if "linear-probe" in parts:
            measured.probes[name] = linear_probe.measure_set(run, name, args)
            remarks.print(run.name, measured.probes[name])

    measured.missing.update(options.for_each_set(names, of_set, args.test_split, needed=False))
    for entry in filter(None, args.retrieval.split(",")):
        name, colon, split = entry.rpartition(":")
        if not colon:
            raise InputError(f"--retrieval has {entry!r}; expected SET:SPLIT")
        measured.retrieval[entry] = retrieval.measure_set(run, name, split)
        remarks.print(run.name, measured.retrieval[entry])
    if "figure" in parts:
        measured.samples = figure.measure_samples(run)
        remarks.print(run.name, measured.samples)
        measured.matrix = figure.draw(measured.samples)
    return measured
