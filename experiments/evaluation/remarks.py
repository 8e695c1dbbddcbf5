"""What stands beside a number in words: what was left out, what a set lacks, what was ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip_jax.text import escape

NAMED = 5  # classes or images of a list that are named
LACKING = {
    "classes_without_training": "without training images, which are never predicted",
    "classes_without_validation": "without validation images",
    "classes_without_test": "without test images, on which nothing is measured",
}


def left_out(result: Mapping[str, Any]) -> str:
    """", 2 of 21 images left out", or nothing: the end of a printed line."""
    count = len(result.get("unreadable", ()))
    return f", {count} of {result['images']} images left out" if count else ""


def shots_found(row: Mapping[str, Any]) -> str:
    """Pictures a class of one row of a probe: "16", or "16 (4 to 16 found)" of small classes."""
    validation = ""
    if row["validation_found"]["classes_with_fewer"]:
        found = _span(row["validation_found"])
        validation = f"; {row['validation_shots']} for validation, {found} found"
    short = row["found"]["classes_with_fewer"] or row["shots"] == "all"
    if not short and not validation:
        return str(row["shots"])
    return f"{row['shots']} ({_span(row['found'])} found{validation})"


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Lines about a number that is of less than what was asked, most serious first.

    Results of any task; what a task does not have is not mentioned.
    """
    lines = []
    unreadable = result.get("unreadable", ())
    if unreadable:
        first = unreadable[0]
        lines.append(
            f"{len(unreadable)} of {result['images']} images cannot be read and are left out, "
            f"{escape(first['split'])} {escape(first['key'])} say: {first['why']}"
        )
    for field, words in LACKING.items():
        if result.get(field):
            lines.append(f"{_classes(result[field])} {words}")
    rows = result.get("shots", ())
    for found, shots, images in (
        ("found", "shots", "training images than the"),
        ("validation_found", "validation_shots", "images for validation than the"),
    ):
        short = [row for row in rows if row[found]["classes_with_fewer"]]
        if short:
            most = max(short, key=lambda row: row[shots])
            fewer = most[found]["classes_with_fewer"]
            named = [f"{name} {count}" for name, count in fewer.items()]
            lines.append(f"{_classes(named)} with fewer {images} {most[shots]} asked for")
    return lines + [f"ignored: {line}" for line in result.get("ignored", ())]


def is_partial(result: Mapping[str, Any]) -> bool:
    """Returns whether the number covers less than was requested."""
    return any(not line.startswith("ignored: ") for line in remarks(result))


def _span(found: Mapping[str, Any]) -> str:
    fewest, most = found["fewest"], found["most"]
    return str(most) if fewest == most else f"{fewest} to {most}"


def _classes(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    noun = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {noun} ({escape(', '.join(names[:NAMED]))}{more})"
