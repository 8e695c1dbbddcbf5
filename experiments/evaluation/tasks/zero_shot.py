"""evaluate zero-shot: each image gets the class whose prompts are most like it."""

from __future__ import annotations

import argparse

from experiments.evaluation.bench import Bench, Result, record_of
from experiments.evaluation.methods.zero_shot import compare, measure
from experiments.evaluation.remarks import left_out
from experiments.evaluation.tasks import options
from experiments.evaluation.tasks.remarks import Remarks
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "classify by prompts alone", "zero-shot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_systems(parser)
    options.add_sets(parser)


def run(args: argparse.Namespace) -> None:
    remarks = Remarks()
    for bench in options.benches(args):

        def of_set(name: str, bench: Bench = bench) -> None:
            result = measure_set(bench, name, args.test_split)
            options.say(
                f"{bench.name}  {result['title']}: {result['metric']} {result['value']:.4f}, "
                f"top-5 {result['top5']:.4f}, calibration error "
                f"{result['calibration']['expected_error']:.4f}, "
                f"{result['examples']} pictures{left_out(result)}"
            )
            remarks.say(bench.name, result)

        options.for_each_set(options.set_names(args), of_set)
        options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(bench: Bench, name: str, split: str) -> Result:
    """All that is told of a system on a set; MissingSet where it is not on disk."""
    pictures = bench.open(name, split)
    prompts = bench.prompts(pictures)
    asked = {
        **bench.about(pictures),
        "prompts": {"source": prompts.source, "by_class": dict(
            zip(pictures.class_names, prompts.by_class, strict=True)
        )},
    }  # fmt: skip

    def work() -> Result:
        features = bench.encoder.images(pictures)
        places = features.readable
        found = compare(
            features.values[places],
            bench.encoder.classes(prompts.by_class),
            pictures.labels[places],
        )
        measured = measure(
            found,
            pictures.class_names,
            record_of(name).metric,
            bench.encoder.system.clip.logit_scale,
        )
        return {
            **measured,
            "images": len(pictures),
            "unreadable": listed(pictures, features.unreadable),
        }

    return bench.kept(NAME, pictures.name, asked, [pictures], work)
