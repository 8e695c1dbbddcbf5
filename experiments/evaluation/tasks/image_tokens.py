"""evaluate image-tokens: how much held-out images surprise RUDOLPH, given their captions."""

from __future__ import annotations

import argparse
import math

from experiments.evaluation.methods.sequence_losses import loss_sums, mean_losses
from experiments.evaluation.remarks import left_out
from experiments.evaluation.results import Result
from experiments.evaluation.rudolph_bench import Readable, RudolphBench
from experiments.evaluation.sets.captioned_set import CaptionedSet, open_captioned
from experiments.evaluation.tasks import options, rudolph_options
from experiments.evaluation.tasks.remarks import Remarks

ABOUT, NAME = "perplexity of held-out image tokens, and of captions", "image-tokens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rudolph_options.add_rudolph(parser, "embedded sets, or folders of experiments.prepare")


def run(args: argparse.Namespace) -> None:
    bench, remarks = rudolph_options.bench(args), Remarks()
    for name in options.set_names(args):
        result = measure_set(bench, open_captioned(name, args.test_split, args.data_dir))
        options.say(
            f"{bench.name}  {name}: an image token {result['image_loss']:.4f} nats, perplexity "
            f"{result['image_perplexity']:.4f}; a piece of caption "
            f"{result['right_text_loss']:.4f} nats, perplexity {result['text_perplexity']:.4f}; "
            f"{result['examples']} pictures{left_out(result)}"
        )
        remarks.say(bench.name, result)
    options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(bench: RudolphBench, pictures: CaptionedSet) -> Result:
    """Losses as `sequence_losses` has them, by first captions, and their exponentials.

    These are perplexities as usual, of the mean loss; the model's own rankings, and the original,
    take the mean of each token's exponential.
    """
    asked = bench.about(pictures)

    def work(readable: Readable) -> Result:
        shown = readable.examples
        captions = [several[0] for several in shown.captions]
        losses = mean_losses(
            bench.chunks(
                "losses",
                asked,
                readable,
                lambda rows: loss_sums(bench.rudolph, shown.pictures[rows], captions[rows]),
            )
        )
        return {
            **losses,
            "image_perplexity": math.exp(losses["image_loss"]),
            "text_perplexity": math.exp(losses["right_text_loss"]),
        }

    return bench.kept(NAME, pictures, asked, work)
