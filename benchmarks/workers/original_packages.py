"""Make `rudolph` and `ruclip` of 2022 importable with today's libraries; imported before them.

Neither this module nor the workers that import it import this project: their Python has the
originals' environment (`make .venv-original/.installed`).
"""

from __future__ import annotations

import sys
from unittest.mock import MagicMock

import huggingface_hub
import torch
import transformers

# Imported by the packages, never called by what is timed.
for name in (
    "cv2", "matplotlib", "matplotlib.pyplot", "pkg_resources", "torchvision",
    "torchvision.transforms", "youtokentome",
):  # fmt: skip
    sys.modules.setdefault(name, MagicMock())
huggingface_hub.cached_download = None


def filter_logits(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """Copy transformers.top_k_top_p_filtering, removed from later releases."""
    if top_k:
        smallest = torch.topk(logits, top_k)[0][..., -1, None]
        logits = logits.masked_fill(logits < smallest, -float("inf"))
    if top_p < 1:
        ordered, indices = torch.sort(logits, descending=True)
        total = torch.cumsum(torch.softmax(ordered, -1), -1)
        drop = torch.roll(total > top_p, 1, -1)
        drop[..., 0] = False
        logits = logits.masked_fill(drop.scatter(1, indices, drop), -float("inf"))
    return logits


transformers.top_k_top_p_filtering = filter_logits
