"""evaluate questions: RUDOLPH's answers to questions on images or texts, and the right ones."""

from __future__ import annotations

import argparse

import numpy as np

from experiments.evaluation.metrics.squad import score_answers
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun, Result
from experiments.evaluation.sets.question_set import QuestionSet, open_questions
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import ReadableExamples
from rudolph_jax.image_to_text import QUESTIONS, answer_questions

ABOUT, NAME = "answer questions: exact match, F1", "questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_rudolph(parser, "folders of questions that experiments.prepare made")
    parser.add_argument(
        "--about", choices=tuple(QUESTIONS), default="plain",
        help="the kind of question, whose special tokens the model was fine-tuned with (plain)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    def lines(name: str, result: Result) -> list[str]:
        return [
            f"{name}: exact match {result['exact_match']:.4f}, F1 "
            f"{result['f1']:.4f}, {result['examples']} questions"
        ]

    def measure(run: EvalRun[RudolphModel], name: str) -> Result:
        return measure_set(run, open_questions(name, args.test_split), args.about)

    options.measure_sets([options.rudolph_run(args)], args, measure, lines, NAME)


def measure_set(
    run: EvalRun[RudolphModel], examples: QuestionSet, about: str = "plain"
) -> Result:
    """Scores the likeliest answer to each question: see `score_answers`."""
    inputs = {**run.metadata(examples), "about": about}

    def compute(readable: ReadableExamples) -> Result:
        chosen = readable.examples

        def answer(rows: slice) -> np.ndarray:
            found = answer_questions(
                run.model.rudolph, chosen.questions[rows], chosen.images[rows],
                chosen.contexts[rows], about=about, batch_size=run.model.batch_size, quiet=True,
            )  # fmt: skip
            return np.array(found)

        answers = run.cached_map("answers", inputs, readable, answer).tolist()
        written = [
            {"question": question, "answer": own}
            for question, own in zip(chosen.questions, answers, strict=True)
        ]
        return {**score_answers(answers, chosen.answers), "answers": written}

    return run.cached_on_readable(NAME, examples, inputs, compute)
