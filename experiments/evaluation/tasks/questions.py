"""evaluate questions: RUDOLPH's answers to questions on images or texts, and the right ones."""

from __future__ import annotations

import argparse

import numpy as np

from experiments.evaluation.metrics.squad import score_answers
from experiments.evaluation.remarks import left_out
from experiments.evaluation.results import Result
from experiments.evaluation.rudolph_bench import Readable, RudolphBench
from experiments.evaluation.sets.question_set import QuestionSet, open_questions
from experiments.evaluation.tasks import options, rudolph_options
from experiments.evaluation.tasks.remarks import Remarks
from rudolph_jax.image_to_text import QUESTIONS, answer_questions

ABOUT, NAME = "answer questions: exact match, F1", "questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rudolph_options.add_rudolph(parser, "folders of questions that experiments.prepare made")
    parser.add_argument(
        "--about", choices=tuple(QUESTIONS), default="plain",
        help="the kind of question, whose special tokens the model was fine-tuned with (plain)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    bench, remarks = rudolph_options.bench(args), Remarks()
    for name in options.set_names(args):
        asked = open_questions(name, args.test_split)
        result = measure_set(bench, asked, args.about)
        options.say(
            f"{bench.name}  {name}: exact match {result['exact_match']:.4f}, F1 "
            f"{result['f1']:.4f}, {result['examples']} questions{left_out(result)}"
        )
        remarks.say(bench.name, result)
    options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(bench: RudolphBench, questions: QuestionSet, about: str = "plain") -> Result:
    """See `score_answers`: of the likeliest answer to each question."""
    asked = {**bench.about(questions), "about": about}

    def work(readable: Readable) -> Result:
        shown = readable.examples

        def answer(rows: slice) -> np.ndarray:
            found = answer_questions(
                bench.rudolph, shown.questions[rows], shown.pictures[rows],
                shown.contexts[rows], about=about, batch_size=bench.batch_size, quiet=True,
            )  # fmt: skip
            return np.array(found)

        answers = bench.chunks("answers", asked, readable, answer).tolist()
        written = [
            {"question": question, "answer": own}
            for question, own in zip(shown.questions, answers, strict=True)
        ]
        return {**score_answers(answers, shown.answers), "answers": written}

    return bench.kept(NAME, questions, asked, work)
