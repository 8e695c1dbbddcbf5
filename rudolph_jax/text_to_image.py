"""Text to image: codes, images, and the best of them by the model's own ranking.

Source: `rudolph.api.ruDolphApi`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from PIL import Image

from clip_jax.arguments import (
    check_array,
    check_flag,
    check_integer,
    check_number,
    check_text,
    check_text_list,
)
from clip_jax.config_fields import short_repr
from clip_jax.errors import InputError
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.pretrained import PretrainedRudolph, check_rudolph
from rudolph_jax.ranking import self_reranking_by_text
from rudolph_jax.sampling import IMAGE_SAMPLING
from rudolph_jax.text_encoding import encode_left


def generate_codebooks(
    rudolph: PretrainedRudolph,
    text: str,
    images_num: int,
    *,
    image_prompts: np.ndarray | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    special_token: str = "LT_T2I",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Samples images of a text, int32[images_num, image tokens].

    image_prompts: int32[image tokens], given codes (`image_prompts.py`).
    temperature, top_k, top_p: see `sampling.SamplingParams`; None: the original's 1.0, 768, 0.99.
    """
    check_rudolph(rudolph)
    images_num = check_integer("images_num", images_num)
    left = encode_left(rudolph.tokenizer, rudolph.config, text, special_token)
    generation = GenerationConfig(
        IMAGE_SAMPLING.with_overrides(temperature, top_k, top_p), seed, batch_size, quiet, mesh
    )
    return _concatenate(_sample_codes(rudolph, generation, left[None], images_num, image_prompts))


def generate_codebooks_cfg(
    rudolph: PretrainedRudolph,
    text: str,
    images_num: int,
    *,
    template: str = "",
    weight_cfg: float = 0.2,
    late_softmax: bool = False,
    image_prompts: np.ndarray | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    special_token: str = "LT_UNK",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Samples images with classifier-free guidance; otherwise as `generate_codebooks`.

    template: the unconditional left text, in which {text} stands for the text; its special token
        is `special_token`.
    weight_cfg: weight of the template's prediction, the text's being 1 - weight_cfg; below 0 leads
        away from the template.
    late_softmax: mix logits instead of probabilities.
    """
    check_rudolph(rudolph)
    images_num = check_integer("images_num", images_num)
    weight_cfg = check_number("weight_cfg", weight_cfg)
    check_flag("late_softmax", late_softmax)
    lefts = encode_guided(rudolph, text, template, special_token)
    generation = GenerationConfig(
        IMAGE_SAMPLING.with_overrides(temperature, top_k, top_p), seed, batch_size, quiet, mesh
    )
    guidance = "logits" if late_softmax else "probabilities"
    return _concatenate(
        _sample_codes(rudolph, generation, lefts, images_num, image_prompts, guidance, weight_cfg)
    )


def draw_texts(
    rudolph: PretrainedRudolph,
    texts: Sequence[str],
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    special_token: str = "LT_T2I",
    seed: int = 0,
    batch_size: int = 24,
    first_text: int = 0,
    quiet: bool = False,
) -> np.ndarray:
    """Samples one image of each of many texts: int32[texts, image tokens].

    first_text: number of the first text. The image of a text depends on the seed, the text and its
        number alone, not on the batch size.
    Other arguments: see `generate_codebooks`.
    """
    check_rudolph(rudolph)
    texts = check_text_list("texts", texts)
    first_text = check_integer("first_text", first_text, 0)
    sampling = IMAGE_SAMPLING.with_overrides(temperature, top_k, top_p)
    generation = GenerationConfig(sampling, seed, batch_size, quiet)
    batch_size = generation.batch_size
    tokenizer, config = rudolph.tokenizer, rudolph.config
    drawn = [np.zeros((0, rudolph.layout.image_length), np.int32)]
    for start in range(0, len(texts), batch_size):
        lefts = [
            encode_left(tokenizer, config, text, special_token)
            for text in texts[start : start + batch_size]
        ]
        # Padded, so that the last batch compiles nothing.
        rows = lefts + lefts[-1:] * (min(batch_size, len(texts)) - len(lefts))
        parts = sample_batches(
            rudolph, generation, "image", np.stack(rows)[None], config.left_text_length, 1,
            first_prompt=first_text + start,
        )  # fmt: skip
        drawn += [part[: len(lefts), 0] for part in parts]
    return np.concatenate(drawn)


def draw_images(
    rudolph: PretrainedRudolph,
    text: str,
    images_num: int,
    *,
    guidance: float | None = None,
    image_prompts: np.ndarray | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    special_token: str = "LT_T2I",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
) -> Iterator[Image.Image]:
    """Yields images as they are finished, a batch at a time. Arguments: see `draw_in_batches`."""
    batches = draw_in_batches(
        rudolph, text, images_num, guidance=guidance, image_prompts=image_prompts,
        temperature=temperature, top_k=top_k, top_p=top_p, special_token=special_token, seed=seed,
        batch_size=batch_size, quiet=quiet,
    )  # fmt: skip
    return (image for codes in batches for image in rudolph.decode_images(codes))


def draw_in_batches(
    rudolph: PretrainedRudolph,
    text: str,
    images_num: int,
    *,
    guidance: float | None = None,
    image_prompts: np.ndarray | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    special_token: str = "LT_T2I",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
) -> Iterator[np.ndarray]:
    """Yields int32[b, image tokens], the codes of `generate_codebooks` as they are finished.

    guidance: the `weight_cfg` of `generate_codebooks_cfg`, which then gives the codes; None: off.
    Arguments are checked by the call itself; sampling stops when the iterator is closed.
    """
    check_rudolph(rudolph)
    images_num = check_integer("images_num", images_num)
    generation = GenerationConfig(
        IMAGE_SAMPLING.with_overrides(temperature, top_k, top_p), seed, batch_size, quiet
    )
    if guidance is None:
        left = encode_left(rudolph.tokenizer, rudolph.config, text, special_token)
        return _sample_codes(rudolph, generation, left[None], images_num, image_prompts)
    weight = check_number("guidance", guidance)
    lefts = encode_guided(rudolph, text, "", "LT_UNK")
    arguments = (images_num, image_prompts, "probabilities", weight)
    return _sample_codes(rudolph, generation, lefts, *arguments)


def dream(
    rudolph: PretrainedRudolph,
    text: str,
    images_num: int = 5,
    codebooks_num: int = 48,
    *,
    template: str = "{text}",
    ppl_txt_w: float = 0.95,
    image_prompts: np.ndarray | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    special_token: str = "LT_T2I",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
    mesh: Mesh | None = None,
) -> tuple[list[Image.Image], list[dict[str, Any]]]:
    """Returns the best `images_num` of `codebooks_num` images, best first.

    template: the left text, in which {text} stands for the text; ranking uses the text alone.
    images_num: at most codebooks_num.
    Other arguments: see `generate_codebooks` and, for ppl_txt_w, `self_reranking_by_text`.
    The second list has "ppl_txt", "ppl_img" and "score" of each, low is good, and its "codes".
    """
    images_num = check_integer("images_num", images_num)
    codebooks_num = check_integer("codebooks_num", codebooks_num)
    if images_num > codebooks_num:
        raise InputError(
            f"images_num is {images_num}, more than codebooks_num, {codebooks_num}; expected the "
            "best of at least as many: raise codebooks_num"
        )
    ppl_txt_w = check_number("ppl_txt_w", ppl_txt_w, 0, 1)
    check_text("text", text)
    if "{text}" not in check_text("template", template):
        raise InputError(
            f"template is {short_repr(template)}; expected {{text}} where the text stands: without "
            "it no image depends on the text"
        )
    codes = generate_codebooks(
        rudolph,
        template.replace("{text}", text),
        codebooks_num,
        image_prompts=image_prompts,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        special_token=special_token,
        seed=seed,
        batch_size=batch_size,
        quiet=quiet,
        mesh=mesh,
    )
    ppl_txt, ppl_img, scores = self_reranking_by_text(
        rudolph, text, codes, ppl_txt_w=ppl_txt_w, batch_size=batch_size, quiet=quiet
    )
    best = np.argsort(scores, kind="stable")[:images_num]
    results = [
        {
            "ppl_txt": float(ppl_txt[i]),
            "ppl_img": float(ppl_img[i]),
            "score": float(scores[i]),
            "codes": codes[i],
        }
        for i in best
    ]
    return rudolph.decode_images(codes[best]), results


def encode_guided(
    rudolph: PretrainedRudolph, text: str, template: str, special_token: str
) -> np.ndarray:
    """Encodes the conditional and the unconditional left text: int32[2, left_text_length]."""
    check_text("text", text)
    check_text("template", template)
    encode = (rudolph.tokenizer, rudolph.config)
    unconditional = template.replace("{text}", text)
    return np.stack(
        [encode_left(*encode, text, "LT_T2I"), encode_left(*encode, unconditional, special_token)]
    )


def _sample_codes(
    rudolph: PretrainedRudolph,
    generation: GenerationConfig,
    lefts: np.ndarray,
    images_num: int,
    image_prompts: np.ndarray | None,
    guidance: str = "none",
    weight: float = 0.0,
) -> Iterator[np.ndarray]:
    """Returns an iterator of int32[b, image tokens]. lefts: int32[G, left_text_length]."""
    if image_prompts is not None:
        image_prompts = _validate_image_prompts(rudolph, image_prompts)
    drawn = sample_batches(
        rudolph, generation, "image", lefts[:, None], rudolph.config.left_text_length, images_num,
        forced_tokens=image_prompts, guidance=guidance, guidance_weight=weight,
    )  # fmt: skip
    return (tokens[0] for tokens in drawn)


def _concatenate(parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts))


def _validate_image_prompts(rudolph: PretrainedRudolph, image_prompts: np.ndarray) -> np.ndarray:
    codes = np.asarray(check_array("image_prompts", image_prompts))
    length = rudolph.layout.image_length
    if codes.shape != (length,) or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"image_prompts are {codes.dtype}{list(codes.shape)}; expected int32[{length}]"
        )
    limit = rudolph.config.image_vocab_size
    if codes.min() < -1 or codes.max() >= limit:
        bad = codes.min() if codes.min() < -1 else codes.max()
        raise InputError(f"image_prompts hold {bad}; expected -1 (unset) to {limit - 1}")
    return codes
