"""evaluate zero-shot: each image gets the class whose prompts are most like it."""

from __future__ import annotations

import argparse

from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.methods.zero_shot import compare, measure
from experiments.evaluation.prompts.class_prompts import prompts_for
from experiments.evaluation.run import EvalRun, Result, set_record, set_title
from experiments.evaluation.sets import open_set
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "classify by prompts alone", "zero-shot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    options.add_sets(parser)


def run(args: argparse.Namespace) -> None:
    def lines(_: str, result: Result) -> list[str]:
        return [
            f"{result['title']}: {result['metric']} {result['value']:.4f}, "
            f"top-5 {result['top5']:.4f}, calibration error "
            f"{result['calibration']['expected_error']:.4f}, {result['examples']} images"
        ]

    options.measure_sets(
        options.clip_runs(args),
        args,
        lambda run, name: measure_set(run, name, args.test_split),
        lines,
        NAME,
    )


def measure_set(run: EvalRun[ClipModel], name: str, split: str) -> Result:
    """Measures a model on a set; MissingSet where it is not on disk."""
    images, model = open_set(name, split, run.data_dir), run.model
    # A translator is given Russian prompts.
    prompts = prompts_for(images, model.language, run.class_names, model.prompt_prefix)
    inputs = {
        **run.metadata(images),
        "title": set_title(images.name),
        "prompts": {"source": prompts.source, "by_class": dict(
            zip(images.class_names, prompts.by_class, strict=True)
        )},
    }  # fmt: skip

    def compute() -> Result:
        features = model.set_features(images)
        places = features.readable
        found = compare(
            features.values[places], model.class_latents(prompts.by_class), images.labels[places]
        )
        metric, scale = set_record(name).metric, model.clip.logit_scale
        return {
            **measure(found, images.class_names, metric, scale),
            "images": len(images),
            "unreadable": listed(images, features.unreadable),
        }

    return run.cached_result(NAME, images.name, inputs, [images], compute)
