"""What tests of preparation share: images to put into a source, and what became of them."""

import io
import json

import numpy as np
from PIL import Image

from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.shards import WriteConfig


def picture(i, format="JPEG", size=(30, 20)):
    pixels = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def prepared(options, out, rules=WriteConfig()):  # noqa: B008
    """{key: (image, captions)} and the lines of rejected.jsonl."""
    prepare(options, out, rules)
    rows = {row["key"]: (row["image"], row["captions"]) for row in Split(out, rules.split)}
    return rows, rejected(out)


def rejected(out):
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
