"""Image or question to text: captions, answers, and features of images.

Source: `rudolph.api.ruDolphApi`; questions as in the FBC2 baseline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax.arguments import (
    check_image_list,
    check_integer,
    check_number,
    check_text,
    check_text_list,
)
from clip_jax.batch_padding import bucket_size, pad_batch, pad_to_bucket
from clip_jax.config import check_choice
from clip_jax.errors import InputError
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.pretrained import PretrainedRudolph, check_rudolph
from rudolph_jax.ranking import self_reranking_by_image
from rudolph_jax.sampling import TEXT_SAMPLING, SamplingParams
from rudolph_jax.text_encoding import decode_text, encode_left, encode_right
from rudolph_jax.text_generation import template_length

QUESTION_SAMPLING = SamplingParams(temperature=1.0, top_k=32, top_p=0.8)
# Type of question -> the special tokens before the question and before the answer.
QUESTIONS = {
    "plain": ("LT_UNK", "RT_UNK"),
    "text": ("LT_TQA", "RT_TQA"),
    "math": ("LT_MQA", "RT_MQA"),
    "image": ("LT_VQA", "RT_VQA"),
    "caption": ("LT_CAP", "RT_CAP"),
    "recognition": ("LT_REC", "RT_REC"),
}


def generate_captions(
    rudolph: PretrainedRudolph,
    image: Any,
    captions_num: int = 48,
    *,
    r_template: str = "",
    l_template: str = "",
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    early_stop: int | None = None,
    l_special_token: str = "LT_I2T",
    r_special_token: str = "RT_I2T",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
) -> tuple[list[str], np.ndarray]:
    """Samples captions; returns the distinct ones and their counts, int[B].

    r_template: beginning of each caption.
    image: whatever `clip_jax.image.open_image` takes. l_template: the left text.
    early_stop: number of tokens of right text to sample, the template included.
    temperature, top_k, top_p: see `sampling.SamplingParams`; None: the original's 0.9, 64, 0.8.
    """
    check_rudolph(rudolph)
    captions_num = check_integer("captions_num", captions_num)
    check_text("r_template", r_template)
    check_text("l_template", l_template)
    codes = rudolph.encode_images([image])
    generation = GenerationConfig(
        TEXT_SAMPLING.with_overrides(temperature, top_k, top_p), seed, batch_size, quiet
    )
    left = encode_left(rudolph.tokenizer, rudolph.config, l_template, l_special_token)[None]
    (texts,) = right_texts(
        rudolph, generation, left, codes, r_template, r_special_token, captions_num, early_stop
    )
    counts = Counter(texts)
    counts.pop("", None)
    return list(counts), np.array(list(counts.values()), int)


def image_captioning(
    rudolph: PretrainedRudolph,
    image: Any,
    captions_num: int = 5,
    *,
    generations_num: int = 48,
    r_template: str = "на картинке",
    l_template: str = "",
    ppl_txt_w: float = 0.05,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    early_stop: int | None = None,
    l_special_token: str = "LT_I2T",
    r_special_token: str = "RT_I2T",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Returns the best captions first: [{"text", "score", "count", "ppl_txt", "ppl_img"}].

    A score is `self_reranking_by_image`'s divided by the caption's count; low is good.
    captions_num: the largest number of captions; there are fewer where fewer are distinct.
    generations_num: how many are sampled.
    Other arguments: see `generate_captions` and, for ppl_txt_w, `self_reranking_by_image`.
    """
    captions_num = check_integer("captions_num", captions_num)
    generations_num = check_integer("generations_num", generations_num)
    ppl_txt_w = check_number("ppl_txt_w", ppl_txt_w, 0, 1)
    texts, counts = generate_captions(
        rudolph, image, generations_num, r_template=r_template, l_template=l_template,
        temperature=temperature, top_k=top_k, top_p=top_p, early_stop=early_stop,
        l_special_token=l_special_token, r_special_token=r_special_token, seed=seed,
        batch_size=batch_size, quiet=quiet,
    )  # fmt: skip
    ppl_txt, ppl_img, scores = self_reranking_by_image(
        rudolph, texts, image, ppl_txt_w=ppl_txt_w, batch_size=batch_size, quiet=quiet
    )
    scores = scores / counts
    return [
        {
            "text": texts[i],
            "score": float(scores[i]),
            "count": int(counts[i]),
            "ppl_txt": float(ppl_txt[i]),
            "ppl_img": float(ppl_img[i]),
        }
        for i in np.argsort(scores, kind="stable")[:captions_num]
    ]


def caption_images(
    rudolph: PretrainedRudolph,
    images: Sequence[Any],
    *,
    r_template: str = "",
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    quiet: bool = False,
) -> list[str]:
    """Generates one caption for each of many images, greedy by default, without ranking."""
    check_rudolph(rudolph)
    images = check_image_list("images", images)
    check_text("r_template", r_template)
    generation = GenerationConfig(SamplingParams(temperature), seed, batch_size, quiet)
    batch_size = generation.batch_size
    captions = []
    rows = min(batch_size, bucket_size(len(images)))
    left = np.tile(encode_left(rudolph.tokenizer, rudolph.config, "", "LT_I2T"), (rows, 1))
    for start in range(0, len(images), batch_size):
        encoded = rudolph.encode_images(images[start : start + batch_size])
        codes = pad_batch(encoded, rows)
        sampled = right_texts(rudolph, generation, left, codes, r_template, "RT_I2T", 1, None)
        captions += [texts[0] for texts in sampled[: len(encoded)]]
    return captions


def answer(
    rudolph: PretrainedRudolph,
    question: str,
    image: Any | None = None,
    answers_num: int = 24,
    *,
    about: str = "plain",
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    early_stop: int | None = None,
    context: str = "",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Samples answers; returns the distinct ones, the most frequent first: [{"text", "count"}].

    image: subject of the question; None: a question on a text (all codes 0, as trained).
    about: one of QUESTIONS; "plain" works with every model that has special tokens, the others
        with one that was fine-tuned on them, such as 2.7B_fbc2.
    context: the text that holds the answer; one that is too long loses its end.
    temperature, top_k, top_p: None: 1.0, 32, 0.8.
    """
    check_rudolph(rudolph)
    check_text("question", question)
    check_text("context", context)
    answers_num = check_integer("answers_num", answers_num)
    left, codes = _encode_questions(rudolph, [question], [image], [context], about)
    generation = GenerationConfig(
        QUESTION_SAMPLING.with_overrides(temperature, top_k, top_p), seed, batch_size, quiet
    )
    token = QUESTIONS[about][1]
    (texts,) = right_texts(rudolph, generation, left, codes, "", token, answers_num, early_stop)
    counts = Counter(text for text in texts if text)
    return [{"text": text, "count": count} for text, count in counts.most_common()]


def answer_questions(
    rudolph: PretrainedRudolph,
    questions: Sequence[str],
    images: Sequence[Any] | None = None,
    contexts: Sequence[str] | None = None,
    *,
    about: str = "plain",
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    quiet: bool = False,
) -> list[str]:
    """Answers each of many questions once, greedy by default; see `answer`."""
    check_rudolph(rudolph)
    questions = check_text_list("questions", questions)
    images = [None] * len(questions) if images is None else check_image_list("images", images)
    contexts = [""] * len(questions) if contexts is None else check_text_list("contexts", contexts)
    for name, given in (("images", images), ("contexts", contexts)):
        if len(given) != len(questions):
            raise InputError(f"{len(given)} {name} were given for {len(questions)} questions")
    generation = GenerationConfig(SamplingParams(temperature), seed, batch_size, quiet)
    batch_size = generation.batch_size
    answers = []
    for start in range(0, len(questions), batch_size):
        part = slice(start, start + batch_size)
        encoded = _encode_questions(rudolph, questions[part], images[part], contexts[part], about)
        rows = min(batch_size, bucket_size(len(questions)))
        left, codes = (pad_batch(ids, rows) for ids in encoded)
        sampled = right_texts(rudolph, generation, left, codes, "", QUESTIONS[about][1], 1, None)
        answers += [texts[0] for texts in sampled[: len(encoded[0])]]
    return answers


def image_features(
    rudolph: PretrainedRudolph, images: Sequence[Any], layer: int = -1
) -> np.ndarray:
    """Averages a layer's hidden states over the image tokens, for probes: float32[B, D].

    layer: 0 to layers - 1, or counted from the end.
    """
    check_rudolph(rudolph)
    images = check_image_list("images", images)
    layers = rudolph.config.layers
    layer = check_integer("layer", layer, -layers, layers - 1)
    if not len(images):
        return np.zeros((0, rudolph.config.width), np.float32)
    codes = rudolph.encode_images(images)
    left = encode_left(rudolph.tokenizer, rudolph.config, "", "LT_I2T")
    ids = np.concatenate([np.tile(left, (len(codes), 1)), codes], axis=1)
    states = np.asarray(rudolph.hidden_states(pad_to_bucket(ids)))[layer, : len(ids)].astype(
        np.float32
    )
    return states[:, rudolph.layout.num_prefix_tokens + rudolph.config.left_text_length :].mean(
        axis=1
    )


def _encode_questions(
    rudolph: PretrainedRudolph,
    questions: Sequence[str],
    images: Sequence[Any],
    contexts: Sequence[str],
    about: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns left texts int32[P, L] and codes int32[P, image tokens], 0 without an image."""
    check_choice("about", about, tuple(QUESTIONS))
    tokenizer, config, token = rudolph.tokenizer, rudolph.config, QUESTIONS[about][0]
    left = [
        encode_left(tokenizer, config, question, token, context)
        for question, context in zip(questions, contexts, strict=True)
    ]
    codes = np.zeros((len(questions), rudolph.layout.image_length), np.int32)
    has_images = [row for row, image in enumerate(images) if image is not None]
    if has_images:
        codes[has_images] = rudolph.encode_images([images[row] for row in has_images])
    return np.stack(left), codes


def right_texts(
    rudolph: PretrainedRudolph,
    generation: GenerationConfig,
    left: np.ndarray,
    codes: np.ndarray,
    template: str,
    special_token: str,
    count: int,
    early_stop: int | None,
    seeds: Sequence[int] | None = None,
) -> list[list[str]]:
    """Samples `count` right texts for each left text int32[P, L] and image int32[P, image tokens].

    They begin with the special token and the template. seeds: as in `sample_batches`.
    """
    if early_stop is not None:
        early_stop = check_integer("early_stop", early_stop)
    right = encode_right(rudolph.tokenizer, rudolph.config, template, special_token)
    P = len(codes)
    prompts = np.concatenate([left, codes, np.tile(right, (P, 1))], axis=1)
    start = rudolph.layout.right.start + template_length(right)
    texts: list[list[str]] = [[] for _ in range(P)]
    for part in sample_batches(
        rudolph, generation, "right", prompts[None], start, count, stop=early_stop, seeds=seeds
    ):
        for collected, tokens in zip(texts, part, strict=True):
            collected += [decode_text(rudolph.tokenizer, ids) for ids in tokens]
    return texts
