"""Commands of `python -m rudolph_jax`: parsed arguments -> results (see `format_results`).

A command returns a list of dicts; with --json each is printed as a line. A file that cannot be read
as an image, one of several, becomes {"image": name, "error": reason}.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from PIL import Image

import clip_jax
from clip_jax.errors import InputError
from clip_jax.image_file import open_image
from clip_jax.model_folder import check_destination
from clip_jax.text import check_encodable, escape, normalize_name
from rudolph_jax import tasks
from rudolph_jax.config import RudolphConfig
from rudolph_jax.image_prompts import SIDES
from rudolph_jax.png_files import SHEET, image_metadata, write_images
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.upscaler.options import load_upscaler_of

Results = list[dict[str, Any]]
ERROR = "error"  # key of the reason in the result of a file that cannot be read


def draw(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Results:
    check_destination(args.out)
    kwargs, image_prompts = _sampling_kwargs(args), None
    if args.image:
        image_prompts = tasks.keep_borders(rudolph, args.image, parse_borders(args.keep))
    elif args.keep:
        raise InputError("--keep names borders of an image; give the image with --image=FILE")
    candidates = max(args.candidates, args.count)
    if args.guidance is None:
        codes = tasks.generate_codebooks(
            rudolph, args.text, candidates, image_prompts=image_prompts, **kwargs
        )
    else:
        codes = tasks.generate_codebooks_cfg(
            rudolph, args.text, candidates, weight_cfg=args.guidance,
            image_prompts=image_prompts, **kwargs,
        )  # fmt: skip
    predictor = None
    if args.ruclip:
        predictor = clip_jax.Predictor(clip_jax.load(args.ruclip), quiet=args.quiet)
    order, scores = tasks.rank_images(
        rudolph, args.text, codes, predictor, batch_size=args.batch_size, quiet=args.quiet
    )
    order = order[: args.count]
    images = rudolph.decode_images(codes[order])
    results = image_metadata(args.text, args.seed, order, scores)
    if (upscaler := load_upscaler_of(args)) is not None:
        images = upscaler.upscale(images, quiet=args.quiet)
        results = [{**result, "upscale": upscaler.scale} for result in results]
    paths = write_images(args.out, images, results)
    return [{"file": str(path), **result} for path, result in zip(paths, results, strict=True)]


def caption(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Results:
    def caption_one(image: Image.Image) -> Results:
        return tasks.image_captioning(
            rudolph, image, args.count, generations_num=max(args.candidates, args.count),
            r_template=args.template, **_sampling_kwargs(args),
        )  # fmt: skip

    return _for_each_image(args.images, caption_one)


def classify(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Results:
    classes = parse_classes(args)

    def classify_one(image: Image.Image) -> Results:
        result = tasks.zs_clf(
            rudolph, image, classes, r_template=args.template, l_template=args.left_template,
            batch_size=args.batch_size,
        )  # fmt: skip
        scores = dict(zip(classes, (round(float(s), 6) for s in result["scores"]), strict=True))
        return [{"class": result["class"], "scores": scores}]

    return _for_each_image(args.images, classify_one)


def parse_classes(args: argparse.Namespace) -> list[str]:
    """Returns the names of --classes, in NFC; checks that a template says where they stand."""
    check_encodable(args.classes)
    names = (normalize_name(name.strip()) for name in args.classes.split(","))
    classes = [name for name in names if name]
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise InputError(f"--classes names {twice!r} twice; expected different names")
    if len(classes) < 2:
        raise InputError(f"--classes is {args.classes!r}; expected at least two names, with commas")
    if "{}" not in args.template + args.left_template:
        raise InputError(f"--template is {args.template!r}; expected {{}} where the class stands")
    return classes


def write(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Results:
    allowed = None
    if args.characters:
        allowed = _pieces_spelled_with(rudolph, args.characters)
    texts = tasks.generate_texts(
        rudolph, args.text, max(args.candidates, args.count), allowed_token_ids=allowed,
        special_token="LT_UNK" if args.unknown_task else "LT_T2T", **_sampling_kwargs(args),
    )  # fmt: skip
    return texts[: args.count]


def answer(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Results:
    answers = tasks.answer(
        rudolph, args.question, args.image, max(args.candidates, args.count), about=args.about,
        context=args.context, **_sampling_kwargs(args),
    )  # fmt: skip
    return answers[: args.count]


def _for_each_image(files: Sequence[Path], task: Callable[[Image.Image], Results]) -> Results:
    """Returns the results of all files with their names; InputError where none can be read."""
    results: Results = []
    failed = 0
    for file in files:
        try:
            image = open_image(file)
        except InputError as error:
            if len(files) == 1:
                raise
            failed += 1
            reason = str(error).removeprefix(f"{escape(str(file))}: ")
            results.append({"image": str(file), ERROR: reason})
        else:
            results += [{"image": str(file), **each} for each in task(image)]
    if failed == len(files):
        first = results[0]
        raise InputError(
            f"none of the {failed} images can be read; {escape(first['image'])}: {first[ERROR]}"
        )
    return results


def format_results(command: str, results: Results, args: argparse.Namespace) -> list[str]:
    """Formats results without errors as lines of text."""
    if command == "draw":
        scored = [
            f"{r['file']}  " + "  ".join(f"{k} {r[k]:.3f}" for k in ("score", "cosine") if k in r)
            for r in results
        ]
        return [*scored, f"all of them: {args.out / SHEET}"]
    if command == "caption":
        return [f"{r['image']}: {r['text']}  (score {r['score']:.3f})" for r in results]
    if command == "classify":
        return [f"{r['image']}: {r['class']}" for r in results]
    if command == "write":
        return [f"{r['text']}  (perplexity {r['ppl_txt']:.2f})" for r in results]
    return [f"{r['text']}  ({r['count']} times)" for r in results]


def check_tasks(config: RudolphConfig, args: argparse.Namespace) -> None:
    """Raises InputError where the model lacks what a command needs, before anything is loaded."""
    command = args.command
    if command in ("draw", "caption", "classify") and args.vqgan is None:
        raise InputError(f"{command}: no image tokenizer was given; add --vqgan=FOLDER")
    if command in ("caption", "classify", "answer") and not config.right_text_length:
        raise InputError(f"{command}: this model has no right text (a ruDALL-E?); it can only draw")


class SamplingKwargs(TypedDict):
    """The keywords that all sampling tasks take, as a command line gives them."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int
    batch_size: int
    quiet: bool


def _sampling_kwargs(args: argparse.Namespace) -> SamplingKwargs:
    return {
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "quiet": args.quiet,
    }


def parse_borders(text: str) -> dict[str, int]:
    """Parses 'up=4,left=2' -> {"up": 4, "left": 2}."""
    borders = {}
    for part in filter(None, text.split(",")):
        side, _, width = part.partition("=")
        if side not in SIDES or not width.isdecimal():
            raise InputError(
                f"--keep is {text!r}; expected such as up=4,left=2 with any of {', '.join(SIDES)}"
            )
        borders[side] = int(width)
    if not any(borders.values()):
        raise InputError("--image is given, but --keep names no border to keep of it: --keep=up=8")
    return borders


def _pieces_spelled_with(rudolph: PretrainedRudolph, characters: str) -> list[int]:
    """Returns the ids of EOS and of the pieces that consist of these characters alone."""
    tokenizer, wanted = rudolph.tokenizer, set(characters.lower()) | {" "}
    spelled = {i: tokenizer.piece(i) for i in range(4, tokenizer.vocab_size)}
    pieces = [i for i, piece in spelled.items() if piece and set(piece) <= wanted]
    if not any(spelled[i].strip() for i in pieces):
        raise InputError(f"--characters is {characters!r}; the vocabulary has no piece of them")
    return [tokenizer.eos_id, *pieces]
