"""Ranking of candidates: images for a text, texts for an image, classes for an image.

Scores are low where a candidate fits well. Source: `rudolph.api.ruDolphApi`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import Predictor
from clip_jax.arguments import (
    check_array,
    check_flag,
    check_image_list,
    check_integer,
    check_number,
    check_text,
    check_text_list,
    check_type,
)
from clip_jax.config_fields import short_repr
from clip_jax.errors import InputError
from clip_jax.text import normalize_name, warn_of_invisible
from rudolph_jax.perplexity import combined_scores, perplexities, perplexities_after_prompts
from rudolph_jax.pretrained import PretrainedRudolph, check_rudolph
from rudolph_jax.text_encoding import encode_left, encode_right

BATCH_SIZE = 24
Ranking = tuple[np.ndarray, np.ndarray, np.ndarray]  # ppl_txt, ppl_img, scores; float32[B] each


def self_reranking_by_text(
    rudolph: PretrainedRudolph,
    text: str,
    codebooks: np.ndarray,
    *,
    l_template: str = "",
    l_special_token: str = "LT_I2T",
    r_special_token: str = "RT_I2T",
    ppl_txt_w: float = 0.95,
    quantile: float = 0.5,
    batch_size: int = BATCH_SIZE,
    quiet: bool = True,
) -> Ranking:
    """Scores images, int32[B, image tokens], by the perplexity of a text as their caption.

    l_template: the left text.
    ppl_txt_w: weight of the text's perplexity in the score, the image's being 1 - ppl_txt_w.
    A model without right text, ruDALL-E, ranks by the image's perplexity after the text.
    """
    check_rudolph(rudolph)
    check_text("text", text)
    check_text("l_template", l_template)
    batch_size = _check_weights(ppl_txt_w, quantile, batch_size, quiet)
    tokenizer, config = rudolph.tokenizer, rudolph.config
    codes = _validate_codes(rudolph, codebooks)
    if not config.right_text_length:
        left = encode_left(tokenizer, config, text, l_special_token)
        image = _perplexities(rudolph, left, codes, ("image",), batch_size, quiet)["image"]
        return np.ones_like(image), image, combined_scores(image, image, 0.0, quantile)
    left = encode_left(tokenizer, config, l_template, l_special_token)
    right = encode_right(tokenizer, config, text, r_special_token)
    continuations = np.concatenate([codes, np.tile(right, (len(codes), 1))], axis=1)
    found = _perplexities(rudolph, left, continuations, ("image", "right"), batch_size, quiet)
    scores = combined_scores(found["right"], found["image"], ppl_txt_w, quantile)
    return found["right"], found["image"], scores


def self_reranking_by_image(
    rudolph: PretrainedRudolph,
    texts: Sequence[str],
    image: Any,
    *,
    l_special_token: str = "LT_T2I",
    ppl_txt_w: float = 0.05,
    quantile: float = 0.5,
    batch_size: int = BATCH_SIZE,
    quiet: bool = True,
) -> Ranking:
    """Scores texts by the perplexity of an image after each of them, and by their own."""
    check_rudolph(rudolph)
    texts = check_text_list("texts", texts)
    batch_size = _check_weights(ppl_txt_w, quantile, batch_size, quiet)
    codes = rudolph.encode_images([image])[0]
    found = perplexities_with_images(
        rudolph, texts, [codes] * len(texts), l_special_token, batch_size, quiet
    )
    return *found, combined_scores(*found, ppl_txt_w, quantile)


def perplexities_with_images(
    rudolph: PretrainedRudolph,
    texts: Sequence[str],
    codes: Sequence[np.ndarray],
    l_special_token: str = "LT_T2I",
    batch_size: int = BATCH_SIZE,
    quiet: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes ppl_txt and ppl_img, float32[B], of texts and of the image after each of them.

    codes: int32[image tokens], of each text's image.
    """
    rows = [
        np.concatenate([encode_left(rudolph.tokenizer, rudolph.config, text, l_special_token), ids])
        for text, ids in zip(texts, codes, strict=True)
    ]
    if not rows:
        return (np.zeros((0,), np.float32),) * 2
    nothing = np.zeros((0,), np.int32)
    found = _perplexities(rudolph, nothing, np.stack(rows), ("left", "image"), batch_size, quiet)
    return found["left"], found["image"]


def zs_clf(
    rudolph: PretrainedRudolph,
    image: Any,
    classes: Sequence[str],
    *,
    r_template: str = "{}",
    l_template: str = "",
    l_special_token: str = "LT_I2T",
    r_special_token: str = "RT_I2T",
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Classifies an image: {"label": int, "class": str, "scores": float32[classes]}.

    The class's name, in NFC, stands in the right text, the image's caption; `l_template` may
    name it too, and then each class has a left text of its own. Low scores are good.
    At least one of the two templates holds {}, where the name stands.
    """
    check_rudolph(rudolph)
    classes = check_text_list("classes", classes, "names", least=1)
    check_text("r_template", r_template)
    check_text("l_template", l_template)
    if "{}" not in r_template + l_template:
        raise InputError(
            f"r_template is {short_repr(r_template)}; expected {{}} where the class's name stands, "
            "such as 'на фото {}': without it all classes have one text"
        )
    batch_size = check_integer("batch_size", batch_size)
    names = [normalize_name(name) for name in classes]
    warn_of_invisible(names, "classes")
    tokenizer, config = rudolph.tokenizer, rudolph.config
    codes = rudolph.encode_images([image])[0]
    rights = [
        encode_right(tokenizer, config, _fill_template(r_template, name), r_special_token)
        for name in names
    ]
    lefts = [
        encode_left(tokenizer, config, _fill_template(l_template, name), l_special_token)
        for name in names
    ]
    if all((left == lefts[0]).all() for left in lefts):
        prompt, continuations = np.concatenate([lefts[0], codes]), np.stack(rights)
    else:
        prompt = np.zeros((0,), np.int32)
        rows = [np.concatenate([a, codes, b]) for a, b in zip(lefts, rights, strict=True)]
        continuations = np.stack(rows)
    found = _perplexities(rudolph, prompt, continuations, ("right",), batch_size, quiet=True)[
        "right"
    ]
    scores = class_scores(found)
    label = int(scores.argmin())
    return {"label": label, "class": classes[label], "scores": scores}


def class_scores(perplexities: np.ndarray) -> np.ndarray:
    """Computes scores float32[classes], low is good, from perplexities, as the original."""
    unit = perplexities / np.linalg.norm(perplexities)
    return np.exp(unit) / np.exp(unit).sum()


def class_perplexities(
    rudolph: PretrainedRudolph,
    images: Sequence[Any],
    captions: Sequence[str],
    *,
    l_special_token: str = "LT_I2T",
    r_special_token: str = "RT_I2T",
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Computes perplexities float32[images, captions], low is good, of each caption of each image.

    These are what `zs_clf` compares, without left text, for many images at once.
    batch_size: captions at once, of as many images as fit.
    """
    check_rudolph(rudolph)
    images = check_image_list("images", images)
    captions = check_text_list("captions", captions, least=1)
    batch_size = check_integer("batch_size", batch_size)
    codes = rudolph.encode_images(images)
    return class_perplexities_of_codes(
        rudolph, codes, captions, l_special_token, r_special_token, batch_size
    )


def class_perplexities_of_codes(
    rudolph: PretrainedRudolph,
    codes: np.ndarray,
    captions: Sequence[str],
    l_special_token: str = "LT_I2T",
    r_special_token: str = "RT_I2T",
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Does what `class_perplexities` does for images that are codes, int32[B, image tokens]."""
    tokenizer, config = rudolph.tokenizer, rudolph.config
    left = encode_left(tokenizer, config, "", l_special_token)
    rights = [encode_right(tokenizer, config, text, r_special_token) for text in captions]
    with rudolph.precision:
        return perplexities_after_prompts(
            config, rudolph.compute, rudolph.inference_params,
            np.concatenate([np.tile(left, (len(codes), 1)), codes], axis=1), np.stack(rights),
            "right", batch_size=batch_size,
        )  # fmt: skip


def ruclip_reranking(
    predictor: Predictor, text: str, images: Sequence[Any], count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks images by ruCLIP's cosine with a text: the best `count` indices int[count], cosines.

    Source: `rudalle.pipelines.cherry_pick_by_ruclip`.
    """
    check_type("predictor", predictor, Predictor, "clip_jax.Predictor(clip)")
    check_text("text", text)
    if count is not None:
        count = check_integer("count", count)
    images = check_image_list("images", images)
    latents = predictor.get_image_latents(list(images))
    cosines = (latents @ predictor.get_text_latents([text]).T)[:, 0]
    order = np.argsort(-cosines, kind="stable")[:count]
    return order, cosines[order]


def rank_images(
    rudolph: PretrainedRudolph,
    text: str,
    codes: np.ndarray,
    predictor: Predictor | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    quiet: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ranks images, int32[B, image tokens]: their indices, best first, and their scores by name.

    predictor: the ruCLIP to rank with, by "cosine"; None: the model itself, by "score", low is
        good, of "ppl_txt" and "ppl_img".
    Scores are in the order of `codes`.
    """
    check_rudolph(rudolph)
    check_text("text", text)
    check_flag("quiet", quiet)
    codes = _validate_codes(rudolph, codes)
    if predictor is not None:
        order, cosines = ruclip_reranking(predictor, text, rudolph.decode_images(codes))
        found = np.empty_like(cosines)
        found[order] = cosines
        return order, {"cosine": found}
    ppl_txt, ppl_img, scores = self_reranking_by_text(
        rudolph, text, codes, batch_size=batch_size, quiet=quiet
    )
    order = np.argsort(scores, kind="stable")
    return order, {"score": scores, "ppl_txt": ppl_txt, "ppl_img": ppl_img}


def _perplexities(
    rudolph: PretrainedRudolph,
    prompt: np.ndarray,
    continuations: np.ndarray,
    segments: tuple[str, ...],
    batch_size: int,
    quiet: bool,
) -> dict[str, np.ndarray]:
    with rudolph.precision:
        return perplexities(
            rudolph.config, rudolph.compute, rudolph.inference_params, prompt, continuations,
            segments, batch_size=batch_size, quiet=quiet,
        )  # fmt: skip


def _fill_template(template: str, name: str) -> str:
    return template.replace("{}", name)


def _check_weights(ppl_txt_w: float, quantile: float, batch_size: int, quiet: bool) -> int:
    """Checks what both rankings take; returns the batch size."""
    check_number("ppl_txt_w", ppl_txt_w, 0, 1)
    check_number("quantile", quantile, 0, 1)
    check_flag("quiet", quiet)
    return check_integer("batch_size", batch_size)


def _validate_codes(rudolph: PretrainedRudolph, codebooks: np.ndarray) -> np.ndarray:
    codes = np.asarray(check_array("codebooks", codebooks))
    length = rudolph.layout.image_length
    if codes.ndim != 2 or codes.shape[1] != length or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"codebooks are {codes.dtype}{list(codes.shape)}; expected int32[B, {length}]"
        )
    limit = rudolph.config.image_vocab_size
    if codes.size and not 0 <= codes.min() <= codes.max() < limit:
        raise InputError(f"codebooks hold {codes.max()}; expected codes from 0 to {limit - 1}")
    return codes.astype(np.int32)
