"""Parts of a preparation, for machines that know nothing of each other but a shared destination.

Part K of N, counted from 0, has the chunks K, K + N, K + 2N, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip_jax import part
from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.text import read_json
from experiments.data.sources.shards import json_line

PARTS = "parts.json"  # in `unfinished`: into how many parts the last machine that began cut it
MOST_NAMED = 20


class Part(part.Part):
    """One of `count` parts of a preparation, `number` from 0 on."""

    def chunks(self, all_chunks: int) -> range:
        return range(self.number, all_chunks, self.count)

    def record(self, folder: Path) -> None:
        """Notes the number of parts, by which `check_whole` names those that are missing."""
        if _recorded(folder) != self.count:
            replace_file(folder / PARTS, json_line({"parts": self.count}))


def _recorded(folder: Path) -> int:
    file = folder / PARTS
    found = read_json(file) if file.exists() else None
    count = found.get("parts") if isinstance(found, dict) else None
    return count if type(count) is int and count > 0 else 0


def check_whole(out: Path, folder: Path, missing: Sequence[int], all_chunks: int) -> None:
    """Raises InputError that names the parts of the missing chunks, or the chunks themselves."""
    if not missing:
        return
    count = _recorded(folder)
    what = f"{len(missing)} of {all_chunks} chunks are missing"
    if not count:
        raise InputError(f"{out}: {what}; prepare without --finish makes them")
    parts = sorted({number % count for number in missing})
    named = ", ".join(map(str, parts[:MOST_NAMED])) + ", ..." * (len(parts) > MOST_NAMED)
    raise InputError(
        f"{out}: {what}, of {len(parts)} of {count} parts: {named}; "
        f"run these again, --part={parts[0]}/{count}"
    )
