"""All tasks of RUDOLPH, each a function of a `PretrainedRudolph`.

    rudolph = rudolph_jax.load("models/rudolph", vqgan="models/vqgan")
    images, scores = tasks.dream(rudolph, "красный круг", images_num=4)

Names and defaults are those of the original's `ruDolphApi`, where it has the task.
"""

from rudolph_jax.image_prompts import keep_borders, keep_mask
from rudolph_jax.image_to_text import (
    answer,
    answer_questions,
    caption_images,
    generate_captions,
    image_captioning,
    image_features,
)
from rudolph_jax.ranking import (
    class_perplexities,
    rank_images,
    ruclip_reranking,
    self_reranking_by_image,
    self_reranking_by_text,
    zs_clf,
)
from rudolph_jax.super_resolution import super_resolution
from rudolph_jax.text_generation import generate_texts, text_perplexities
from rudolph_jax.text_to_image import (
    draw_images,
    draw_in_batches,
    draw_texts,
    dream,
    generate_codebooks,
    generate_codebooks_cfg,
)

__all__ = [
    "answer",
    "answer_questions",
    "caption_images",
    "class_perplexities",
    "draw_images",
    "draw_in_batches",
    "draw_texts",
    "dream",
    "generate_captions",
    "generate_codebooks",
    "generate_codebooks_cfg",
    "generate_texts",
    "image_captioning",
    "image_features",
    "keep_borders",
    "keep_mask",
    "rank_images",
    "ruclip_reranking",
    "self_reranking_by_image",
    "self_reranking_by_text",
    "super_resolution",
    "text_perplexities",
    "zs_clf",
]
