"""Images and what was found out about them, shown in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from clip_jax.arguments import check_image_list, check_number, check_text_list, describe
from clip_jax.errors import InputError
from clip_jax.html_sheet import html_sheet

SCORES = ("score", "cosine")  # keys of the number in a result of `tasks`


@dataclasses.dataclass(frozen=True)
class ImageSheet:
    """Holds images with captions; a notebook shows them side by side.

    captions: of each image, "" for none.
    """

    images: Sequence[Any]
    captions: Sequence[str]

    def __repr__(self) -> str:
        captions = [caption.replace("\n", ", ") for caption in self.captions if caption]
        return f"ImageSheet({len(self.images)} images{''.join(f'; {each}' for each in captions)})"

    def _repr_html_(self) -> str:
        return html_sheet(zip(self.images, self.captions, strict=True))


def show(
    images: Sequence[Any],
    captions: Sequence[str] | None = None,
    scores: Sequence[float | Mapping[str, Any]] | None = None,
) -> ImageSheet:
    """Returns images as a notebook shows them, side by side.

        images, results = tasks.dream(rudolph, "красный круг")
        rudolph_jax.show(images, scores=results)

    images: each whatever `clip_jax.image.open_image` takes.
    captions: of each image, shown as they are.
    scores: of each image, a number or a result of `tasks.dream`.
    """
    images = list(check_image_list("images", images))
    lines: list[list[str]] = [[] for _ in images]
    if captions is not None:
        captions = check_text_list("captions", captions)
        _check_count("captions", captions, images)
        for line, caption in zip(lines, captions, strict=True):
            line += [caption] * bool(caption)
    if scores is not None:
        if isinstance(scores, str | Mapping) or not hasattr(scores, "__len__"):
            raise InputError(f"scores are {describe(scores)}; expected a list of numbers")
        _check_count("scores", scores, images)
        for i, (line, score) in enumerate(zip(lines, scores, strict=True)):
            line.append(_say(f"scores[{i}]", score))
    return ImageSheet(images, ["\n".join(line) for line in lines])


def _check_count(name: str, values: Sequence[Any], images: Sequence[Any]) -> None:
    if len(values) != len(images):
        raise InputError(f"{len(values)} {name} were given for {len(images)} images")


def _say(name: str, score: Any) -> str:
    if not isinstance(score, Mapping):
        return f"{check_number(name, score):.3f}"
    key = next((key for key in SCORES if key in score), None)
    if key is None:
        wanted = " or ".join(SCORES)
        raise InputError(f"{name} has no {wanted}; expected a number or a result of tasks.dream")
    return f"{key} {check_number(name, score[key]):.3f}"
