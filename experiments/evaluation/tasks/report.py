"""evaluate report: all sets and systems on one page, beside the published numbers.

Writes OUT/report.html, OUT/report.md and the page's pictures. Each set's numbers are kept as JSON
as soon as they are there, so that an interrupted report goes on where it was. A set that is not on
disk is marked, with what to fetch.
"""

from __future__ import annotations

import argparse

import jax

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from experiments.evaluation.bench import Bench
from experiments.evaluation.report.page import write_page
from experiments.evaluation.report.published import numbers_of
from experiments.evaluation.report.sections import markdown, sections
from experiments.evaluation.report.system_results import Measured
from experiments.evaluation.tasks import figure, linear_probe, options, retrieval, zero_shot
from experiments.evaluation.tasks.remarks import Remarks

ABOUT = "one page of everything, beside the published numbers"
PARTS = ("zero-shot", "linear-probe", "figure")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_systems(parser)
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
    drawing, names = options.drawing(), options.set_names(args)
    measured: list[Measured] = []
    remarks = Remarks()
    for bench in options.benches(args):
        if bench.name in [one.name for one in measured]:
            raise InputError(
                f"two systems are called {bench.name!r}; name them: --model=NAME=FOLDER"
            )
        measured.append(_measure(bench, names, parts, args, remarks))
        page = sections(measured, names, drawing)
        if jax.process_index() == 0:
            lead = (
                "Zero-shot, linear probes and more of "
                + ", ".join(one.name for one in measured)
                + ". docs/evaluation.md tells how each number is made; the JSON files beside this "
                "page have what it is of."
            )
            write_page(args.out, "Evaluation of image-text models", lead, page)
            replace_file(args.out / "report.md", markdown(page))
    options.say(f"report: {args.out / 'report.html'} and report.md")
    remarks.finish()


def _measure(
    bench: Bench,
    names: list[str],
    parts: list[str],
    args: argparse.Namespace,
    remarks: Remarks,
) -> Measured:
    system = bench.encoder.system
    measured = Measured(
        bench.name,
        system.about(),
        {task: numbers_of(system, task) for task in ("zero-shot", "linear-probe")},
    )

    def of_set(name: str) -> None:
        if "zero-shot" in parts:
            measured.zero_shot[name] = zero_shot.measure_set(bench, name, args.test_split)
            remarks.say(bench.name, measured.zero_shot[name])
        if "linear-probe" in parts:
            measured.probes[name] = linear_probe.measure_set(bench, name, args)
            remarks.say(bench.name, measured.probes[name])

    measured.missing.update(options.for_each_set(names, of_set, needed=False))
    for entry in filter(None, args.retrieval.split(",")):
        name, colon, split = entry.rpartition(":")
        if not colon:
            raise InputError(f"--retrieval has {entry!r}; expected SET:SPLIT")
        measured.retrieval[entry] = retrieval.measure_set(bench, name, split)
        remarks.say(bench.name, measured.retrieval[entry])
    if "figure" in parts:
        measured.samples = figure.measure_samples(bench)
        remarks.say(bench.name, measured.samples)
        measured.matrix = figure.draw(measured.samples)
    return measured
