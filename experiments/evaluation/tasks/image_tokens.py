"""evaluate image-tokens: how much held-out images surprise RUDOLPH, given their captions."""

from __future__ import annotations

import argparse
import math

from experiments.evaluation.methods.sequence_losses import loss_sums, mean_losses
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun, Result
from experiments.evaluation.sets import CaptionedSet, open_captioned
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import ReadableExamples

ABOUT, NAME = "perplexity of held-out image tokens, and of captions", "image-tokens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_rudolph(parser, "built-in sets, or folders of experiments.prepare")


def run(args: argparse.Namespace) -> None:
    def lines(name: str, result: Result) -> list[str]:
        return [
            f"{name}: an image token {result['image_loss']:.4f} nats, perplexity "
            f"{result['image_perplexity']:.4f}; a text token of a caption "
            f"{result['right_text_loss']:.4f} nats, perplexity {result['text_perplexity']:.4f}; "
            f"{result['examples']} images"
        ]

    def measure(run: EvalRun[RudolphModel], name: str) -> Result:
        return measure_set(run, open_captioned(name, args.test_split, args.data_dir))

    options.measure_sets([options.rudolph_run(args)], args, measure, lines, NAME)


def measure_set(run: EvalRun[RudolphModel], examples: CaptionedSet) -> Result:
    """Losses as `sequence_losses` has them, by first captions, and their exponentials.

    These are perplexities as usual, of the mean loss; the model's own rankings, and the original,
    take the mean of each token's exponential.
    """
    inputs, rudolph = run.metadata(examples), run.model.rudolph

    def compute(readable: ReadableExamples) -> Result:
        images = readable.examples.images
        captions = [several[0] for several in readable.examples.captions]
        sums = run.cached_map(
            "losses",
            inputs,
            readable,
            lambda rows: loss_sums(rudolph, images[rows], captions[rows]),
        )
        losses = mean_losses(sums)
        return {
            **losses,
            "image_perplexity": math.exp(losses["image_loss"]),
            "text_perplexity": math.exp(losses["right_text_loss"]),
        }

    return run.cached_on_readable(NAME, examples, inputs, compute)
