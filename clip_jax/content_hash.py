"""A hash of a model's content, which does not depend on how it is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def content_hash(
    config: Mapping[str, Any], params: Mapping[str, Any], files: Mapping[str, bytes]
) -> str:
    """Computes SHA-256 of config, parameters and vocabulary files (name -> content)."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    leaves = jax.tree_util.tree_leaves_with_path(dict(params))
    for path, leaf in sorted(leaves, key=lambda item: str(item[0])):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    for name, content in sorted(files.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()
